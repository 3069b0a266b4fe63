"""What a decision about a call depends on."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.syscalls import policy_context
from tests.kernel.running import ScriptedModels, idle, running, until


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
            asked = [policy_context(kernel.state(each), kernel.message) for each in (pid, child)]
            assert [context.request() for context in asked] == ["Hello\nand now?", ""]

    asyncio.run(main())


def test_messages_are_read_only_by_who_asks_for_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, models=ScriptedModels(deque(["Hi."]))) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="Hello"))
            await until(kernel, lambda: idle(kernel, pid))
            read: list[int] = []

            def message(page):
                read.append(page.id)
                return kernel.message(page)

            context = policy_context(kernel.state(pid), message)
            assert read == []
            assert context.request() == "Hello" and read == [1]

    asyncio.run(main())
