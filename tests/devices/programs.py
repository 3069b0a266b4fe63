"""Calls of the devices that run programs, outside of a kernel."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from oneiros.devices.python import python
from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import Mechanism
from oneiros.devices.sandbox.workspaces import Workspaces
from oneiros.devices.terminal import terminal
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, ToolResult
from oneiros.memory.disk import Disk

BY_USER = Label.of("user")


class Desk:
    """A user's disk, with the devices on it."""

    def __init__(
        self, folder: Path, limits: Limits | None = None, mechanism: Mechanism | None = None
    ) -> None:
        self.disk = Disk(folder / "files", folder / "versions", "ann")
        self.workspaces = Workspaces(
            lambda owner: self.disk, limits or Limits(seconds=20), mechanism=mechanism, most=2
        )
        self.python = python(self.workspaces)
        self.terminal = terminal(self.workspaces)
        self._calls = 0

    def put(self, path: str, text: str, label: Label = BY_USER) -> None:
        """Write a file as another tool would."""
        self.disk.write(path, text.encode(), call_id="put", label=label)

    def text(self, path: str) -> str:
        """A file's content."""
        return self.disk.read(path).decode()

    def paths(self) -> list[str]:
        """All files."""
        return [entry.path for entry in self.disk.walk()]

    def context(self, pid: int = 1, label: Label = BY_USER) -> CallContext:
        """A new call's."""
        self._calls += 1
        return CallContext(
            pid=pid, call_id=f"{pid}.{self._calls}", owner="ann", app="assistant", label=label
        )

    async def run(self, code: str, pid: int = 1, **arguments: str) -> ToolResult:
        """Call `python`."""
        result = await self.python.run({"code": code.split("\n"), **arguments}, self.context(pid))
        assert isinstance(result, ToolResult)
        return result

    async def sh(self, command: str, pid: int = 1, **arguments: str) -> ToolResult:
        """Call `terminal`."""
        result = await self.terminal.run({"command": command, **arguments}, self.context(pid))
        assert isinstance(result, ToolResult)
        return result


async def started(*command: str) -> int:
    """Wait until a program runs somewhere with this command line; its number."""
    wanted = b"".join(word.encode() + b"\0" for word in command)
    async with asyncio.timeout(30):
        while True:
            for process in Path("/proc").glob("[1-9]*"):
                with suppress(OSError):  # it ended meanwhile
                    if (process / "cmdline").read_bytes() == wanted:
                        return int(process.name)
            await asyncio.sleep(0.01)


def at(
    folder: Path,
    work: Callable[[Desk], Awaitable[None]],
    limits: Limits | None = None,
    mechanism: Mechanism | None = None,
) -> None:
    """Do something with a new desk."""

    async def main() -> None:
        desk = Desk(folder, limits, mechanism)
        try:
            await work(desk)
        finally:
            await desk.workspaces.close()

    asyncio.run(main())
