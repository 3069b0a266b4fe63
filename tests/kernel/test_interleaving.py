"""Processes do not disturb each other: each ends as if it had been alone."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import CallContext, Json, ToolResult
from tests.kernel.running import Calls, running, tool

CALLS = st.lists(st.sampled_from(["quick", "slow", "fails", "asks", "missing"]), max_size=5)


async def ended_together(works: Sequence[Sequence[str]], seed: int) -> list[ProcessState]:
    """Run a process for each list of calls, all at once, with pauses that the seed decides."""
    chance = random.Random(seed)

    async def quick(arguments: Json, context: CallContext) -> ToolResult:
        return ToolResult(f"{context.call_id.partition('.')[2]} is done")

    async def slow(arguments: Json, context: CallContext) -> ToolResult:
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        return ToolResult("slowly done")

    async def fails(arguments: Json, context: CallContext) -> ToolResult:
        raise ValueError("no")

    send = Contract(effects=frozenset({Effect.SEND}))
    tools = [tool("quick", quick), tool("slow", slow), tool("fails", fails)]
    tools.append(tool("asks", quick, send))
    programs = {f"p{n}": Calls([(name, "{}") for name in work]) for n, work in enumerate(works)}
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), *tools, programs=programs) as kernel:
            pids = [await kernel.start(ProcessSpec(owner="me", program=name)) for name in programs]
            async with asyncio.timeout(30):
                while kernel.processes():
                    for question in kernel.questions():
                        await kernel.answer(question.call_id, allow=True)
                    await asyncio.sleep(0)
            for pid in pids:
                assert await kernel.replay(pid) == kernel.state(pid).seq
            return [kernel.state(pid) for pid in pids]


def compared(state: ProcessState) -> ProcessState:
    """A state without its pid and its times, which differ."""
    return replace(
        state,
        pid=0,
        program="",
        pages=tuple(map(_numbered, state.pages)),
        readings=tuple(map(_numbered, state.readings)),
        made=tuple(map(_numbered, state.made)),
        used=replace(state.used, seconds=0.0),
    )


def _numbered(part: Any) -> Any:
    """With the number of its call alone, without the process's."""
    return replace(part, call_id=part.call_id and part.call_id.partition(".")[2])


@settings(max_examples=15, deadline=None)
@given(st.lists(CALLS, min_size=2, max_size=4), st.integers(0, 2**32))
def test_each_process_ends_as_if_it_were_alone(works: list[list[str]], seed: int) -> None:
    together = asyncio.run(ended_together(works, seed))
    for work, state in zip(works, together, strict=True):
        (alone,) = asyncio.run(ended_together([work], seed))
        assert compared(state) == compared(alone)
