"""Devices that wait, in a kernel: children, messages, people, times, across a restart."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from oneiros.devices.clock import clock
from oneiros.devices.human import human
from oneiros.devices.processes import processes
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import Status
from oneiros.kernel.tools import Tool
from oneiros.model.chat_format import Message
from tests.kernel.running import (
    Chat,
    PlainMemory,
    Reply,
    ScriptedModels,
    contents,
    ended,
    idle,
    until,
)


@asynccontextmanager
async def kernel_with_devices(folder: Path, models: ScriptedModels) -> AsyncGenerator[Kernel, None]:
    tools: dict[str, Tool] = {}
    journal = Journal.open(folder)
    kernel = Kernel(journal, models, lambda: tools, {"agent": Chat()}, PlainMemory())
    for tool in (*processes(kernel), *clock(), human()):
        tools[tool.name] = tool
    await kernel.resume()
    try:
        yield kernel
    finally:
        await kernel.close()
        journal.close()


def test_a_child_works_and_its_parent_waits_across_a_restart(tmp_path: Path) -> None:
    go_on = [False]

    def model(messages: Sequence[Message]) -> Reply:
        said = [message["content"] for message in messages]
        if said[0] == "[from process:1]\nCount the words.":
            if not go_on[0]:
                return [("sleep", '{"seconds": 1000000}')] if len(said) == 1 else "?"
            return "There are 7."
        if len(said) == 1:
            return [("spawn", json.dumps({"task": "Count the words.", "tools": ["sleep"]}))]
        if said[-1].startswith("Process 2 was started"):
            return [("wait", '{"pid": 2}')]
        return f"My child says: {said[-1]}"

    async def main() -> None:
        models = ScriptedModels(answer=model)
        async with kernel_with_devices(tmp_path, models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="ann", text="Have the words counted."))
            waiting = ("wait", "sleep")
            await until(
                kernel,
                lambda: tuple(c.tool for p in kernel.processes() for c in p.calls) == waiting,
            )
            assert kernel.state(2).parent == pid
            assert kernel.state(2).capabilities == {"clock"}
        go_on[0] = True
        async with kernel_with_devices(tmp_path, models) as kernel:
            await until(
                kernel, lambda: {kernel.state(p).status for p in (pid, 2)} == {Status.WAITING}
            )
            await kernel.interrupt(2)
            await ended(kernel, 2)
            await until(kernel, lambda: idle(kernel, pid))
            said = contents(kernel, pid)[-1][1]
            assert said == "My child says: Process 2 ended (done): There are 7."
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_processes_write_to_each_other_and_ask_a_person(tmp_path: Path) -> None:
    def model(messages: Sequence[Message]) -> Reply:
        first, last = messages[0]["content"], messages[-1]["content"]
        if first == "Listen.":
            if len(messages) == 1:
                return [("receive", '{"seconds": 600}')]
            if last.startswith("From process:2"):
                return [("ask_person", '{"question": "Which?", "choices": ["red", "blue"]}')]
            return f"It is {last}."
        if len(messages) == 1:
            return [("send", '{"pid": 1, "text": "A colour is wanted."}')]
        return "Done."

    async def main() -> None:
        async with kernel_with_devices(tmp_path, ScriptedModels(answer=model)) as kernel:
            listener = await kernel.start(ProcessSpec(owner="ann", text="Listen."))
            await until(kernel, lambda: kernel.state(listener).status == "waiting")
            stranger = await kernel.start(ProcessSpec(owner="bob", text="Write."))
            await until(kernel, lambda: idle(kernel, stranger))
            assert "There is no process 1." in contents(kernel, stranger)[-2][1]
            assert not kernel.questions()

    asyncio.run(main())

    async def among_own() -> None:
        async with kernel_with_devices(tmp_path / "own", ScriptedModels(answer=model)) as kernel:
            listener = await kernel.start(ProcessSpec(owner="ann", text="Listen."))
            await until(kernel, lambda: kernel.state(listener).status == "waiting")
            await kernel.start(ProcessSpec(owner="ann", text="Write."))
            await until(kernel, lambda: bool(kernel.questions()))
            question = kernel.questions()[0]
            assert (question.pid, question.kind) == (listener, "question")
            assert question.text == "Which?\n1. red\n2. blue"
            await kernel.answer(question.call_id, text="blue")
            await until(kernel, lambda: idle(kernel, listener))
            assert contents(kernel, listener)[-1] == ("assistant", "It is blue.")

    asyncio.run(among_own())


def test_a_sleep_ends_when_its_time_has_come(tmp_path: Path) -> None:
    def model(messages: Sequence[Message]) -> Reply:
        return [("sleep", '{"seconds": 0.05}')] if len(messages) == 1 else "Awake."

    async def main() -> None:
        began = time.time()
        async with kernel_with_devices(tmp_path, ScriptedModels(answer=model)) as kernel:
            pid = await kernel.start(ProcessSpec(owner="ann", text="Sleep."))
            await until(kernel, lambda: idle(kernel, pid) and len(kernel.state(pid).pages) > 2)
            assert "The time has come" in contents(kernel, pid)[-2][1]
        assert time.time() >= began + 0.05

    asyncio.run(main())
