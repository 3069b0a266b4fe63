"""Claim: what left the context is still known, and long conversations stay as quick as short ones.

    python bench/memory.py [--quick] [--json] [--case NAME ...]

nested-kv is MemGPT's task (Packer et al. 2023, section 3.2) with its data: 140 pairs of UUIDs are
told to a process whose context holds a quarter of them, and on level L it takes L look-ups with
`recall` to get from a key to a value that is no key. The peer is the same model with the whole list
in its context. The question and 10 orderings are the same for both.

facts-500-turns tells 50 facts in 500 turns, and asks for them afterwards: how many are answered
with the message quoted that told them. The peers have the same model and context: a sliding window
of the newest turns, and a summary that the model renews again and again.

conversation-200 compares a process of 200 turns with a client that sends all messages again each
turn, as far as they fit, to the same engine with the same cache. A time to the first token is the
median of nine turns; "flat" compares that of the last turn with that of the first.

Retrieval has a benchmark of its own (retrieval.py), whose rows are part of the full run. --quick
has SmolLM2 and short conversations, and claims nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.load.setting import say
from bench.remembering.facts import conversation
from bench.remembering.flat import as_process, sent_again
from bench.remembering.nested import nested_lists
from bench.remembering.recalling import (
    Setting,
    facts_of_memory,
    facts_of_summary,
    facts_of_window,
    nested_by_memory,
    nested_in_context,
)
from bench.report import Row, report
from oneiros.engine.embedding import load_embedder
from oneiros.engine.local_model import start_local_model
from oneiros.engine.worker import EngineSettings
from oneiros.errors import OneirosError
from oneiros.model import catalog

PROJECT = Path(__file__).resolve().parent.parent
QWEN, SMOLLM = "qwen2.5-coder-1.5b", "smollm2-135m"
LEVELS = range(1, 5)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    lists: int
    list_context: int  # tokens of the context of whoever looks keys up
    whole_context: int  # and of whoever has the whole list
    model: str  # that is told facts
    facts: tuple[int, int]  # turns, and facts
    context: int  # of whoever is told facts, and of conversation-200
    turns: tuple[int, ...]  # that are timed, the last one ends the conversation


FULL = Size(10, 2048, 12288, QWEN, (500, 50), 4096, (10, 100, 200))
QUICK = Size(1, 2048, 12288, SMOLLM, (7, 1), 768, (2, 5))


@dataclass
class Bench:
    """What all cases need."""

    size: Size
    data: Path
    folder: Path  # empty

    @asynccontextmanager
    async def setting(self, name: str, context: int) -> AsyncGenerator[Setting, None]:
        """A model, and a folder of its own."""
        path = str(catalog.resolve(name))
        settings = EngineSettings(path, context=context, kv_disk=0)
        model = await start_local_model(settings, name, child=False)
        try:
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                yield Setting(model, load_embedder, Path(folder))
        finally:
            await model.service.close()


async def run_nested(bench: Bench) -> list[Row]:
    """Values that are keys, looked up with recall or in the context."""
    size = bench.size
    lists = nested_lists(bench.data / "memory" / "nested-kv", LEVELS, size.lists)
    async with bench.setting(QWEN, size.list_context) as setting:
        ours = await nested_by_memory(setting, lists)
    async with bench.setting(QWEN, size.whole_context) as setting:
        peer = await nested_in_context(setting, lists)
    return [
        Row(
            f"nested-kv qwen2.5-1.5b level-{level}",
            "accuracy",
            ours[level],
            peer[level],
            "of the questions",
            "higher",
            1,
        )
        for level in LEVELS
    ]


async def run_facts(bench: Bench) -> list[Row]:
    """Facts told in a long conversation."""
    size = bench.size
    turns = conversation(bench.data, *size.facts)
    case, unit = "facts-500-turns", "of the facts"
    async with bench.setting(size.model, size.context) as setting:
        recalled, cited = await facts_of_memory(setting, turns)
        say(f"  {recalled:.0%} recalled, {cited:.0%} with the message that told them")
        window = await facts_of_window(setting, turns)
        summary = await facts_of_summary(setting, turns)
    return [
        Row(case, "recalled", cited, window, unit, "higher", 0.9, absolute=True),
        Row(f"{case} summary", "recalled", cited, summary, unit, "higher"),
    ]


async def run_conversation(bench: Bench) -> list[Row]:
    """A conversation that outgrows its context."""
    size, case = bench.size, "conversation-200"
    turns = conversation(bench.data, size.turns[-1], 0, seed=2)
    async with bench.setting(SMOLLM, size.context) as setting:
        ours, said = await as_process(setting.folder, setting.model, setting.embedder, turns)
        peer = await sent_again(setting.model, turns, said)
    first, last = size.turns[0], size.turns[-1]
    return [
        Row(
            case,
            "cached-share",
            ours.share,
            peer.share,
            "of the tokens",
            "higher",
            0.95,
            absolute=True,
        ),
        *(
            Row(f"{case} turn-{turn}", "ttft", ours.ttft(turn), peer.ttft(turn), "ms", "lower")
            for turn in size.turns
        ),
        Row(f"{case} flat", "ttft", ours.ttft(last), ours.ttft(first), "ms", "lower", 0.5),
    ]


async def run_retrieval(bench: Bench) -> list[Row]:
    """Hybrid search."""
    from retrieval import rows  # beside this file; its peers need not be installed for the others

    return await asyncio.to_thread(rows)


CASES: dict[str, Callable[[Bench], Coroutine[None, None, list[Row]]]] = {
    "nested-kv": run_nested,
    "facts-500-turns": run_facts,
    "conversation-200": run_conversation,
    "retrieval": run_retrieval,
}
QUICK_CASES = ("facts-500-turns", "conversation-200")  # SmolLM2 cannot look keys up


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: few and short cases")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--case", action="append", choices=CASES, help="only these cases")
    arguments = parser.parse_args()
    data = Path(os.environ.get("ONEIROS_DATA", PROJECT.parent / "shared" / "data"))
    if not data.is_dir():
        parser.error(f"no data folder at {data}: set ONEIROS_DATA")
    rows: list[Row] = []
    try:
        with tempfile.TemporaryDirectory(prefix="oneiros-bench-") as folder:
            bench = Bench(QUICK if arguments.quick else FULL, data, Path(folder))
            for name in arguments.case or (QUICK_CASES if arguments.quick else CASES):
                say(name)
                rows += asyncio.run(CASES[name](bench))
    except OneirosError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report("memory", rows, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
