"""From the outcomes of single items to the figures of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from oneiros.evaluation.asking import Outcome
from oneiros.evaluation.gauntlet import BENCHMARKS
from oneiros.evaluation.items import Suite
from oneiros.evaluation.metrics import Estimate, Tally, centred, centred_mean, ratio, wilson


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """The figures of a suite.

    Attributes:
        estimate: the accuracy, or bits per byte.
        baseline: see Suite.
        centred: the accuracy between the baseline (0) and all right (1).
        by_sum: accuracy where the likeliest text is chosen, not the likeliest per token.
        by_character: accuracy where log-likelihoods are divided by the characters of the text.
        exact: share of items in which the model would write the right text itself.
        nats: negative log-likelihood of the right text, per item.
        cut: items whose beginning did not fit the context.
    """

    suite: str
    metric: Literal["accuracy", "bits/byte"]
    shots: int
    items: int
    estimate: Estimate
    baseline: float | None = None
    centred: float | None = None
    by_sum: float | None = None
    by_character: float | None = None
    exact: float | None = None
    nats: float | None = None
    cut: int = 0


def suite_result(suite: Suite, outcomes: Mapping[int, Outcome], seed: int) -> SuiteResult:
    """The figures of a suite with one outcome at least."""
    found = list(outcomes.values())
    count, cut = len(found), sum("cut" in o for o in found)
    if suite.baseline is None:
        bits_per_byte = ratio([o["bits"] for o in found], [o["bytes"] for o in found], seed)
        return SuiteResult(suite.name, "bits/byte", suite.shots, count, bits_per_byte, cut=cut)
    right = sum(o["score"] for o in found)
    ranked = all(len(o.get("logprobs", ())) > 1 for o in found)
    by_character = [
        [p / n for p, n in zip(o["logprobs"], o["characters"], strict=True)]
        for o in found
        if ranked
    ]
    return SuiteResult(
        suite.name,
        "accuracy",
        suite.shots,
        count,
        wilson(right, count),
        suite.baseline,
        centred(right / count, suite.baseline),
        by_sum=_share_right([o["logprobs"] for o in found], found) if ranked else None,
        by_character=_share_right(by_character, found) if ranked else None,
        exact=sum(o["exact"] for o in found) / count if "exact" in found[0] else None,
        nats=_nats(found) if "logprobs" in found[0] else None,
        cut=cut,
    )


def core_mean(results: Sequence[SuiteResult], seed: int) -> Estimate | None:
    """The mean of the centred accuracies of the gauntlet's suites; None where there is only one."""
    tallies = [
        Tally(round(r.estimate.value * r.items), r.items, r.baseline)
        for r in results
        if r.suite in BENCHMARKS and r.baseline is not None
    ]
    return centred_mean(tallies, seed) if len(tallies) > 1 else None


def _share_right(scores: Sequence[Sequence[float]], outcomes: Sequence[Outcome]) -> float:
    chosen = [max(range(len(s)), key=s.__getitem__) for s in scores]
    right = sum(int(c == o["gold"]) for c, o in zip(chosen, outcomes, strict=True))
    return right / len(outcomes)


def _nats(outcomes: Sequence[Outcome]) -> float:
    right = 0.0
    for o in outcomes:
        right += o["logprobs"][o["gold"] if isinstance(o["gold"], int) else 0]
    return -right / len(outcomes)
