"""Perplexity and bits per byte: how well a model predicts a text.

Perplexity is the exponential of the mean negative log-likelihood per token (Jelinek et al. 1977).
It depends on the vocabulary; bits per byte do not, and compare models whose tokens differ. They
are also the size to which an ideal coder would compress the text (see compression/).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import OneirosError

WINDOW = 1024


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    def prompt_ids(self, text: str) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...


class Predictor(Protocol):
    """What is needed of a language model."""

    @property
    def tokenizer(self) -> Vocabulary: ...
    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Score:
    """Over the tokens that were predicted; a first token with nothing before it is not."""

    nats: float  # negative log-likelihood, summed
    tokens: int
    bytes: int  # that these tokens stand for
    evaluated_tokens: int  # including those that were only context

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def bits_per_token(self) -> float:
        return self.nats / math.log(2) / self.tokens


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens begin .. end of a text are evaluated, and those from `scored` on counted."""

    begin: int
    scored: int
    end: int


def windows(tokens: int, window: int, overlap: int) -> Iterator[Window]:
    """Windows of at most `window` tokens in which every token is counted once.

    All but the first begin with `overlap` tokens of context from the one before: a token is
    predicted from at least that many. overlap = 0 gives windows that do not know of each other.
    """
    end = 0
    while end < tokens:
        begin = max(0, end - overlap)
        scored, end = end, min(begin + window, tokens)
        yield Window(begin, scored, end)


def perplexity(
    model: Predictor,
    token_ids: Sequence[int],
    *,
    window: int = WINDOW,
    overlap: int | None = None,
    progress: Callable[[Score], None] | None = None,
) -> Score:
    """Score a text of at least one predictable token.

    Args:
        window: tokens that are evaluated together, the BOS token included where the model has one.
        overlap: tokens of context that a window takes from the one before; default: half.
        progress: called after every window with the score so far.

    Raises OneirosError if the window or the overlap leave nothing to predict.
    """
    start = model.tokenizer.prompt_ids("")
    room = window - len(start)
    if overlap is None:
        overlap = window // 2
    if room < 2 or not 0 <= overlap < room:
        raise OneirosError(
            f"A window of {window} tokens with an overlap of {overlap} leaves none to predict: "
            "the window must be larger than the overlap and hold at least 3 tokens."
        )
    if len(start) + len(token_ids) < 2:
        raise OneirosError("The text is too short to score: nothing in it follows anything.")

    score = Score(0.0, 0, 0, 0)
    for part in windows(len(token_ids), room, overlap):
        log_probabilities = model.log_probabilities([*start, *token_ids[part.begin : part.end]])
        count = min(part.end - part.scored, len(log_probabilities))
        counted = token_ids[part.end - count : part.end]
        score = Score(
            nats=score.nats - float(np.sum(log_probabilities[-count:])),
            tokens=score.tokens + count,
            bytes=score.bytes + sum(len(model.tokenizer.token_bytes(i)) for i in counted),
            evaluated_tokens=score.evaluated_tokens + len(start) + part.end - part.begin,
        )
        if progress:
            progress(score)
    return score
