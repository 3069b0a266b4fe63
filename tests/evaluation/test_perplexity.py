from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oneiros.errors import OneirosError
from oneiros.evaluation.perplexity import Score, perplexity, windows


class Bytes:
    """A vocabulary of bytes, with or without a BOS token."""

    def __init__(self, bos: list[int]) -> None:
        self.bos = bos

    def prompt_ids(self, text: str) -> list[int]:
        return self.bos + list(text.encode())

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id,))


class Counting:
    """Predicts every token with probability 1 / (1 + number of tokens before it)."""

    def __init__(self, bos: Sequence[int] = ()) -> None:
        self.tokenizer = Bytes(list(bos))
        self.longest = 0

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float64]:
        self.longest = max(self.longest, len(ids))
        return -np.log(np.arange(2, len(ids) + 1, dtype=np.float64))


@given(st.integers(0, 300), st.integers(1, 50), st.integers(0, 49))
def test_windows_count_every_token_once(tokens: int, window: int, overlap: int) -> None:
    overlap = min(overlap, window - 1)
    counted: list[int] = []
    for part in windows(tokens, window, overlap):
        assert part.begin <= part.scored < part.end <= part.begin + window
        assert part.begin == 0 or part.scored - part.begin == overlap
        counted.extend(range(part.scored, part.end))
    assert counted == list(range(tokens))


def test_a_single_window_is_the_plain_mean() -> None:
    score = perplexity(Counting(), [65] * 5, window=10)
    assert score.tokens == score.bytes == 4
    assert score.nats == pytest.approx(math.log(2 * 3 * 4 * 5))
    assert score.perplexity == pytest.approx(120 ** (1 / 4))
    assert score.bits_per_byte == pytest.approx(math.log2(120) / 4)


def test_with_bos_the_first_token_counts_too() -> None:
    score = perplexity(Counting([1]), [65] * 5, window=10)
    assert score.tokens == 5
    assert score.nats == pytest.approx(math.log(720))


def test_later_tokens_are_predicted_from_the_overlap() -> None:
    model = Counting([1])
    score = perplexity(model, [65] * 7, window=5, overlap=2)
    # BOS and four tokens; then BOS, two of context and two; then BOS, two of context and one.
    assert score.nats == pytest.approx(math.log(2 * 3 * 4 * 5 * 4 * 5 * 4))
    assert score.tokens == 7
    assert score.evaluated_tokens == 5 + 5 + 4
    assert model.longest == 5


def test_progress_tells_the_score_so_far() -> None:
    seen: list[Score] = []
    score = perplexity(Counting(), [65] * 40, window=8, overlap=0, progress=seen.append)
    assert [part.evaluated_tokens for part in seen] == [8, 16, 24, 32, 40]
    assert seen[-1] == score
    assert score.tokens == 35  # without BOS and overlap each window's first token is given


@pytest.mark.parametrize(
    ("tokens", "window", "overlap"), [(10, 1, 0), (10, 8, 8), (10, 8, -1), (1, 8, 0), (0, 8, 0)]
)
def test_nothing_to_predict_is_an_error(tokens: int, window: int, overlap: int) -> None:
    with pytest.raises(OneirosError):
        perplexity(Counting(), [65] * tokens, window=window, overlap=overlap)
