"""The reversal curse: who learnt "A is B" does not know that B is A (Berglund et al. 2023).

`reversal_*` asks about invented people, whom a model knows if it was trained on the sentences of
that paper: forward in the order in which it read them, backward in the other. `parents_*` asks
about famous people's parents, and about parents' famous children, which any model may know.

An item is a choice among the right text and others of the same file, drawn with the seed; noted,
too, is whether the model would write the right one itself, and its log-likelihood.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from oneiros.errors import EvaluationError
from oneiros.evaluation.items import Choice, Item, Scored, Suite
from oneiros.evaluation.records import read_records

OPTIONS = 10

_FILES = {
    "reversal_forward": ("p2d_prompts_test.jsonl", "d2p_prompts_test.jsonl"),
    "reversal_backward": ("p2d_reverse_prompts_test.jsonl", "d2p_reverse_prompts_test.jsonl"),
}
REVERSAL = (*_FILES, "parents_forward", "parents_backward")

Pair = tuple[str, str]  # a prompt, and how it goes on


def reversal_suite(
    name: str, folder: Path, *, seed: int, choose: Callable[[int], Sequence[int]]
) -> Suite:
    """One of REVERSAL. Raises EvaluationError where its data are missing or malformed."""
    groups = (
        [_prompts(folder / file) for file in _FILES[name]]
        if name in _FILES
        else [_parents(folder / "parent_child_pairs.csv", forward=name == "parents_forward")]
    )
    pairs = [(pair, group) for group in map(_with_answers, groups) for pair in group[0]]
    items: dict[int, Item] = {}
    for index in choose(len(pairs)):
        pair, (_, answers) = pairs[index]
        items[index] = _item(pair, answers, Random(f"{seed} {name} {index}"))
    return Suite(name, 0, items, 1 / OPTIONS)


def _with_answers(pairs: list[Pair]) -> tuple[list[Pair], list[str]]:
    return pairs, sorted({answer for _, answer in pairs})


def _item(pair: Pair, answers: Sequence[str], random: Random) -> Choice:
    prompt, right = pair
    wrong = random.sample([a for a in answers if a != right], OPTIONS - 1)
    options = [right, *wrong]
    random.shuffle(options)
    scored = tuple(Scored(prompt, f" {option}") for option in options)
    return Choice(scored, options.index(right), exact=True)


def _prompts(path: Path) -> list[Pair]:
    records = read_records(path, {"prompt": str, "completion": str})
    return [(record["prompt"], record["completion"]) for record in records]


def _parents(path: Path, *, forward: bool) -> list[Pair]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file; docs/evaluation.md says where it is from.")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = []
    for number, row in enumerate(rows, 2):
        child, parent, kind = (row.get(name) for name in ("child", "parent", "parent_type"))
        if not (child and parent and kind):
            raise EvaluationError(
                f"{path}, line {number}: a child, parent or parent_type is missing."
            )
        pairs.append(
            (f"The name of {child}'s {kind} is", parent)
            if forward
            else (f"{parent} is the {kind} of", child)
        )
    return pairs
