"""Turns to generate replies: fair among background processes, at once for who is waited for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.requests import BACKGROUND, INTERACTIVE
from oneiros.kernel.events import Budget
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.scheduler import Scheduler, Turn
from oneiros.kernel.spec import ProcessSpec
from tests.kernel.running import ScriptedModels, idle, running, until


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Processes that each want one turn; who has one is in `began`."""

    def __init__(self, slots: int) -> None:
        self.scheduler = Scheduler(slots)
        self.began: list[int] = []
        self._ends: dict[int, asyncio.Event] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def want(self, pid: int, priority: int) -> None:
        self._ends[pid] = asyncio.Event()
        self._tasks[pid] = asyncio.create_task(self._turn(pid, priority))

    async def end(self, pid: int) -> None:
        self._ends[pid].set()
        await self._tasks[pid]

    async def _turn(self, pid: int, priority: int) -> None:
        async with self.scheduler.turn(pid, priority):
            self.began.append(pid)
            await self._ends[pid].wait()


def test_a_waiting_reply_that_becomes_interactive_begins_at_once_and_takes_no_slot() -> None:
    async def main() -> None:
        crowd = Crowd(1)
        for pid in (1, 2, 3):
            crowd.want(pid, 5)
        await settle()
        assert crowd.began == [1]
        crowd.scheduler.renice(3, 0)
        await settle()
        assert crowd.began == [1, 3]
        await crowd.end(3)  # its slot was none: 2 still waits for that of 1
        await settle()
        assert crowd.began == [1, 3]
        await crowd.end(1)
        await settle()
        assert crowd.began == [1, 3, 2]
        await crowd.end(2)

    asyncio.run(main())


def test_a_lower_priority_counts_for_the_turn_that_is_waited_for() -> None:
    async def main() -> None:
        scheduler = Scheduler(1)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(scheduler.turn(1, 1))
            waiting = asyncio.create_task(once(scheduler, 2, 1))
            await settle()
            scheduler.renice(2, 19)
        turn = await waiting
        assert turn.priority == 19 and not turn.interactive

    asyncio.run(main())


def test_a_turn_of_steady_priority_keeps_it() -> None:
    async def main() -> None:
        scheduler = Scheduler(1)
        async with scheduler.turn(1, 1):
            waiting = asyncio.create_task(once(scheduler, 2, 5, steady=True))
            await settle()
            scheduler.renice(2, 0)
            await settle()
            assert not waiting.done()
        assert (await waiting).priority == 5

    asyncio.run(main())


async def once(scheduler: Scheduler, pid: int, priority: int, *, steady: bool = False) -> Turn:
    async with scheduler.turn(pid, priority, steady=steady) as turn:
        return turn


@settings(max_examples=50)
@given(
    slots=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["want", "end", "renice"]), st.integers(0, 6), st.integers(0, 3)),
        max_size=30,
    ),
)
def test_no_slot_is_lost_and_none_is_given_twice(
    slots: int, steps: list[tuple[str, int, int]]
) -> None:
    async def main() -> None:
        crowd = Crowd(slots)
        priorities: dict[int, int] = {}
        running: dict[int, bool] = {}  # whether it began as one of the background
        for what, pid, priority in steps:
            if what == "want" and pid not in priorities:
                crowd.want(pid, priority)
                priorities[pid] = priority
            elif what == "renice" and pid in priorities:
                crowd.scheduler.renice(pid, priority)
                if pid not in running:
                    priorities[pid] = priority
            elif what == "end" and pid in running:
                await crowd.end(pid)
                del priorities[pid], running[pid]
                crowd.began.remove(pid)
            await settle()
            for began in crowd.began:
                running.setdefault(began, priorities[began] > 0)
            background = sum(running.values())
            waiting = [one for one in priorities if one not in running]
            assert background <= slots
            assert all(priorities[one] > 0 for one in waiting)
            assert not waiting or background == slots
        for pid in [*priorities]:
            crowd.scheduler.renice(pid, 0)
        await settle()
        for pid in [*priorities]:
            await crowd.end(pid)

    asyncio.run(main())


async def held_up(kernel: Kernel, models: ScriptedModels, pid: int, text: str) -> None:
    """Have a process wait for its turn, behind another one."""
    models.gate = asyncio.Event()
    await kernel.start(ProcessSpec(owner="other", text="Wait.", priority=5))
    await until(kernel, lambda: models.asked[-1:] and models.asked[-1][0] == "other")
    await kernel.send(pid, text)
    await until(kernel, lambda: kernel.state(pid).generation is not None)
    await settle()
    assert models.asked[-1][0] == "other"


def test_the_engine_is_told_of_the_new_priority(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "Yes.")
        async with running(tmp_path, models=models, slots=1) as kernel:
            pid = await kernel.start(ProcessSpec(owner="ann", priority=5))
            await held_up(kernel, models, pid, "Well?")
            assert models.begun[-1] == ("ann", BACKGROUND)
            await kernel.renice(pid, 0)
            await until(kernel, lambda: models.asked[-1][0] == "ann")
            assert models.begun[-1] == ("ann", INTERACTIVE)
            models.gate.set()
            await until(kernel, lambda: idle(kernel, pid))

    asyncio.run(main())


def test_a_reply_that_waited_stays_within_the_budget(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(
            answer=lambda messages: "word " * 99 + "end", computes=True, size=4000
        )
        async with running(tmp_path, models=models, slots=1) as kernel:
            budget = Budget(tokens=1000)
            pid = await kernel.start(
                ProcessSpec(owner="ann", priority=5, budget=budget, text="long " * 300)
            )
            await until(kernel, lambda: idle(kernel, pid))
            models.answer = lambda messages: "word " * 499 + "end"
            await held_up(kernel, models, pid, "More?")
            before, used = kernel.state(pid).generation, kernel.state(pid).used.tokens
            await kernel.renice(pid, 0)  # what was read is not known any more: it is read again
            models.gate.set()
            await until(kernel, lambda: kernel.state(pid).generation is None)
            assert before is not None and before.limit > 500
            _, read, options = [one for one in models.asked if one[0] == "ann"][1]
            prompt = sum(len(message["content"].split()) for message in read)
            assert prompt > 400
            assert options.sampling.max_tokens is not None
            assert used + prompt + options.sampling.max_tokens <= 1000

    asyncio.run(main())
