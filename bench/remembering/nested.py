"""MemGPT's task: values that are keys have to be looked up again (Packer et al. 2023, section 3.2).

140 pairs of UUIDs; on level L the value of the key that is asked for is a key whose value is a key,
and so on: L look-ups lead to a value that is no key. The data is MemGPT's.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class NestedList:
    """A list of pairs, with one question on each level."""

    pairs: tuple[Pair, ...]
    questions: dict[int, Pair]  # by level: the key that is asked for, and the last value


def nested_lists(folder: Path, levels: range, count: int, size: int = 140) -> list[NestedList]:
    """The first lists in which the questions of all levels have keys of their own.

    One list for all levels has the model read each list once, and the levels differ in nothing
    but the question.

    Args:
        folder: MemGPT's files.
        levels: of the questions.
        count: of lists.
        size: pairs of a list that are kept; those that questions need are among them.
    """
    records = _records(folder / "kv-retrieval-140_keys.jsonl.gz")
    orders = [
        (folder / f"random_orderings_100_samples_140_indices_{level}_levels.jsonl")
        .read_text()
        .splitlines()
        for level in levels
    ]
    lists: list[NestedList] = []
    for lines in zip(*orders, strict=True):
        chains = dict(zip(levels, map(json.loads, lines), strict=True))
        used = [index for chain in chains.values() for index in chain]
        if len(used) == len(set(used)):
            lists.append(_nested(next(records), chains, size))
        if len(lists) == count:
            return lists
    raise ValueError(f"there are only {len(lists)} such lists, not {count}")


def _records(path: Path) -> Iterator[list[Pair]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            yield [(key, value) for key, value in json.loads(line)["ordered_kv_records"]]


def _nested(records: list[Pair], chains: dict[int, list[int]], size: int) -> NestedList:
    pairs = list(records)
    questions = {}
    for level, chain in chains.items():
        for index, following in pairwise(chain):
            pairs[index] = (pairs[index][0], pairs[following][0])
        questions[level] = (pairs[chain[0]][0], pairs[chain[-1]][1])
    needed = {index for chain in chains.values() for index in chain}
    others = [index for index in range(len(pairs)) if index not in needed]
    kept = needed | set(others[: size - len(needed)])
    return NestedList(tuple(pairs[index] for index in sorted(kept)), questions)
