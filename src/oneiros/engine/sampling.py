"""Choosing the next token."""

from __future__ import annotations

import ctypes
import secrets
from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.library import Sampling, kernels
from oneiros.errors import InvalidSamplingError

_LARGEST_BIAS = 1e4
_NO_BIAS: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How a reply is drawn from the model's distribution.

    Logits are changed in this order: bias, repetition, presence and frequency penalties,
    temperature; then top-k, top-p and min-p cut off the unlikely.
    """

    temperature: float = 0.8  # 0: greedy
    top_k: int = 40  # choose among the k likeliest; 0: all
    top_p: float = 0.95  # ... among the likeliest that together have this probability; 1: all
    min_p: float = 0.05  # ... among those at least this likely relative to the likeliest; 0: all
    repetition_penalty: float = 1.0  # divides (multiplies negative) logits of seen tokens
    presence_penalty: float = 0.0  # taken off the logits of tokens generated so far
    frequency_penalty: float = 0.0  # the same, for each time
    penalty_window: int = 256  # last tokens of prompt and reply that count as seen; 0: all
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    seed: int | None = None  # None: a new one each time
    stop: tuple[str, ...] = ()  # a reply ends before the first of these texts
    max_tokens: int | None = None  # None: until the model ends its reply or the context is full

    def __post_init__(self) -> None:
        """Raises InvalidSamplingError naming the option, its value and its range."""
        largest = 2**31 - 1
        for name, kind, low, high in (
            ("temperature", float, 0.0, 100.0),
            ("top_p", float, 0.0, 1.0),
            ("min_p", float, 0.0, 1.0),
            ("repetition_penalty", float, 0.01, 100.0),
            ("presence_penalty", float, -100.0, 100.0),
            ("frequency_penalty", float, -100.0, 100.0),
            ("top_k", int, 0, largest),
            ("penalty_window", int, 0, largest),
            ("max_tokens", int, 1, largest),
            ("seed", int, -(2**63), 2**64),
        ):
            value = getattr(self, name)
            if value is None and name in ("max_tokens", "seed"):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or (kind is int and not isinstance(value, int)):
                wanted = "a whole number" if kind is int else "a number"
                raise InvalidSamplingError(f"{name} is {value!r}; it must be {wanted}.")
            if not low <= value <= high:  # also refuses NaN
                raise InvalidSamplingError(
                    f"{name} is {value}; it must be from {low:g} to {high:g}."
                )
        if self.top_p == 0.0:
            raise InvalidSamplingError("top_p is 0; use temperature 0 for the likeliest token.")
        for token, bias in self.logit_bias.items():
            if token < 0 or not abs(bias) <= _LARGEST_BIAS:
                raise InvalidSamplingError(
                    f"logit_bias of token {token} is {bias}; it must be within {_LARGEST_BIAS:g}."
                )
        if isinstance(self.stop, str) or not all(self.stop):
            raise InvalidSamplingError("stop must be a tuple of texts that are not empty.")


class Sampler:
    """Draws the tokens of one reply.

    The n-th draw depends on the seed, n and the logits only: not on what else the machine does.
    """

    def __init__(self, options: SamplingOptions, prompt: Items[int] = ()) -> None:
        self.options = options
        self.seed = secrets.randbits(63) if options.seed is None else options.seed
        self._drawn = 0
        self._prompt = list(prompt)
        self._generated: list[int] = []
        self._counts: Counter[int] = Counter()
        self._sampling = Sampling(options.temperature, options.top_p, options.min_p, options.top_k)

    def sample(self, logits: NDArray[np.float32]) -> int:
        """Draw a token and remember it.

        Args:
            logits: float32 (vocabulary,); not changed.

        Raises:
            InvalidSamplingError: logit_bias names a token that does not exist.
        """
        logits = np.ascontiguousarray(self._penalised(logits), np.float32)
        uniform = _uniform(self.seed, self._drawn)
        token = int(
            kernels().oneiros_sample(
                logits.ctypes.data, logits.size, ctypes.byref(self._sampling), uniform
            )
        )
        if token < 0:
            raise MemoryError("no memory for the candidates of sampling")
        self.record(token)
        return token

    def record(self, token: int) -> None:
        """Remember a token of the reply that was not drawn here: it was forced, or drawn before."""
        self._drawn += 1
        self._generated.append(token)
        self._counts[token] += 1

    def _penalised(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        o = self.options
        counting = (o.presence_penalty or o.frequency_penalty) and self._counts
        if not o.logit_bias and o.repetition_penalty == 1.0 and not counting:
            return logits
        logits = logits.copy()
        for token, bias in o.logit_bias.items():
            if token >= logits.size:
                raise InvalidSamplingError(
                    f"logit_bias names token {token}; the model has {logits.size}."
                )
            logits[token] += bias
        if o.repetition_penalty != 1.0:  # Keskar et al. 2019, section 4.1
            seen = np.unique(np.array(self._seen(), np.int64))
            values = logits[seen]
            logits[seen] = np.where(
                values > 0, values / o.repetition_penalty, values * o.repetition_penalty
            )
        if counting:
            tokens = np.fromiter(self._counts.keys(), np.int64)
            counts = np.fromiter(self._counts.values(), np.float32)
            logits[tokens] -= o.presence_penalty + o.frequency_penalty * counts
        return logits

    def _seen(self) -> list[int]:
        window = self.options.penalty_window
        seen = self._prompt + self._generated
        return seen[-window:] if window else seen


def _uniform(seed: int, index: int) -> float:
    """The index-th number in [0, 1) of a seed's stream: SplitMix64 (Steele et al. 2014)."""
    mask = (1 << 64) - 1
    z = (seed * 0xD1342543DE82EF95 + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53
