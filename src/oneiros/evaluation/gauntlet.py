"""The benchmarks of llm-foundry's gauntlet, asked as DataComp-LM asks them.

A prompt is some solved examples, each on a line of its own, and then the item without its answer.
The examples are drawn anew for each item, from the other items of the same file (Brown et al.
2020 for the idea; Li et al. 2024 for the numbers of shots). The delimiter stands between question
and answer; a space at its end goes to the answer, because tokens begin with their space.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from oneiros.evaluation.items import Choice, Cloze, Item, Scored, Suite
from oneiros.evaluation.records import read_records

Record = dict[str, Any]
Form = Literal["choice", "schema", "cloze"]

_FIELDS: dict[Form, dict[str, type | tuple[type, ...]]] = {
    "choice": {"query": str, "choices": list, "gold": int},
    "schema": {"context_options": list, "continuation": str, "gold": int},
    "cloze": {"context": str, "continuation": str},
}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A file of items, and how they are asked."""

    file: str
    form: Form
    shots: int
    delimiter: str = " "


ANSWER = "\nAnswer: "

BENCHMARKS = {
    "lambada": Benchmark("lambada_openai.jsonl", "cloze", 0),
    "piqa": Benchmark("piqa.jsonl", "choice", 10, ANSWER),
    "copa": Benchmark("copa.jsonl", "choice", 0),
    "winograd": Benchmark("winograd_wsc.jsonl", "schema", 0),
    "winogrande": Benchmark("winogrande.jsonl", "schema", 0),
    "boolq": Benchmark("boolq.jsonl", "choice", 10, ANSWER),
    "commonsense_qa": Benchmark("commonsense_qa.jsonl", "choice", 10),
    "openbook_qa": Benchmark("openbook_qa.jsonl", "choice", 0),
    "repeat_copy_logic": Benchmark("bigbench_repeat_copy_logic.jsonl", "cloze", 10),
}


def benchmark_suite(
    name: str,
    folder: Path,
    *,
    shots: int | None,
    seed: int,
    choose: Callable[[int], Sequence[int]],
    fixed_shots: bool,
) -> Suite:
    """One of BENCHMARKS.

    Args:
        folder: where the files are.
        shots: solved examples before each item; None: as many as DataComp-LM gives.
        choose: says which items to ask, given how many there are.
        fixed_shots: the same examples for all items, which is much faster as their keys and values
            are computed once; and depends more on which they are.

    Raises EvaluationError where the file is missing or malformed.
    """
    benchmark = BENCHMARKS[name]
    records = read_records(folder / benchmark.file, _FIELDS[benchmark.form])
    count = benchmark.shots if shots is None else shots
    items: dict[int, Item] = {}
    for index in choose(len(records)):
        key = f"{seed} {name} examples" if fixed_shots else f"{seed} {name} {index}"
        examples = [records[i] for i in examples_for(index, len(records), count, Random(key))]
        items[index] = _item(benchmark, examples, records[index])
    return Suite(name, count, items, _baseline(benchmark, records))


def examples_for(index: int, count: int, shots: int, random: Random) -> list[int]:
    """Which of `count` items are shown before item `index`: never that one itself.

    Where it is drawn, another takes its place, so that fixed examples stay the same up to there.
    """
    drawn = random.sample(range(count), min(shots + 1, count))
    shown, spare = drawn[:shots], drawn[shots:]
    return [j for i in shown for j in ([i] if i != index else spare)]


def _item(benchmark: Benchmark, examples: Sequence[Record], record: Record) -> Item:
    before = "".join(f"{_solved(benchmark, example)}\n" for example in examples)
    separator = benchmark.delimiter.rstrip()
    match benchmark.form:
        case "choice":
            context = before + record["query"] + separator
            options = tuple(Scored(context, f" {choice}") for choice in record["choices"])
            return Choice(options, record["gold"])
        case "schema":
            ending = f" {record['continuation']}"
            contexts = record["context_options"]
            options = tuple(Scored(before + text + separator, ending) for text in contexts)
            return Choice(options, record["gold"])
        case "cloze":
            context = before + record["context"] + separator
            return Cloze(Scored(context, f" {record['continuation']}"))


def _solved(benchmark: Benchmark, record: Record) -> str:
    match benchmark.form:
        case "choice":
            question, answer = record["query"], record["choices"][record["gold"]]
        case "schema":
            question = record["context_options"][record["gold"]]
            answer = record["continuation"]
        case "cloze":
            question, answer = record["context"], record["continuation"]
    return f"{question}{benchmark.delimiter}{answer}"


def _baseline(benchmark: Benchmark, records: Sequence[Record]) -> float:
    if benchmark.form == "cloze":
        return 0.0
    key = "choices" if benchmark.form == "choice" else "context_options"
    if len({tuple(record[key]) for record in records}) == 1:
        # Yes or no, A to D: always the commonest is better than a guess.
        return Counter(record["gold"] for record in records).most_common(1)[0][1] / len(records)
    return sum(1 / len(record[key]) for record in records) / len(records)
