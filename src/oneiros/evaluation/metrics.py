"""Accuracies, and how far they may be from what more items would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def wilson(right: int, count: int) -> Estimate:
    """An accuracy (Wilson 1927): the interval is sound for few items and near 0 and 1 as well."""
    share = right / count
    spread = Z95 * Z95 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / 4 / count)
    return Estimate(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def centred(accuracy: float, baseline: float) -> float:
    """0 at the baseline, 1 where all is right (Li et al. 2024, DataComp-LM); below 0 is worse."""
    return (accuracy - baseline) / (1 - baseline)


@dataclass(frozen=True, slots=True)
class Tally:
    """Of a suite: how many items were right, of how many, and its baseline."""

    right: int
    count: int
    baseline: float


def centred_mean(tallies: Sequence[Tally], seed: int) -> Estimate:
    """The mean of the suites' centred accuracies.

    The interval is the bootstrap's: the items of each suite are drawn again with replacement, and
    how many of those are right is binomial.
    """
    value = float(np.mean([centred(t.right / t.count, t.baseline) for t in tallies]))
    random = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for t in tallies:
        accuracies = random.binomial(t.count, t.right / t.count, RESAMPLES) / t.count
        means += (accuracies - t.baseline) / (1 - t.baseline) / len(tallies)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int) -> Estimate:
    """The sum of one by that of the other, item by item, with a bootstrap interval."""
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(above), (RESAMPLES, len(above)))
    low, high = np.quantile(above[drawn].sum(1) / below[drawn].sum(1), (0.025, 0.975))
    value = float(above.sum() / below.sum())
    return Estimate(value, min(value, float(low)), max(value, float(high)))
