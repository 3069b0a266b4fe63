"""Processes, for processes: start children, wait for them, and exchange messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Protocol

from pydantic import Field

from oneiros.devices.define import device
from oneiros.errors import ProcessError
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.events import Budget
from oneiros.kernel.label import Label
from oneiros.kernel.quarantine import PROGRAM as INSPECTION
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult, Wake

Pid = Annotated[int, Field(description="Number of the process.")]
Patience = Annotated[
    float | None, Field(description="Seconds to wait at most; default: for ever.", gt=0, le=1e9)
]


class ProcessPort(Protocol):
    """What of the kernel these tools need."""

    async def spawn(
        self,
        parent: int,
        task: str,
        tools: tuple[str, ...] | None = None,
        budget: Budget | None = None,
    ) -> int:
        """Start a child with a task; its pid. Raises ProcessError."""
        ...

    async def send(
        self, pid: int, text: str, *, sender: str = "user", label: Label | None = None
    ) -> None:
        """Put a message into a process's inbox. Raises ProcessError."""
        ...

    def state(self, pid: int) -> ProcessState:
        """A process's state. Raises ProcessError: there is none."""
        ...


def processes(kernel: ProcessPort, now: Callable[[], float] = time.time) -> list[Tool]:
    """The tools.

    A message carries the label of its sender's context, so that nothing loses its origins on the
    way through another process.
    """

    @device(contract=_changing("process", "child", "start", "parallel", "delegate"))
    async def spawn(
        context: CallContext,
        task: Annotated[str, Field(description="All that the child has to know.")],
        tools: Annotated[
            tuple[str, ...] | None, Field(description="Names of tools; default: all of yours.")
        ] = None,
        tokens: Annotated[
            int | None, Field(description="Tokens it may use; default: half of yours.", gt=0)
        ] = None,
    ) -> ToolResult:
        """Start a child process that works on a task by itself. Gives its number, for wait."""
        if not task.strip():
            raise ToolError("spawn: the task is empty.")
        budget = None if tokens is None else Budget(tokens=tokens)
        try:
            pid = await kernel.spawn(context.pid, task, tools, budget)
        except ProcessError as error:
            raise ToolError(str(error)) from error
        return ToolResult(f"Process {pid} was started. Get its result with wait.", {"pid": pid})

    @device(contract=Contract(idempotent=True, capability="processes"))
    async def wait(context: CallContext, pid: Pid, seconds: Patience = None) -> Wake:
        """Wait until a child process ends, and get its result."""
        child = _reachable(kernel, context, pid)
        if child.parent != context.pid:
            raise ToolError(
                f"wait: process {pid} is no child of this process ({context.pid}). "
                "Its messages can be waited for with receive."
            )
        return Wake(child=pid, at=None if seconds is None else now() + seconds)

    @device(contract=_changing("send", "tell", "message", "process"))
    async def send(context: CallContext, pid: Pid, text: str) -> str:
        """Send a message to another process of the same owner."""
        state = _reachable(kernel, context, pid)
        if state.end is not None:
            # Not how: that is said to who waits for it, with the label of what it has read.
            raise ToolError(f"send: process {pid} has ended.")
        try:
            await kernel.send(pid, text, sender=f"process:{context.pid}", label=context.label)
        except ProcessError as error:
            raise ToolError(str(error)) from error
        return f"The message is in the inbox of process {pid}."

    @device(contract=Contract(idempotent=True, capability="processes"))
    async def receive(context: CallContext, seconds: Patience = None) -> Wake:
        """Wait for the next message to this process, and read it."""
        return Wake(message=True, at=None if seconds is None else now() + seconds)

    return [spawn, wait, send, receive]


def _changing(*asked: str) -> Contract:
    """Of what only reaches processes of the same owner, which keep to the policy themselves."""
    return Contract(
        effects=frozenset({Effect.LOCAL}), requested_by=asked, undo=True, capability="processes"
    )


def _reachable(kernel: ProcessPort, context: CallContext, pid: int) -> ProcessState:
    """The state of another process of the same owner."""
    if pid == context.pid:
        raise ToolError(f"Process {pid} is this process itself.")
    try:
        state = kernel.state(pid)
    except ProcessError as error:
        raise ToolError(str(error)) from error
    # As if there were none: others' processes are not told of, and of one that inspects something
    # nothing is known but its answer, not even how it ended.
    if state.owner != context.owner or state.program == INSPECTION:
        raise ToolError(f"There is no process {pid}.")
    return state
