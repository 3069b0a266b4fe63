"""A confined program under way."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import Mechanism, stage_command, stage_settings
from oneiros.devices.sandbox.output import Output
from oneiros.devices.sandbox.place import Place
from oneiros.errors import SandboxError

_PIPE = 1 << 18  # bytes that are read of the output at once
_QUICK = 4 << 20  # bytes of output after which its reading is slowed down
_PATIENCE = 10.0  # seconds that the stage may take to end what it watches

Reason = Literal["exit", "end", "memory", "disk", "entries", "time", "lost"]
_EXCESSES: dict[str, str] = {
    "exit": "",
    "end": "",
    "memory": "its processes used more than {memory:,} bytes of memory together",
    "disk": "it wrote more than {disk:,} bytes of files",
    "entries": "it made more than {entries:,} files and folders",
    "time": "it took longer than {seconds:g} seconds",
    "lost": "it was ended from outside",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended. None of the processes that it started is left."""

    reason: Reason  # "exit": by itself; "end": it was asked to; else what it used too much of
    status: int  # its exit status; of one that a signal ended minus the signal's number

    def why(self, limits: Limits) -> str:
        """What it did wrong, as the rest of a sentence; "" where it ended by itself."""
        return _EXCESSES[self.reason].format(
            memory=limits.memory, disk=limits.disk, entries=limits.entries, seconds=limits.seconds
        )


class Confined:
    """A program that runs confined, with all that it starts, until it ends or is ended."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        commands: int,
        reports: asyncio.StreamReader,
        transport: asyncio.ReadTransport,
        output: int,
        limits: Limits,
    ) -> None:
        """Take over what `start` opened."""
        self._process = process
        self._commands: int | None = commands
        self._reports = reports
        self._transport = transport
        self._pipe: int | None = output
        self._ended: Ended | None = None
        self.limits = limits
        self.output = Output(limits.output)
        self._loop = asyncio.get_running_loop()
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read)

    @classmethod
    async def start(
        cls,
        mechanism: Mechanism,
        place: Place,
        limits: Limits,
        command: Sequence[str],
        *,
        channel: socket.socket | None = None,
    ) -> Confined:
        """Start a program in the working folder of a place. It has no input.

        Args:
            mechanism: what confines it.
            place: its folders.
            limits: what it may use. Its seconds are for whoever waits to keep.
            command: the program with its full path, and its arguments.
            channel: a socket that it inherits as descriptor number `channel.fileno()`.

        Raises:
            SandboxError: it could not be confined or started.
        """
        loop = asyncio.get_running_loop()
        commands_read, commands = os.pipe()
        reports_read, reports_write = os.pipe()
        output, output_write = os.pipe()
        with suppress(OSError):  # pipes may be short; then there is more to do
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _PIPE)
        kept = [] if channel is None else [channel.fileno()]
        inherited = (commands_read, reports_write, *kept)
        try:
            os.write(commands, stage_settings(mechanism, place, limits, kept))
            process = await asyncio.create_subprocess_exec(
                *stage_command(mechanism, place),
                str(commands_read),
                str(reports_write),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                cwd="/",
                env={"PATH": os.defpath},
                pass_fds=inherited,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            for descriptor in (commands, reports_read, output):
                os.close(descriptor)
            raise SandboxError(f"The sandbox cannot be started ({error}).") from error
        finally:
            for descriptor in (commands_read, reports_write, output_write):
                os.close(descriptor)
        reports = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reports), os.fdopen(reports_read, "rb")
        )
        confined = cls(process, commands, reports, transport, output, limits)
        try:
            report = await confined._report()
            if report != "started":
                await confined._finish()
                text = report.removeprefix("failed ") or confined.output.text().strip()
                raise SandboxError(f"The sandbox ({mechanism}) cannot be started: {text}")
        except asyncio.CancelledError:
            await confined.end()
            raise
        return confined

    async def wait(self) -> Ended:
        """Wait for its end, for as long as its limits let it run; then it is ended.

        Cancelled, it is ended as well.
        """
        try:
            async with asyncio.timeout(self.limits.seconds):
                ended = await self.ended()
        except TimeoutError:
            ended = Ended("time", (await self.end()).status)
        except asyncio.CancelledError:
            await self.end()
            raise
        return ended

    async def pause(self) -> bool:
        """End all that it started, and have it stand still; false: it has ended."""
        self._command(b"pause\n")
        report = await self._report()
        if report != "paused":
            await self._take(report)
        return report == "paused"

    def go(self) -> None:
        """Let it go on after a pause."""
        self._command(b"go\n")

    async def end(self) -> Ended:
        """End it, with all that it started."""
        return await asyncio.shield(asyncio.ensure_future(self._end()))

    def take_output(self) -> Output:
        """What was printed since this was asked the last time."""
        while self._read_once():
            pass
        output, self.output = self.output, Output(self.limits.output)
        return output

    async def _end(self) -> Ended:
        self._close_commands()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self.ended()
        except TimeoutError:
            # The stage hangs. Its death is that of its namespaces, or of its first child.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            return await self.ended()

    async def ended(self) -> Ended:
        """Wait for its end, however long that takes."""
        while self._ended is None:
            await self._take(await self._report())
        return self._ended

    async def _take(self, report: str) -> None:
        """Take the stage's report of the end; without one the stage itself was ended."""
        match report.split():
            case ["ended", reason, status] if reason in _EXCESSES:
                ended = Ended(cast("Reason", reason), int(status))
            case []:
                ended = Ended("lost", self._process.returncode or 0)
            case _:
                return
        await self._finish()
        self._ended = self._ended or ended

    async def _report(self) -> str:
        return (await self._reports.readline()).decode(errors="replace").strip()

    async def _finish(self) -> None:
        self._close_commands()
        await self._process.wait()
        while self._read_once():
            pass
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
        self._transport.close()

    def _command(self, text: bytes) -> None:
        if self._commands is not None:
            with suppress(BrokenPipeError):
                os.write(self._commands, text)

    def _close_commands(self) -> None:
        if self._commands is not None:
            os.close(self._commands)
            self._commands = None

    def _read(self) -> None:
        if self._read_once() and self._pipe is not None and self.output.size > _QUICK:
            # Who prints so much waits now and then, so that everybody else has their turn.
            self._loop.remove_reader(self._pipe)
            self._loop.call_later(0.002, self._read_again)

    def _read_again(self) -> None:
        if self._pipe is not None:
            self._loop.add_reader(self._pipe, self._read)

    def _read_once(self) -> bool:
        """Read a piece; false: there is nothing now, or never more."""
        if self._pipe is None:
            return False
        try:
            data = os.read(self._pipe, _PIPE)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._pipe)
            return False
        self.output.add(data)
        return True
