"""A reply while it is being generated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from oneiros.engine.sampling import Sampler, SamplingOptions
from oneiros.engine.sequence import Sequence
from oneiros.engine.stop_texts import StopTexts
from oneiros.errors import ContextLengthError
from oneiros.model.tokenizer import TextStream, Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]

PREFILL_TOKENS = 256
"""Tokens between two looks at whether a reply was cancelled while its prompt is read."""


@dataclass(slots=True)
class Statistics:
    """What a reply took."""

    prompt_tokens: int
    cached_tokens: int  # of the prompt, whose keys and values were there already
    prefill_seconds: float = 0.0
    generated_tokens: int = 0
    decode_seconds: float = 0.0


class Generation:
    """Iterates over the pieces of a reply, generating as it goes.

    Attributes:
        text: the reply so far.
        token_ids: the tokens generated so far, those of a stop text included, without the token
            that ended the reply.
        finish_reason: None while it runs; "stop" where the model or a stop text ended it, "length"
            at max_tokens or where the context is full, "cancelled" after `cancel`.
        context_full: whether the context's end ended it.
        cut: whether a stop text ended it, so that the sequence holds more than `text`.
    """

    def __init__(
        self,
        sequence: Sequence,
        prompt: list[int],
        options: SamplingOptions,
        tokenizer: Tokenizer,
        end_ids: frozenset[int],
    ) -> None:
        """Prepare to append `prompt` to `sequence` and to continue from there.

        Raises:
            ContextLengthError: the prompt leaves no room for a reply.
        """
        context = sequence.engine.context
        length = len(sequence.tokens) + len(prompt)
        if length >= context:
            raise ContextLengthError(
                f"The prompt has {length:,} tokens and the context {context:,}: "
                f"{length - context + 1:,} too many to leave room for a reply."
            )
        self.text = ""
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.context_full = False
        self.cut = False
        self.statistics = Statistics(length, len(sequence.tokens))
        self._sequence = sequence
        self._prompt = prompt
        self._options = options
        self._end_ids = end_ids
        self._sampler = Sampler(options, [*sequence.tokens, *prompt])
        self._decoder = TextStream(tokenizer)
        self._cancelled = False
        self._pieces = self._generate()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def length(self) -> int:
        """Tokens of the prompt, what the sequence held before included, and of the reply."""
        return self.statistics.prompt_tokens + len(self.token_ids)

    def cancel(self) -> None:
        """End the reply before the next token; may be called from anywhere, a signal too."""
        self._cancelled = True

    def _generate(self) -> Iterator[str]:
        stops = StopTexts(self._options.stop)
        for piece in self._decoded():
            free = stops.push(piece)
            self.text += free
            if stops.met:
                self.finish_reason = "stop"
                self.cut = True
            if free:
                yield free
            if stops.met:
                return
        held = stops.flush()
        self.text += held
        if held:
            yield held

    def _decoded(self) -> Iterator[str]:
        """Text of each token; sets finish_reason when it ends by itself."""
        logits = None
        started = time.perf_counter()
        for first in range(0, len(self._prompt), PREFILL_TOKENS):
            if self._cancelled:
                break
            piece = self._prompt[first : first + PREFILL_TOKENS]
            last = first + PREFILL_TOKENS >= len(self._prompt)
            logits = self._sequence.extend(piece, "last" if last else "none")
        self.statistics.prefill_seconds = time.perf_counter() - started
        while logits is not None and not self._cancelled:
            started = time.perf_counter()
            token = self._sampler.sample(logits)
            if token in self._end_ids:
                self.finish_reason = "stop"
                yield self._decoder.flush()
                return
            self.token_ids.append(token)
            self.statistics.generated_tokens += 1
            # The last token's keys and values are computed too: the sequence is prompt and reply.
            logits = self._sequence.extend([token])
            self.statistics.decode_seconds += time.perf_counter() - started
            self.context_full = len(self._sequence) >= self._sequence.engine.context
            if self.context_full or len(self.token_ids) == self._options.max_tokens:
                self.finish_reason = "length"
                yield self._decoder.push(token) + self._decoder.flush()
                return
            yield self._decoder.push(token)
        self.finish_reason = "cancelled"
        yield self._decoder.flush()
