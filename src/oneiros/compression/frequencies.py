"""Next-token probabilities as integers, a function of the bits of the logits alone.

A coder's two ends must agree on every frequency exactly. `exp` differs between processors and
library versions in its last bit, so none is called on the logits: each logit's distance from the
largest, in 1024ths of a factor of two, indexes a table of 2^-(distance) that integer-exact decimal
arithmetic fills. Only a float32 subtraction and multiplication remain, which IEEE 754 defines to
the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal
from functools import cache

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError

PEAK_BITS = 30
"""The most probable token's frequency is 2^30, an impossible one's 1: with 50,000 tokens the
floor of 1 costs less than 0.0001 bits per token."""

STEPS_PER_OCTAVE = 1024
"""Rounding probabilities by at most a factor 2^(1/1024) costs about 1e-7 bits per token."""

_LAST_STEP = PEAK_BITS * STEPS_PER_OCTAVE
_STEPS_PER_NAT = np.float32(STEPS_PER_OCTAVE * 1.4426950408889634)


@cache
def powers_of_two() -> NDArray[np.int64]:
    """floor(2^(30 - i / 1024)) for i = 0 .. 30 * 1024."""
    exact = Context(prec=40)
    octave = [
        int(exact.power(Decimal(2), PEAK_BITS - Decimal(step) / STEPS_PER_OCTAVE))
        for step in range(STEPS_PER_OCTAVE)
    ]
    steps = range(_LAST_STEP + 1)
    table = [octave[i % STEPS_PER_OCTAVE] >> (i // STEPS_PER_OCTAVE) for i in steps]
    return np.array(table, dtype=np.int64)


class TokenFrequencies:
    """Turns logits into frequencies; the `excluded` tokens never occur and get none."""

    def __init__(self, excluded: Iterable[int]) -> None:
        self._excluded = np.array(sorted(excluded), dtype=np.intp)
        self._table = powers_of_two()

    def of(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """Logits (vocabulary,) -> frequencies (vocabulary,), each 1 .. 2^30 or 0 if excluded.

        Raises ModelFileError where the model's logits are no finite numbers.
        """
        peak = logits.max()
        if not np.isfinite(peak):
            raise ModelFileError("The model computes logits that are no numbers: it is damaged.")
        steps = peak - logits
        steps *= _STEPS_PER_NAT
        np.minimum(steps, _LAST_STEP, out=steps)
        frequencies: NDArray[np.int64] = self._table[steps.astype(np.intp)]
        frequencies[self._excluded] = 0
        return frequencies
