"""Windows of unlikely tokens, from log-probabilities alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oneiros.detection.surprise import (
    THRESHOLD,
    WINDOW,
    surprising_text,
    surprising_windows,
    window_surprises,
)

NORMAL = -np.tile([0.5, 2.0, 6.0, 3.5], 60)  # a mean of 3 nats


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=60), st.integers(1, 20))
def test_windows_have_the_mean_of_their_tokens(values: list[float], window: int) -> None:
    means = window_surprises(np.array(values), window)
    size = min(window, len(values))
    expected = [-np.mean(values[n : n + size]) for n in range(len(values) - size + 1)]
    assert means == pytest.approx(expected)


def test_a_suffix_is_found_behind_a_long_text() -> None:
    text = np.concatenate([NORMAL, np.full(20, -12.0)])
    (found,) = surprising_windows(text)
    assert len(NORMAL) - WINDOW < found.begin <= len(NORMAL)
    assert found.end == len(text)
    assert found.surprise == pytest.approx(12.0)
    assert not surprising_windows(NORMAL)


def test_a_text_that_is_unlikely_throughout_has_no_part_that_stands_out() -> None:
    assert not surprising_windows(np.full(300, -(THRESHOLD + 1)))


def test_a_short_text_is_judged_by_the_threshold_alone() -> None:
    assert surprising_windows(np.full(WINDOW, -(THRESHOLD + 1)))
    assert not surprising_windows(np.full(WINDOW, -(THRESHOLD - 1)))
    assert not surprising_windows(np.array([]))


class Bytes:
    """A tokenizer of bytes, and a model that expects letters only."""

    tokenizer: Bytes

    def __init__(self) -> None:
        self.tokenizer = self
        self.longest = 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def prompt_ids(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float64]:
        self.longest = max(self.longest, len(ids))
        return np.array([-2.0 if chr(i).isalpha() or i == 32 else -14.0 for i in ids[1:]])


def test_surprising_text_is_given_with_its_place() -> None:
    model = Bytes()
    text = "ordinary words " * 100 + "}{][)(*&^%$#@!~|" + " and words again" * 40
    (found,) = surprising_text(model, text)
    assert found.kind == "surprising"
    assert "}{][)(*&^%$#@!~|" in text[found.start : found.end] == found.decoded
    assert found.end - found.start < 40
    assert model.longest < 600  # a long text is read in parts
    assert not list(surprising_text(model, "x"))
