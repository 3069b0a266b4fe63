"""Erasing a page: nothing that it was made of stays, and the process goes on."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path

import pytest

from oneiros.errors import ProcessError
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import ToolResult
from oneiros.kernel.view import ERASED
from oneiros.memory.pages import PageKind
from tests.kernel.running import ScriptedModels, contents, idle, running, tool, until


async def look(arguments, context):
    return ToolResult("RESULT", data={"v": "DATA"})


def asked_and_answered() -> ScriptedModels:
    call = [("look", '{"q": "ARGUMENT"}')]
    return ScriptedModels(deque([call, "The ANSWER is this.", "And on."]))


async def answered(kernel: Kernel) -> int:
    pid = await kernel.start(ProcessSpec(owner="me", text="my QUESTION", title="x"))
    await until(kernel, lambda: idle(kernel, pid))
    return pid


def left(folder: Path, *words: str) -> list[str]:
    """Which words the files of a journal still have."""
    data = b"".join(path.read_bytes() for path in folder.glob("journal.sqlite*"))
    return [word for word in words if word.encode() in data]


@pytest.mark.parametrize(
    ("page", "gone"),
    [
        (1, ["QUESTION"]),
        (2, ["ARGUMENT", "RESULT", "DATA"]),  # a call goes with its result
        (3, ["ARGUMENT", "RESULT", "DATA"]),
        (4, ["ANSWER"]),
    ],
)
def test_all_that_a_page_was_made_of_is_erased(tmp_path: Path, page: int, gone: list[str]) -> None:
    words = ["QUESTION", "ARGUMENT", "RESULT", "DATA", "ANSWER"]

    async def main() -> None:
        async with running(tmp_path, tool("look", look), models=asked_and_answered()) as kernel:
            pid = await answered(kernel)
            assert left(tmp_path, *words) == words
            kernel.erase(pid, page)
            if page == 3:  # the reply that asks for the call has the arguments, too
                assert left(tmp_path, *gone) == ["ARGUMENT"]
            else:
                assert left(tmp_path, *words) == [word for word in words if word not in gone]
            assert await kernel.replay(pid) == kernel.state(pid).seq

    asyncio.run(main())


def test_an_erased_call_keeps_its_result_and_the_process_goes_on(tmp_path: Path) -> None:
    async def main() -> None:
        models = asked_and_answered()
        async with running(tmp_path, tool("look", look), models=models) as kernel:
            pid = await answered(kernel)
            call = next(page for page in kernel.state(pid).pages if page.calls)
            kernel.erase(pid, call.id)
            await kernel.send(pid, "go on")
            await until(kernel, lambda: idle(kernel, pid) and len(contents(kernel, pid)) == 6)
            asks, result = models.asked[-1][1][1:3]
            function = asks["tool_calls"][0]["function"]  # type: ignore[index]
            assert function == {"name": "look", "arguments": "{}"}
            assert asks["content"] == result["content"] == ERASED
            assert result["tool_call_id"] == asks["tool_calls"][0]["id"]  # type: ignore[index]
            assert await kernel.replay(pid) == kernel.state(pid).seq
        async with running(tmp_path, tool("look", look), models=models) as kernel:
            assert contents(kernel, pid)[1:3] == [("assistant", ERASED), ("tool", ERASED)]

    asyncio.run(main())


def test_a_page_of_a_fork_is_erased_where_it_was_made(tmp_path: Path) -> None:
    async def main() -> None:
        models = ScriptedModels(answer=lambda messages: "Yes.")
        async with running(tmp_path, models=models) as kernel:
            pid = await answered(kernel)
            fork = await kernel.fork(pid)
            for each, text in ((pid, "OURS"), (fork, "THEIRS")):
                await kernel.send(each, text)
                await until(
                    kernel, lambda e=each: idle(kernel, e) and len(contents(kernel, e)) == 4
                )
            third = kernel.state(fork).pages[2]
            assert third.kind is PageKind.USER and third.id == kernel.state(pid).pages[2].id
            kernel.erase(fork, 1)
            kernel.erase(fork, third.id)
            assert left(tmp_path, "QUESTION", "OURS", "THEIRS") == ["OURS"]
            assert [text for _, text in contents(kernel, pid)] == [ERASED, "Yes.", "OURS", "Yes."]
            with pytest.raises(ProcessError, match="no page 9"):
                kernel.erase(fork, 9)
            for each in (pid, fork):
                assert await kernel.replay(each) == kernel.state(each).seq

    asyncio.run(main())
