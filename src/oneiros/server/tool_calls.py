"""Calls of tools by clients that are no processes: each is made by a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from oneiros.apps.one_call import NAME
from oneiros.errors import ProcessError
from oneiros.kernel import events as e
from oneiros.kernel.control import Method
from oneiros.kernel.control_client import AsyncControlClient
from oneiros.kernel.journal import Recorded
from oneiros.kernel.label import Label
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.syscalls import describe, described
from oneiros.kernel.tools import Json, Tool, ToolError, ToolResult
from oneiros.memory.pages import Page
from oneiros.model.chat_format import Message

OF_A_PROCESS = frozenset(
    {"spawn", "wait", "send", "receive", "sleep", "set_timer", "recall", "read_document"}
    | {"inspect", "open_handle"}
)
"""Tools that mean something only to a process that lives on after the call."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a client is told while its call waits."""

    text: str


class ToolCalls(Protocol):
    """The tools that a principal's clients may call."""

    async def tools(self) -> Sequence[Tool]:
        """The tools; they are called with `call`, not with their own functions."""
        ...

    def call(
        self, owner: str, tool: str, arguments: Json
    ) -> AsyncGenerator[Notice | ToolResult, None]:
        """Call a tool: notices, and at last the result. Closing the generator cancels the call.

        Args:
            owner: the principal.
            tool: its name.
            arguments: by its schema.

        Raises:
            ToolError: the call failed, or was refused.
        """
        ...


class KernelPort(Protocol):
    """What this needs of a kernel."""

    async def start(self, spec: ProcessSpec) -> int: ...
    async def send(
        self, pid: int, text: str, *, sender: str = "user", label: Label | None = None
    ) -> None: ...
    async def kill(self, pid: int) -> None: ...
    def watch(
        self, pid: int | None = None, after: int | None = None
    ) -> AsyncGenerator[Recorded, None]: ...
    def message(self, page: Page) -> Message: ...
    def text(self, blob: str) -> str: ...
    def tools(self) -> list[Tool]: ...


class KernelCalls:
    """Calls through the kernel in this process: policy, journal and permission questions apply."""

    def __init__(self, kernel: KernelPort) -> None:
        """Use a kernel that knows the program `OneCall` by its NAME."""
        self._kernel = kernel
        self._killing: set[asyncio.Task[None]] = set()

    async def tools(self) -> Sequence[Tool]:
        return [tool for tool in self._kernel.tools() if tool.name not in OF_A_PROCESS]

    async def call(
        self, owner: str, tool: str, arguments: Json
    ) -> AsyncGenerator[Notice | ToolResult, None]:
        kernel = self._kernel
        capabilities = frozenset(tool.capability for tool in await self.tools())
        pid = await kernel.start(
            ProcessSpec(
                owner=owner,
                program=NAME,
                app="mcp",
                title=tool,
                system="",
                capabilities=capabilities,
            )
        )
        # What a client asks for was written by a model, or by whoever wrote what the model read.
        label = Label.of(f"principal:{owner}")
        await kernel.send(pid, "call", sender="mcp", label=label)
        await kernel.send(pid, json.dumps(dict(arguments)), sender="mcp", label=label)
        over = False
        try:
            async with aclosing(kernel.watch(pid, after=0)) as events:
                async for recorded in events:
                    match recorded.event:
                        case e.CallIntended(decision="ask", why=str(why)):
                            yield Notice(f"A person is asked: {kernel.text(why)}")
                        case e.CallEnded() as ended:
                            over = True
                            yield self._result(ended)
                            return
                        case e.Ended(status=status):
                            over = True
                            raise ToolError(f"Process {pid} ended before the call ({status}).")
        finally:
            if not over:
                # In a task of its own: who cancels a client's request goes on cancelling until the
                # request is over.
                killing = asyncio.create_task(self._kill(pid))
                self._killing.add(killing)
                killing.add_done_callback(self._killing.discard)
                await asyncio.shield(killing)

    async def _kill(self, pid: int) -> None:
        with suppress(ProcessError):
            await self._kernel.kill(pid)

    def _result(self, ended: e.CallEnded) -> ToolResult:
        text = self._kernel.message(ended.page)["content"]
        if ended.outcome != "done":
            raise ToolError(text.removeprefix("Error: "))
        data = None if ended.data is None else json.loads(self._kernel.text(ended.data))
        return ToolResult(text, data, label=ended.page.label)


def call_methods(calls: ToolCalls, owner: str) -> dict[str, Method]:
    """Methods of the control socket for `ControlCalls`."""

    async def offered() -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = json.loads(describe(await calls.tools()))
        return tools

    async def call(tool: str, arguments: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        try:
            async with aclosing(calls.call(owner, tool, arguments)) as steps:
                async for step in steps:
                    match step:
                        case Notice():
                            yield {"notice": step.text}
                        case ToolResult():
                            yield {"text": step.text, "data": step.data}
        except ToolError as error:
            yield {"error": str(error)}

    return {"calls.tools": offered, "calls.call": call}


class ControlCalls:
    """Calls through the kernel that runs on a data folder, in another process."""

    def __init__(self, folder: Path) -> None:
        self._client = AsyncControlClient(folder)

    async def tools(self) -> Sequence[Tool]:
        return described(json.dumps(await self._client.call("calls.tools")).encode())

    async def call(
        self, owner: str, tool: str, arguments: Json
    ) -> AsyncGenerator[Notice | ToolResult, None]:
        events = self._client.stream("calls.call", tool=tool, arguments=dict(arguments))
        async with aclosing(events):
            async for event in events:
                yield _step(event)


def _step(event: Mapping[str, Any]) -> Notice | ToolResult:
    match event:
        case {"notice": str(text)}:
            return Notice(text)
        case {"error": str(text)}:
            raise ToolError(text)
    return ToolResult(event["text"], event["data"])
