"""The control socket: how a person's programs rule a running kernel.

A Unix socket in the data folder that only its user can open: not the model API, so that no key of
that API, and no web page, can answer a permission question.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import wraps
from pathlib import Path
from typing import Self

from pydantic import ValidationError, validate_call

from oneiros.errors import ControlError, OneirosError
from oneiros.kernel.control_client import is_running, peer_uid
from oneiros.kernel.control_messages import (
    LONGEST_REQUEST,
    SOCKET_NAME,
    Request,
    RequestId,
    end_line,
    error_line,
    event_line,
    parse_request,
    result_line,
    socket_address,
)

# A function of named arguments: a coroutine for one result, an async generator for a stream.
Method = Callable[..., Awaitable[object] | AsyncGenerator[object, None]]

MOST_REQUESTS = 64  # of one connection at a time
MOST_CONNECTIONS = 512
_UNSENT = 1 << 16  # bytes that may wait for a reader; then what makes them waits too
_CLOSING = 2.0  # seconds that answers under way have when the socket closes


class ControlServer:
    """Listens on the control socket of a data folder and carries out what its user asks for.

    Example:
        server = await ControlServer.open(folder, {"ps": list_processes})
        ...
        await server.close()
    """

    def __init__(self, folder: Path, methods: Mapping[str, Method]) -> None:
        """Use `open`."""
        self.path = folder / SOCKET_NAME
        self._methods = _Methods(methods)
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._inode = 0

    @classmethod
    async def open(cls, folder: Path, methods: Mapping[str, Method]) -> Self:
        """Listen in a folder that exists; what a dead kernel left behind is replaced.

        Raises ControlError where another kernel listens, or the socket cannot be made.
        """
        server = cls(folder, methods)
        listener = server._bind()
        server._server = await asyncio.start_unix_server(
            server._serve, sock=listener, limit=LONGEST_REQUEST
        )
        return server

    async def close(self) -> None:
        """Stop listening, end streams, let calls that are nearly done finish, and disconnect."""
        if self._server is None:
            return
        self._server.close()
        with suppress(FileNotFoundError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()
        await asyncio.gather(*(connection.end() for connection in self._connections))
        await self._server.wait_closed()
        self._server = None

    def _bind(self) -> socket.socket:
        """A socket that is the user's alone before anybody can find it."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise ControlError(f"{self.path} is no socket: move it away.")
        if is_running(self.path.parent):
            raise ControlError(f"Another kernel listens at {self.path}.")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        new = f"{SOCKET_NAME}.{os.getpid()}"
        try:
            with socket_address(self.path.parent, new) as address:
                Path(address).unlink(missing_ok=True)
                listener.bind(address)
                Path(address).chmod(0o600)
                listener.listen(MOST_CONNECTIONS)
                listener.setblocking(False)
                Path(address).rename(Path(address).with_name(SOCKET_NAME))
            self._inode = self.path.lstat().st_ino
        except OSError as error:
            listener.close()
            raise ControlError(f"{self.path} cannot be made: {error.strerror}.") from error
        return listener

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer, self._methods)
        if len(self._connections) >= MOST_CONNECTIONS:
            await connection.refuse(f"{MOST_CONNECTIONS} connections are open already.")
        elif peer_uid(writer.get_extra_info("socket")) != os.getuid():
            await connection.refuse("This kernel runs for another user.")
        else:
            self._connections.add(connection)
            try:
                await connection.serve()
            finally:
                self._connections.discard(connection)


