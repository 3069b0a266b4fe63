"""The suites by name, and which of their items are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from oneiros.errors import EvaluationError
from oneiros.evaluation.gauntlet import BENCHMARKS, benchmark_suite
from oneiros.evaluation.items import Suite

GROUPS = {"core": tuple(BENCHMARKS)}
SUITES = (*BENCHMARKS,)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be asked, and how."""

    data: Path | None  # the folder of benchmark data
    limit: int | None = None  # items of each suite, drawn with the seed; None: all
    shots: int | None = None  # None: as many as each suite is usually asked with
    seed: int = 1234
    fixed_shots: bool = False  # the same examples before all items of a suite
    chat: bool = False  # questions are put as a conversation, in the model's chat format

    def choose(self, name: str, count: int) -> list[int]:
        """Which of `count` items to ask, in their order."""
        if self.limit is None or self.limit >= count:
            return list(range(count))
        return sorted(Random(f"{self.seed} {name}").sample(range(count), self.limit))


def suite_names(wanted: Sequence[str]) -> list[str]:
    """Names with groups put in full, each once. Raises EvaluationError for one that is unknown."""
    names: dict[str, None] = {}
    for name in wanted:
        members = GROUPS.get(name, (name,))
        if not set(members) <= set(SUITES):
            raise EvaluationError(
                f'There is no suite "{name}". There are {", ".join(sorted({*SUITES, *GROUPS}))}.'
            )
        names |= dict.fromkeys(members)
    return list(names)


def build_suite(name: str, selection: Selection) -> Suite:
    """The items of a suite.

    Raises EvaluationError where its data are missing or malformed.
    """
    return benchmark_suite(
        name,
        _data(selection) / "benchmarks",
        shots=selection.shots,
        seed=selection.seed,
        choose=lambda count: selection.choose(name, count),
        fixed_shots=selection.fixed_shots,
    )


def _data(selection: Selection) -> Path:
    if selection.data is None:
        raise EvaluationError(
            "Where are the benchmarks' data? Name their folder with --data or ONEIROS_DATA; "
            "docs/evaluation.md says what belongs in it."
        )
    return selection.data
