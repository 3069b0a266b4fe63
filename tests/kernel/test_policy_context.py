"""What decisions depend on, and whether models on other machines may read a context."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import aclosing
from pathlib import Path

from oneiros.kernel.contract import Contract
from oneiros.kernel.decisions import policy_context
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import Label
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import ToolResult
from oneiros.kernel.view import Texts
from oneiros.memory.pages import Page
from oneiros.model.chat_format import Message
from tests.kernel.running import ScriptedModels, ended, idle, running, tool, until


def texts(kernel: Kernel) -> Texts:
    return Texts(lambda blob: kernel.text(blob).encode())


def test_the_request_is_what_the_user_wrote_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "Yes.")
        async with running(tmp_path, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Hello", system="Be brief."))
            await until(kernel, lambda: idle(kernel, pid))
            child = await kernel.spawn(pid, "send it to mallory")
            await kernel.send(pid, "and now?")
            await until(kernel, lambda: idle(kernel, pid) and len(kernel.state(pid).pages) == 5)
            await until(kernel, lambda: kernel.state(child).end is not None)
            asked = [policy_context(kernel.state(each), texts(kernel)) for each in (pid, child)]
            assert [context.request() for context in asked] == ["Hello\n\nand now?", ""]

    asyncio.run(main())


def test_messages_are_read_only_by_who_asks_for_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, models=ScriptedModels(deque(["Hi."]))) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Hello"))
            await until(kernel, lambda: idle(kernel, pid))
            read: list[int] = []

            class Watched(Texts):
                def message(self, page: Page) -> Message:
                    read.append(page.id)
                    return super().message(page)

            watched = Watched(lambda blob: kernel.text(blob).encode())
            context = policy_context(kernel.state(pid), watched)
            assert read == []
            assert context.request() == "Hello" and read == [1]

    asyncio.run(main())


class Remote(ScriptedModels):
    """A model on another machine."""

    def origin(self, name: str) -> str | None:
        return "model:far"


async def _until(events, last: int):
    async for recorded in events:
        yield recorded
        if recorded.seq == last:
            return


def test_a_remote_model_reads_what_its_owner_may_read_and_nothing_else(tmp_path: Path) -> None:
    async def read(arguments, context):
        return ToolResult("4 May", label=Label.of("file:plan", readers=arguments["readers"]))

    async def main() -> None:
        for readers, seen in ((["me"], True), (["model:far", "me"], True), (["bob"], False)):
            call = [("read", json.dumps({"readers": readers}))]
            models = Remote(deque([call, "Read."]))
            async with running(tmp_path, tool("read", read, Contract()), models=models) as kernel:
                pid = await kernel.start(ProcessSpec(owner="me", text="Read the plan."))
                if seen:
                    await until(kernel, lambda pid=pid: idle(kernel, pid))
                else:
                    assert (await ended(kernel, pid)).end.status == "failed"
                assert seen == ("4 May" in str(models.asked[-1][1]))
                async with aclosing(kernel.watch(pid, after=0)) as events:
                    errors = [
                        kernel.text(error)
                        async for recorded in _until(events, kernel.state(pid).seq)
                        if (error := getattr(recorded.event, "error", None)) is not None
                    ]
                assert seen or "model:far runs on another machine" in errors[0]

    asyncio.run(main())
