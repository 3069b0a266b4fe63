"""Intervals and centred accuracies: their laws, and textbook values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.evaluation.metrics import Tally, centred, centred_mean, ratio, wilson

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
tallies = st.lists(
    st.builds(lambda c, b: Tally(*c, b), counts, st.floats(0.0, 0.9)), min_size=1, max_size=6
)


@settings(max_examples=30, deadline=None)
@given(counts)
def test_an_interval_holds_its_accuracy_and_lies_between_none_and_all(
    count: tuple[int, int],
) -> None:
    found = wilson(*count)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.low < found.high


@settings(max_examples=30, deadline=None)
@given(counts)
def test_right_and_wrong_have_mirrored_intervals(count: tuple[int, int]) -> None:
    right, n = count
    ours, theirs = wilson(right, n), wilson(n - right, n)
    assert ours.low == pytest.approx(1 - theirs.high, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(counts, st.integers(2, 10))
def test_more_items_of_the_same_accuracy_narrow_the_interval(
    count: tuple[int, int], times: int
) -> None:
    few, many = wilson(*count), wilson(count[0] * times, count[1] * times)
    assert many.high - many.low < few.high - few.low


def test_known_intervals() -> None:
    none, most = wilson(0, 10), wilson(81, 100)
    assert (none.low, round(none.high, 4)) == (0.0, 0.2775)
    assert (round(most.low, 4), round(most.high, 4)) == (0.7222, 0.8749)


def test_an_interval_holds_the_truth_in_95_of_100_samples() -> None:
    random = np.random.default_rng(0)
    held = 0
    for right in random.binomial(200, 0.62, 2000):
        found = wilson(int(right), 200)
        held += found.low <= 0.62 <= found.high
    assert 0.93 < held / 2000 < 0.97


@settings(max_examples=30, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 0.9))
def test_centred_accuracy_is_0_at_the_baseline_and_1_at_the_top(
    accuracy: float, baseline: float
) -> None:
    assert centred(baseline, baseline) == 0.0
    assert centred(1.0, baseline) == pytest.approx(1.0)
    assert (centred(accuracy, baseline) > 0) == (accuracy > baseline)


@settings(max_examples=30, deadline=None)
@given(tallies, st.integers(0, 99))
def test_a_mean_is_reproducible_and_lies_in_its_interval(suites: list[Tally], seed: int) -> None:
    found = centred_mean(suites, seed)
    assert found == centred_mean(suites, seed)
    means = [centred(t.right / t.count, t.baseline) for t in suites]
    assert min(means) - 1e-9 <= found.value <= max(means) + 1e-9
    assert found.low <= found.high


def test_the_mean_of_one_large_suite_has_the_interval_of_its_accuracy() -> None:
    mean, accuracy = centred_mean([Tally(1300, 2000, 0.5)], 0), wilson(1300, 2000)
    assert mean.low == pytest.approx(centred(accuracy.low, 0.5), abs=0.005)
    assert mean.high == pytest.approx(centred(accuracy.high, 0.5), abs=0.005)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.floats(1, 100)), min_size=1, max_size=20),
    st.integers(0, 9),
)
def test_a_ratio_lies_in_its_interval_and_between_the_items(
    items: list[tuple[float, float]], seed: int
) -> None:
    found = ratio([a for a, _ in items], [b for _, b in items], seed)
    each = [a / b for a, b in items]
    assert min(each) - 1e-9 <= found.low <= found.value <= found.high <= max(each) + 1e-9
