from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from oneiros.compression.frequencies import PEAK_BITS, TokenFrequencies, powers_of_two
from oneiros.errors import ModelFileError


def test_frequencies_follow_the_softmax_closely() -> None:
    logits = np.random.default_rng(1).normal(0, 4, 50_000).astype(np.float32)
    frequencies = TokenFrequencies(()).of(logits)
    coded = frequencies / frequencies.sum()
    probabilities = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    assert np.sum(probabilities * np.log2(probabilities / coded)) < 1e-4


def test_every_token_can_be_coded_but_the_excluded_ones() -> None:
    logits = np.array([0, -1e30, 50, -np.inf, 3], dtype=np.float32)
    frequencies = TokenFrequencies([4]).of(logits)
    assert frequencies.tolist() == [1, 1, 1 << PEAK_BITS, 1, 0]


def test_the_table_is_exact() -> None:
    table = powers_of_two()
    with localcontext() as context:
        context.prec = 60
        for index in (0, 1, 511, 1023, 1024, 5000, 20_001, len(table) - 1):
            assert table[index] == int(Decimal(2) ** (PEAK_BITS - Decimal(index) / 1024))


def test_the_logits_are_left_alone() -> None:
    logits = np.array([1, 2, 3], dtype=np.float32)
    TokenFrequencies([1]).of(logits)
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ModelFileError, match="no numbers"):
        TokenFrequencies(()).of(np.array([0, value, 1], dtype=np.float32))
