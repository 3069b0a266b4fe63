"""Clients of a running kernel's control socket: one for commands, one for asyncio.

Each request has a connection of its own, so that requests do not wait for each other, and that
leaving a stream is closing its connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneiros.errors import ControlError
from oneiros.kernel.control_messages import (
    LONGEST_ANSWER,
    LONGEST_REQUEST,
    Request,
    parse_answer,
    request_line,
    socket_address,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_ONLY = 1  # the id of the only request of a connection
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: the kernel of Linux's `struct ucred`


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end of a Unix socket, as the operating system knows it."""
    return _peer(connection)[1]


def _peer(connection: socket.socket) -> tuple[int, int]:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def connect(folder: Path) -> socket.socket:
    """A connection to the kernel that runs on a data folder.

    Raises ControlError where none runs, or it is somebody else's.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(folder) as address:
            connection.connect(address)
        if peer_uid(connection) != os.getuid():
            raise ControlError(f"The kernel on {folder} runs for another user.")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        connection.close()
        raise ControlError(f"No kernel runs on {folder}: `oneiros` starts one.") from error
    except OSError as error:
        connection.close()
        raise ControlError(f"The kernel on {folder} cannot be reached: {error}.") from error
    except ControlError:
        connection.close()
        raise
    return connection


def is_running(folder: Path) -> bool:
    """Whether a kernel of ours runs on a data folder."""
    return kernel_pid(folder) is not None


def kernel_pid(folder: Path) -> int | None:
    """The operating system's pid of the kernel of ours that runs on a data folder; None: none."""
    try:
        with connect(folder) as connection:
            return _peer(connection)[0]
    except ControlError:
        return None


class ControlClient:
    """Asks the kernel that runs on a data folder, and waits for its answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, method: str, **params: object) -> Any:
        """One request's result. Raises ControlError, or the error that the kernel answered."""
        with self._ask(method, params) as answers:
            return parse_answer(answers.readline(LONGEST_ANSWER)).get("result")

    def stream(self, method: str, **params: object) -> Generator[Any, None, None]:
        """One request's events as they come; closing the generator cancels it. Raises as `call`."""
        with self._ask(method, params) as answers:
            while "end" not in (answer := parse_answer(answers.readline(LONGEST_ANSWER))):
                yield answer["event"]

    @contextmanager
    def _ask(self, method: str, params: dict[str, object]) -> Iterator[Any]:
        line = _checked_line(method, params)
        with connect(self.folder) as connection, connection.makefile("rb") as answers:
            try:
                connection.sendall(line)
                yield answers
            except ConnectionError as error:
                raise _broken_off(error) from error


class AsyncControlClient:
    """The same for asyncio."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def call(self, method: str, **params: object) -> Any:
        """One request's result. Raises ControlError, or the error that the kernel answered."""
        async with self._ask(method, params) as answers:
            return parse_answer(await _line_of(answers)).get("result")

    async def stream(self, method: str, **params: object) -> AsyncGenerator[Any, None]:
        """One request's events as they come; closing the generator cancels it. Raises as `call`."""
        async with self._ask(method, params) as answers:
            while "end" not in (answer := parse_answer(await _line_of(answers))):
                yield answer["event"]

    @asynccontextmanager
    async def _ask(
        self, method: str, params: dict[str, object]
    ) -> AsyncIterator[asyncio.StreamReader]:
        line = _checked_line(method, params)
        connection = connect(self.folder)
        connection.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LONGEST_ANSWER)
        try:
            writer.write(line)
            await writer.drain()
            yield reader
        except ConnectionError as error:
            raise _broken_off(error) from error
        finally:
            writer.close()


async def _line_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError:
        raise ControlError(
            f"The kernel's answer is longer than {LONGEST_ANSWER:,} bytes."
        ) from None


def _checked_line(method: str, params: dict[str, object]) -> bytes:
    line = request_line(Request(_ONLY, method, params))
    if len(line) > LONGEST_REQUEST:
        raise ControlError(
            f"The request takes {len(line):,} bytes, and the kernel reads {LONGEST_REQUEST:,}: "
            "send less, or put it into a file on the disk."
        )
    return line


def _broken_off(error: ConnectionError) -> ControlError:
    return ControlError(f"The connection to the kernel broke off: {error.strerror or error}.")
