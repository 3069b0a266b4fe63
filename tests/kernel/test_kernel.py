"""Processes as their users see them."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import ToolResult, Wake
from tests.kernel.running import Calls, ScriptedModels, contents, ended, idle, running, tool, until


async def add(arguments, context):
    return ToolResult(str(arguments["a"] + arguments["b"]))


def test_a_chat_that_calls_a_tool(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(deque([[("add", '{"a": 2, "b": 3}')], "It is 5."]))
        async with running(tmp_path, tool("add", add), models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text="2 + 3?", system="Be brief."))
            await until(kernel, lambda: idle(kernel, pid))
            assert contents(kernel, pid) == [
                ("system", "Be brief."),
                ("user", "2 + 3?"),
                ("assistant", ""),
                ("tool", "5"),
                ("assistant", "It is 5."),
            ]
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())
