"""Workspaces: what each process has for its programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from oneiros.devices.sandbox.confined import Confined, Ended
from oneiros.devices.sandbox.interpreter import Interpreter, Reply
from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import Mechanism, nothing_works, offered
from oneiros.devices.sandbox.place import Place, new_place
from oneiros.devices.sandbox.private_copy import Changes, PrivateCopy
from oneiros.errors import DiskError, SandboxError
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Json, Reconcile, ToolError, ToolResult
from oneiros.memory.disk import Disk

_T = TypeVar("_T")


class Workspace:
    """A process's private copy of files, and its interpreter. One call at a time uses it."""

    def __init__(self, mechanism: Mechanism, place: Place, copy: PrivateCopy, limits: Limits):
        """Begin without an interpreter."""
        self.lock = asyncio.Lock()
        self.users = 0  # calls that have it, or wait for it
        self._mechanism = mechanism
        self._place = place
        self._copy = copy
        self._limits = limits
        self._interpreter: Interpreter | None = None

    async def refresh(self, folder: str) -> None:
        """Make the copy equal to a folder of the disk. Raises ToolError where it is too large."""
        await _in_thread(self._copy.refresh, folder)

    async def commit(self, context: CallContext, tool: str) -> Changes:
        """Make the copy's changes on the disk, as those of a call."""

        def commit() -> Changes:
            return self._copy.commit(
                call_id=context.call_id, label=context.label, tool=tool, pid=context.pid
            )

        return await _in_thread(commit)

    @property
    def label(self) -> Label:
        """Of all that programs could read here until now."""
        return self._copy.label

    async def run(self, command: Sequence[str]) -> tuple[Ended, str]:
        """Run a program to its end, or to that of its time; what it printed."""
        confined = await Confined.start(self._mechanism, self._place, self._limits, command)
        ended = await confined.wait()
        return ended, confined.take_output().text()

    async def interpret(self, code: str) -> tuple[Reply, bool]:
        """Run code in the interpreter; also whether this is a new one, without variables."""
        new = self._interpreter is None
        interpreter = self._interpreter
        # A call that is cancelled ends the interpreter.
        self._interpreter = None
        if interpreter is None:
            interpreter = await Interpreter.start(self._mechanism, self._place, self._limits)
        reply = await interpreter.run(code)
        if reply.ended is None:
            self._interpreter = interpreter
        return reply, new

    async def close(self) -> None:
        """End the interpreter, and remove the folders."""
        async with self.lock:
            if self._interpreter is not None:
                await self._interpreter.end()
                self._interpreter = None
            await _in_thread(self._place.remove)


class Workspaces:
    """The workspaces of all processes; those that were not used for the longest time are closed.

    What is lost with one are an interpreter's variables and temporary files, never files of the
    disk, and the next call says so.
    """

    def __init__(
        self,
        disks: Callable[[str], Disk],
        limits: Limits | None = None,
        *,
        mechanism: Mechanism | None = None,
        most: int = 8,
    ) -> None:
        """Have none yet.

        Args:
            disks: the disk of a principal.
            limits: of programs; default: those of `Limits`.
            mechanism: what confines programs; default: the best one that works here.
            most: workspaces at the same time, unless more are in use.
        """
        self.limits = limits or Limits()
        self.disks = disks
        self._wanted = mechanism
        self._mechanism: Mechanism | None = None
        self._most = most
        self._spaces: dict[int, Workspace] = {}
        self._making = asyncio.Lock()

    @asynccontextmanager
    async def of(self, context: CallContext) -> AsyncIterator[Workspace]:
        """The workspace of the process that calls, for this call alone.

        Raises:
            SandboxError: programs cannot be confined on this machine.
        """
        async with self._making:
            space = self._spaces.pop(context.pid, None)
            if space is None:
                space = await self._new(context.owner)
            self._spaces[context.pid] = space  # the last one: used most recently
            space.users += 1
            try:
                await self._close_surplus()
            except asyncio.CancelledError:
                space.users -= 1
                raise
        try:
            async with space.lock:
                yield space
        finally:
            space.users -= 1

    async def mechanism(self) -> Mechanism:
        """What confines programs here.

        Raises:
            SandboxError: nothing does; the message says what to install.
        """
        if self._mechanism is None:
            failures = []
            for mechanism in [self._wanted] if self._wanted else offered():
                try:
                    await _try(mechanism)
                except SandboxError as error:
                    failures.append(str(error))
                    continue
                self._mechanism = mechanism
                return mechanism
            raise SandboxError(nothing_works(" ".join(failures)))
        return self._mechanism

    async def forget(self, pid: int) -> None:
        """Close the workspace of a process that has ended, if it had one."""
        async with self._making:
            await self._drop(pid)

    async def _drop(self, pid: int) -> None:
        space = self._spaces.pop(pid, None)
        if space is not None:
            await space.close()

    async def close(self) -> None:
        """Close all of them."""
        for pid in list(self._spaces):
            await self.forget(pid)

    async def _new(self, owner: str) -> Workspace:
        mechanism = await self.mechanism()
        place = await _in_thread(new_place)
        copy = PrivateCopy(place, self.disks(owner), self.limits)
        return Workspace(mechanism, place, copy, self.limits)

    async def _close_surplus(self) -> None:
        surplus = max(0, len(self._spaces) - self._most)
        idle = [pid for pid, space in self._spaces.items() if not space.users]
        for pid in idle[:surplus]:
            await self._drop(pid)


async def _in_thread(function: Callable[..., _T], *arguments: object) -> _T:
    """Run a function in a thread. Cancelled, it is waited for: what it uses is not free before."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def roll_back(disks: Callable[[str], Disk]) -> Reconcile:
    """What makes a call of unknown outcome one that did not happen.

    All that a confined program can bring about are changes of files, and these can be undone.
    """

    async def reconcile(arguments: Json, context: CallContext) -> ToolResult | None:
        disk = disks(context.owner)
        try:
            await _in_thread(disk.undo_call, context.call_id)
        except DiskError as error:
            raise ToolError(
                f"Files that the interrupted call changed could not be put back: {error}"
            ) from error
        return None

    return reconcile


async def _try(mechanism: Mechanism) -> None:
    """Run nothing, confined. Raises SandboxError where that does not work."""
    place = await _in_thread(new_place)
    try:
        limits = Limits(seconds=20)
        confined = await Confined.start(mechanism, place, limits, ["/bin/sh", "-c", "exit 7"])
        ended = await confined.wait()
        if (ended.reason, ended.status) != ("exit", 7):
            raise SandboxError(f"A test of {mechanism} ended with {ended.reason} {ended.status}.")
    finally:
        await _in_thread(place.remove)
