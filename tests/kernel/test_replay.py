"""Executing processes again: what is the same, and what is not."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from functools import partial
from pathlib import Path

import pytest

from oneiros.errors import ReplayError
from oneiros.kernel import events as e
from oneiros.kernel.journal import Journal
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.program import ACTION, Action, Exit, Generate, Receive, View
from oneiros.kernel.replay import replay
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import ToolResult
from oneiros.memory.pages import Page, PageKind
from tests.kernel.running import ScriptedModels, ended, idle, running, tool, until


class Counts:
    """Wants as many tokens as its context has pages: asked later, it wants something else."""

    def step(self, view: View) -> Action:
        pages = view.state.context
        if not pages or pages[-1].kind in (PageKind.ASSISTANT, PageKind.SYSTEM, PageKind.MARK):
            return Receive()
        return Generate(max_tokens=100 + len(pages))


class GivesUp:
    """Ends at once, not done."""

    def __init__(self, status: str, result: str) -> None:
        self._exit = Exit(result=result, status=status)  # type: ignore[arg-type]

    def step(self, view: View) -> Action:
        return self._exit


def test_the_program_was_asked_before_room_was_made_for_its_reply(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)

    def page(number: int, kind: PageKind = PageKind.USER) -> Page:
        message = journal.put(json.dumps({"role": "user", "content": str(number)}).encode())
        return Page(id=number, kind=kind, message=message, tokens=8, label=PUBLIC)

    def wanted(pages: int) -> e.GenerationStarted:
        options = journal.put(ACTION.dump_json(Generate(max_tokens=100 + pages)))
        return e.GenerationStarted(seed=1, options=options, limit=9)

    said = (page(1), page(2), page(3))
    # What comes between two deeds of the program: a notice, the question, and room for the reply.
    between = [
        e.Noticed(page=page(4, PageKind.NOTICE)),
        e.Delivered(sender="user", text=journal.put(b"wait"), label=PUBLIC),
        e.Evicted(pages=(1, 2), mark=page(5, PageKind.MARK)),
    ]
    started = e.Started(owner="me", app="assistant", program="counts", model="scripted", pages=said)
    for pages, same in ((3, True), (4, True), (9, False)):
        pid = journal.new_pid()
        journal.append(pid, [started, *between, wanted(pages)])
        again = replay(journal, pid, Counts(), partial(journal.state, pid))
        if same:
            assert asyncio.run(again) == 5
        else:
            with pytest.raises(ReplayError, match="Event 5"):
                asyncio.run(again)
    journal.close()


def test_a_reply_after_a_call_for_which_room_was_made(tmp_path: Path) -> None:
    async def long(arguments, context):
        return ToolResult("word " * 100)

    async def main() -> None:
        models = ScriptedModels(deque([[("long", "{}")], [("long", "{}")], "Done."]), size=300)
        async with running(tmp_path, tool("long", long), models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Read it."))
            await until(kernel, lambda: idle(kernel, pid))
            assert kernel.state(pid).evicted
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


@pytest.mark.parametrize("status", ["failed", "budget"])
def test_an_end_that_the_program_wanted_is_checked(tmp_path: Path, status: str) -> None:
    async def main() -> None:
        programs = {"ends": GivesUp(status, "no")}
        async with running(tmp_path, programs=programs) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="ends"))
            assert (await ended(kernel, pid)).end.by_program
            assert await kernel.replay(pid) == kernel.state(pid).seq
        async with running(tmp_path, programs={"ends": GivesUp(status, "yes")}) as kernel:
            with pytest.raises(ReplayError, match="ended"):
                await kernel.replay(pid)

    asyncio.run(main())


def test_a_process_goes_on_while_it_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneiros.kernel.replay._AT_ONCE", 0.0)

    async def main() -> None:
        models = ScriptedModels(deque(f"Reply {number}." for number in range(40)))
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="0"))
            for number in range(1, 20):
                await until(kernel, lambda: idle(kernel, pid))
                await kernel.send(pid, str(number))
            await until(kernel, lambda: idle(kernel, pid))
            before = kernel.state(pid).seq
            replayed = asyncio.create_task(kernel.replay(pid))
            await asyncio.sleep(0)
            assert not replayed.done()  # it lets others have their turn
            await kernel.send(pid, "And one more.")
            await until(kernel, lambda: idle(kernel, pid))
            assert before < await replayed <= kernel.state(pid).seq
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())
