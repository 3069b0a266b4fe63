"""The suites by name, and which of their items are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from oneiros.errors import EvaluationError
from oneiros.evaluation.gauntlet import BENCHMARKS, benchmark_suite
from oneiros.evaluation.items import Suite
from oneiros.evaluation.passages import passage_suite
from oneiros.evaluation.questions import STYLES, question_suite
from oneiros.evaluation.reversal import REVERSAL, reversal_suite
from oneiros.model.tokenizer import Tokenizer

BITS_PER_BYTE = "bits_per_byte"
GROUPS = {"core": tuple(BENCHMARKS), "reversal": REVERSAL}
SUITES = (*BENCHMARKS, *STYLES, *REVERSAL, BITS_PER_BYTE)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be asked, and how."""

    data: Path | None  # the folder of benchmark data
    limit: int | None = None  # items of each suite, drawn with the seed; None: all
    shots: int | None = None  # None: as many as each suite is usually asked with
    seed: int = 1234
    fixed_shots: bool = False  # the same examples before all items of a suite
    text: str | None = None  # for bits per byte

    def choose(self, name: str, count: int) -> list[int]:
        """Which of `count` items to ask, in their order; a larger limit adds to a smaller one."""
        drawn = Random(f"{self.seed} {name}").sample(range(count), count)
        return sorted(drawn[: self.limit])


def suite_names(wanted: Sequence[str]) -> list[str]:
    """Names with groups put in full, each once. Raises EvaluationError for one that is unknown."""
    names: dict[str, None] = {}
    for given in wanted:
        name = given.replace("-", "_")
        members = GROUPS.get(name, (name,))
        if not set(members) <= set(SUITES):
            raise EvaluationError(
                f'There is no suite "{given}". There are {", ".join(sorted({*SUITES, *GROUPS}))}.'
            )
        names |= dict.fromkeys(members)
    return list(names)


def build_suite(
    name: str, selection: Selection, *, tokenizer: Tokenizer, context: int, chat: bool
) -> Suite:
    """The items of a suite.

    Args:
        tokenizer, context: the model's.
        chat: put questions as a conversation; where the model has to choose, or to go on with a
            text, it is shown plain text in any case, as published figures are measured.

    Raises EvaluationError where its data are missing or malformed.
    """

    def choose(count: int) -> list[int]:
        return selection.choose(name, count)

    if name == BITS_PER_BYTE:
        if selection.text is None:
            raise EvaluationError("Bits per byte of which text? Name a file with --text.")
        return passage_suite(name, selection.text, tokenizer, context, choose)
    if name in REVERSAL:
        return reversal_suite(
            name, _data(selection) / "reversal", seed=selection.seed, choose=choose
        )
    if name in STYLES:
        return question_suite(
            name,
            _data(selection) if name == "gsm8k" else None,
            shots=selection.shots,
            seed=selection.seed,
            choose=choose,
            fixed_shots=selection.fixed_shots,
            chat=chat,
        )
    return benchmark_suite(
        name,
        _data(selection) / "benchmarks",
        shots=selection.shots,
        seed=selection.seed,
        choose=choose,
        fixed_shots=selection.fixed_shots,
    )


def _data(selection: Selection) -> Path:
    if selection.data is None:
        raise EvaluationError(
            "Where are the benchmarks' data? Name their folder with --data or ONEIROS_DATA; "
            "docs/evaluation.md says what belongs in it."
        )
    return selection.data
