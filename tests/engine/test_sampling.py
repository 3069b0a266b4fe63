"""Sampling against its definition, written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from oneiros.engine.sampling import Sampler, SamplingOptions
from oneiros.errors import InvalidSamplingError


def options(**changes: object) -> SamplingOptions:
    everything_off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}
    return SamplingOptions(**(everything_off | changes))  # type: ignore[arg-type]


def expected_distribution(logits: NDArray[np.float32], o: SamplingOptions) -> NDArray[np.float64]:
    """Temperature, top-k, top-p and min-p as they are defined, by sorting everything."""
    scaled = logits.astype(np.float64) / o.temperature
    probabilities = np.exp(scaled - scaled.max())
    order = np.argsort(-logits, kind="stable")
    keep = order[: o.top_k] if o.top_k else order
    p = probabilities[keep] / probabilities[keep].sum()
    if o.top_p < 1.0:
        before = np.cumsum(p) - p
        keep = keep[before < o.top_p]
    keep = keep[probabilities[keep] >= o.min_p]
    result = np.zeros(len(logits))
    result[keep] = probabilities[keep]
    return result / result.sum()


def draws(logits: NDArray[np.float32], o: SamplingOptions, count: int) -> NDArray[np.int64]:
    sampler = Sampler(o)
    return np.array([sampler.sample(logits) for _ in range(count)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.7},
        {"top_p": 0.999},
        {"min_p": 0.1},
        {"temperature": 1.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 3.0, "top_p": 0.95},
    ],
)
@pytest.mark.parametrize("spread", [0.3, 3.0, 30.0])
def test_tokens_come_as_often_as_they_should(changes: dict[str, float], spread: float) -> None:
    logits = np.random.default_rng(7).standard_normal(200).astype(np.float32) * np.float32(spread)
    o = options(**changes)
    expected = expected_distribution(logits, o)
    count = 20_000
    found = np.bincount(draws(logits, o, count), minlength=len(logits))
    assert not found[expected == 0].any()
    deviation = np.abs(found - count * expected) / np.sqrt(count * expected + 1)
    assert deviation.max() < 5  # standard deviations, over 200 tokens


@given(
    seed=st.integers(0, 2**32),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
    temperature=st.floats(0.05, 5.0),
)
@settings(max_examples=200, deadline=None)
def test_nothing_is_drawn_that_is_cut_off(
    seed: int, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    logits = (np.random.default_rng(seed).standard_normal(3000) * 6).astype(np.float32)
    # Whole numbers make ties, which go to the smaller token.
    logits = np.rint(logits)
    o = options(seed=seed, top_k=top_k, top_p=top_p, min_p=min_p, temperature=temperature)
    expected = expected_distribution(logits, o)
    border = np.flatnonzero(expected)
    found = set(draws(logits, o, 20).tolist())
    assert found <= {int(t) for t in np.flatnonzero(logits >= logits[border].min())}
    if top_p > 0.02 and min_p < 0.98:
        assert all(expected[t] > 0 or logits[t] == logits[border].min() for t in found)


@given(st.integers(0, 2**63 - 1))
def test_greedy_takes_the_first_of_the_largest(seed: int) -> None:
    logits = np.random.default_rng(seed).integers(-5, 6, 1000).astype(np.float32)
    assert Sampler(options(temperature=0.0, seed=seed)).sample(logits) == int(logits.argmax())


def test_the_same_seed_gives_the_same_tokens() -> None:
    logits = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    first, again, other = (draws(logits, options(seed=s), 50) for s in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()
    assert (draws(logits, options(seed=None), 50) != draws(logits, options(seed=None), 50)).any()


def test_logit_bias_forbids_and_forces() -> None:
    logits = np.zeros(10, np.float32)
    assert (draws(logits, options(logit_bias={4: 100.0}), 50) == 4).all()
    assert 4 not in draws(logits, options(logit_bias={4: -100.0}), 500)


def test_repetition_penalty_counts_prompt_and_reply_within_the_window() -> None:
    logits = np.array([2.0, 1.9, -0.1, -0.15], np.float32)
    o = options(temperature=0.0, repetition_penalty=2.0, penalty_window=2)
    sampler = Sampler(o, prompt=[0])
    assert [sampler.sample(logits) for _ in range(4)] == [1, 0, 0, 1]


def test_presence_and_frequency_penalties_count_the_reply_only() -> None:
    logits = np.array([3.0, 2.4, 0.0], np.float32)
    presence = Sampler(options(temperature=0.0, presence_penalty=1.0), prompt=[1])
    assert [presence.sample(logits) for _ in range(4)] == [0, 1, 0, 0]
    frequency = Sampler(options(temperature=0.0, frequency_penalty=0.5), prompt=[1])
    assert [frequency.sample(logits) for _ in range(5)] == [0, 0, 1, 0, 1]


def test_logits_that_are_not_numbers_still_give_a_token() -> None:
    for value in (math.nan, math.inf, -math.inf):
        for o in (options(), options(top_p=0.5), options(top_k=3), options(temperature=0.0)):
            assert 0 <= Sampler(o).sample(np.full(50, value, np.float32)) < 50


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.nan),
        ("max_tokens", 0),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: math.nan}),
        ("stop", ("",)),
        ("stop", "User:"),
        ("temperature", None),
        ("top_k", 40.5),
        ("max_tokens", 10.5),
        ("seed", 1.5),
        ("temperature", "1"),
    ],
)
def test_invalid_options_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidSamplingError, match=f"(?i){name.replace('_', '.')}"):
        SamplingOptions(**{name: value})  # type: ignore[arg-type]


def test_a_bias_of_a_token_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidSamplingError, match="token 10; the model has 10"):
        Sampler(options(logit_bias={10: 1.0})).sample(np.zeros(10, np.float32))
