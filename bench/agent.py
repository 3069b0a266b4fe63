"""Claim: our agent loop solves more with a small model, with fewer tokens and no malformed call.

    python bench/agent.py [--quick] [--json] [--case NAME ...] [--task NAME ...] [--ours]
                          [--transcripts FOLDER]

The peer is smolagents' ToolCallingAgent (`make peers`) on our own server: the same model, tools,
files and pages, and the same limits (12 calls, 512 tokens a reply, greedy, a context of 8,192). It
is shown every tool and told to answer through one; ours chooses the tools for each request. Each of
the 20 tasks (bench/agents/tasks.py) is checked by its effect: what a file holds, which number the
answer says. Both sides do one task after the other in a fresh folder.

`tokens-per-solved` counts all tokens of prompts and replies, whether a cache had them or not; where
ours are computed is said on standard error. The practice tasks (--case practice) are those that
prompts and loop were tried on.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.agents import ours, theirs
from bench.agents.practice import PRACTICE
from bench.agents.result import Attempt
from bench.agents.site import serve_site
from bench.agents.task import Task
from bench.agents.tasks import TASKS
from bench.load.servers import ServerStartError
from bench.load.setting import say
from bench.report import Row, report
from oneiros.errors import OneirosError

MODEL = "qwen2.5-coder-1.5b"
SMALL = "smollm2-135m"
CASES = {"tasks-20 qwen2.5-1.5b": TASKS, "practice qwen2.5-1.5b": PRACTICE}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: one task, small model")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--case", action="append", choices=CASES, help="only these cases")
    parser.add_argument("--task", action="append", metavar="NAME", help="only these tasks")
    parser.add_argument("--ours", action="store_true", help="without the peer")
    parser.add_argument("--transcripts", type=Path, help="a folder for what ours read and said")
    arguments = parser.parse_args()
    with_peer = theirs.PEER_PYTHON.exists() and not arguments.ours
    try:
        if arguments.quick:
            rows = _quick()
        else:
            if not with_peer and not arguments.ours:
                parser.error("the peer is not installed: run `make peers` first, or give --ours")
            rows = []
            for case in arguments.case or ["tasks-20 qwen2.5-1.5b"]:
                tasks = [
                    task for task in CASES[case] if task.name in (arguments.task or [task.name])
                ]
                rows += _rows(case, *_both(tasks, with_peer, arguments.transcripts))
    except (OneirosError, ServerStartError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    report("agent", rows, arguments.json)
    return 0


def _quick() -> list[Row]:
    """Whether everything runs: a model that is too small for the tasks tries one of them."""
    with serve_site() as site:
        tries = ours.attempts(SMALL, TASKS[:1], site, steps=2, context=2048)
        found = asyncio.run(_all("ours", tries))
    tokens = sum(attempt.tokens for attempt in found)
    return [
        Row(f"one-task {SMALL}", "well-formed", _well_formed(found), None, "of calls", "higher"),
        Row(f"one-task {SMALL}", "tokens", tokens, None, "tokens", "lower"),
    ]


def _both(
    tasks: Sequence[Task], with_peer: bool, transcripts: Path | None
) -> tuple[list[Attempt], list[Attempt]]:
    if transcripts is not None:
        transcripts.mkdir(parents=True, exist_ok=True)
    sides: list[list[Attempt]] = []
    with serve_site() as site:
        wanted: list[tuple[str, Callable[..., AsyncIterator[Attempt]]]] = [
            ("ours", partial(ours.attempts, transcripts=transcripts))
        ]
        if with_peer:
            wanted.append(("smolagents", theirs.attempts))
        for name, attempts in wanted:
            sides.append(asyncio.run(_all(name, attempts(MODEL, tasks, site))))
    return sides[0], sides[1] if with_peer else []


async def _all(side: str, attempts: AsyncIterator[Attempt]) -> list[Attempt]:
    found = []
    async for attempt in attempts:
        computed = "" if attempt.computed is None else f", {attempt.computed:,} computed"
        say(
            f"  {side} {attempt.task}: {'solved' if attempt.solved else 'FAILED'}, "
            f"{attempt.calls} calls, {attempt.malformed} malformed, {attempt.tokens:,} tokens"
            f"{computed}, {attempt.seconds:.0f} s: {' '.join(attempt.answer.split())[:100]}"
        )
        found.append(attempt)
    return found


def _rows(case: str, ours: Sequence[Attempt], peer: Sequence[Attempt]) -> list[Row]:
    def row(
        metric: str,
        of: Callable[[Sequence[Attempt]], float | None],
        unit: str,
        better: str,
        target: float | None,
    ) -> Row:
        theirs = of(peer) if peer else None
        direction = "higher" if better == "higher" else "lower"
        return Row(case, metric, of(ours), theirs, unit, direction, target)

    return [
        row("solved", _solved, f"of {len(ours)}", "higher", 1.5),
        row("well-formed", _well_formed, "of calls", "higher", 1),
        row("tokens-per-solved", _tokens_per_solved, "tokens", "lower", 1),
    ]


def _solved(attempts: Sequence[Attempt]) -> float:
    return float(sum(attempt.solved for attempt in attempts))


def _well_formed(attempts: Sequence[Attempt]) -> float:
    calls = sum(attempt.calls for attempt in attempts)
    return 1 - sum(attempt.malformed for attempt in attempts) / calls if calls else 1.0


def _tokens_per_solved(attempts: Sequence[Attempt]) -> float | None:
    solved = _solved(attempts)
    return sum(attempt.tokens for attempt in attempts) / solved if solved else None


if __name__ == "__main__":
    sys.exit(main())