class _Methods:
    """Methods by name, their arguments checked; what checks is made when it is first needed."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._checked: dict[str, Method] = {}

    def checked(self, name: str) -> Method:
        """A method that raises pydantic.ValidationError when it is called with other arguments.

        Raises ControlError where there is none.
        """
        if name not in self._methods:
            known = ", ".join(sorted(self._methods))
            raise ControlError(f"There is no method {name!r}. There are {known}.")
        if name not in self._checked:
            self._checked[name] = _checked(self._methods[name])
        return self._checked[name]


class _Connection:
    """A client: its requests under way, and the only place that writes to it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        methods: _Methods,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._methods = methods
        self._streams: dict[RequestId, asyncio.Task[None]] = {}
        self._calls: dict[RequestId, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        writer.transport.set_write_buffer_limits(high=_UNSENT)

    async def serve(self) -> None:
        """Until the client closes: then its streams end, and its calls are carried out still."""
        try:
            while line := await self._next_line():
                await self._take(line)
        finally:
            for stream in self._streams.values():
                stream.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            self._writer.close()

    async def refuse(self, message: str) -> None:
        """Say why not, and hang up."""
        await self._write(error_line(None, ControlError(message)))
        # Closing with something unread would take the answer from the client.
        with suppress(TimeoutError, OSError):
            self._writer.write_eof()
            async with asyncio.timeout(_CLOSING):
                while await self._reader.read(_UNSENT):
                    pass
        self._writer.close()

    async def end(self) -> None:
        """Disconnect, with a moment for calls whose answers are nearly there."""
        for stream in self._streams.values():
            stream.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_CLOSING)
        for task in self._under_way:
            task.cancel()
        self._writer.transport.abort()

    @property
    def _under_way(self) -> list[asyncio.Task[None]]:
        return [*self._streams.values(), *self._calls.values()]

    async def _next_line(self) -> bytes:
        """The next line; nothing at the end, and where no line's end is to be found."""
        try:
            line = await self._reader.readline()
        except ValueError:
            await self.refuse(f"A line is longer than {LONGEST_REQUEST:,} bytes.")
            return b""
        except ConnectionError:
            return b""
        return line if line.endswith(b"\n") else b""

    async def _take(self, line: bytes) -> None:
        number: RequestId | None = None
        try:
            request = parse_request(line)
            number = request.id
            if request.method == "cancel":
                await self._write(result_line(number, self._cancel(request)))
            else:
                self._begin(request)
        except ControlError as error:
            await self._write(error_line(number, error))

    def _begin(self, request: Request) -> None:
        method = self._methods.checked(request.method)
        if request.id in self._streams or request.id in self._calls:
            raise ControlError(f"A request {request.id!r} is under way already.")
        if len(self._under_way) >= MOST_REQUESTS:
            raise ControlError(f"{MOST_REQUESTS} requests of this connection are under way.")
        try:
            outcome = method(**request.params)
        except ValidationError as error:
            raise ControlError(f"{request.method}: {_mistakes(error)}") from None
        if isinstance(outcome, AsyncGenerator):
            tasks, work = self._streams, self._stream(request.id, outcome)
        else:
            tasks, work = self._calls, self._call(request.id, outcome)
        task = asyncio.create_task(work)
        tasks[request.id] = task
        task.add_done_callback(lambda task: self._done(tasks, request.id, task))

    async def _call(self, number: RequestId, outcome: Awaitable[object]) -> None:
        try:
            line = result_line(number, await outcome)
        except OneirosError as error:
            line = error_line(number, error)
        except asyncio.CancelledError:
            await self._write(error_line(number, ControlError("The request was cancelled.")))
            raise
        await self._write(line)

    async def _stream(self, number: RequestId, outcome: AsyncGenerator[object, None]) -> None:
        try:
            async with aclosing(outcome) as events:
                async for event in events:
                    await self._write(event_line(number, event))
            line = end_line(number)
        except OneirosError as error:
            line = error_line(number, error)
        except asyncio.CancelledError:
            await self._write(end_line(number, cancelled=True))
            raise
        await self._write(line)

    def _done(
        self,
        tasks: dict[RequestId, asyncio.Task[None]],
        number: RequestId,
        task: asyncio.Task[None],
    ) -> None:
        del tasks[number]
        if task.cancelled() or (failure := task.exception()) is None:
            return
        # A mistake of ours: the loop's handler logs it, and the client is told that it was one.
        text = f"The kernel made a mistake: {type(failure).__name__}: {failure}"
        self._writer.write(error_line(number, ControlError(text)))
        task.get_loop().call_exception_handler(
            {"message": "a method of the control socket failed", "exception": failure}
        )

    def _cancel(self, request: Request) -> bool:
        """Whether there was something to cancel."""
        number = request.params.get("id")
        if not isinstance(number, int | str) or len(request.params) != 1:
            raise ControlError('cancel: its params are {"id": the id of a request}.')
        task = self._streams.get(number) or self._calls.get(number)
        return task is not None and task.cancel()

    async def _write(self, line: bytes) -> None:
        """Send a line once there is room; to nobody, if the client is gone."""
        async with self._writing:
            if self._writer.is_closing():
                return
            self._writer.write(line)
            with suppress(ConnectionError):
                await self._writer.drain()


def _checked(method: Method) -> Method:
    # A plain function: pydantic would check a coroutine's arguments only once it is awaited.
    @wraps(method)
    def call(**params: object) -> Awaitable[object] | AsyncGenerator[object, None]:
        return method(**params)

    return validate_call(config={"strict": True})(call)


def _mistakes(error: ValidationError) -> str:
    """What is wrong with a request's params, in a sentence."""
    parts = (
        f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}" for mistake in error.errors()
    )
    return "; ".join(parts) + "."
