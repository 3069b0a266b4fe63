"""How messages travel between us and an MCP server, with bounds on everything that it sends.

The transports of the `mcp` package trust servers: a line without an end fills the memory, and what
a server writes to standard error goes to our terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx
import httpx2
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, jsonrpc_message_adapter
from pydantic import ValidationError

from oneiros.devices.egress import SYSTEM_FILE, Egress
from oneiros.devices.mcp_config import HttpServer, StdioServer
from oneiros.devices.mcp_tools import plain
from oneiros.kernel.tools import ToolError

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

LONGEST_MESSAGE = 16 << 20  # bytes
MOST_NOISE = 1 << 20  # bytes of lines that are no messages
STOP_SECONDS = 2.0  # for a program to end by itself, and once more after SIGTERM

_CONNECT_SECONDS = 30.0
_SILENCE_SECONDS = 300.0  # in the midst of an answer over HTTP
_REMEMBERED = 2_000  # characters of standard error
_INSIDE = (".home.arpa", ".internal", ".lan", ".local", ".localhost")  # networks of their own
# Nobody reads these, and a server may send any number of them.
_IGNORED = frozenset({"notifications/message", "notifications/progress"})


# The sites that an app may reach; None: a person did not say.
Sites = Callable[[str], Sequence[str] | None]


class Line:
    """The state of a connection to a server, and what is known of its end."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()  # nothing can be sent any more
        self.reason = ""  # why, as what the server did, as far as the transport knows
        self.status: int | None = None  # of a program that ended; below 0: a signal
        self.http_status: int | None = None  # of the last message that was refused by it
        self._said = ""

    def end(self, reason: str) -> None:
        """Note that the connection is over; the first reason counts."""
        self.reason = self.reason or reason
        self.ended.set()

    def hear(self, data: bytes) -> None:
        """Remember the end of what a program says on standard error."""
        self._said = (self._said + data.decode("utf-8", "replace"))[-_REMEMBERED:]

    @property
    def last_words(self) -> str:
        """The last lines of standard error, without those that go on with others: of stacks."""
        lines = [line for line in self._said.splitlines() if line.strip() and not line[0].isspace()]
        return plain(" / ".join(lines[-3:]), 300)


@asynccontextmanager
async def stdio_transport(server: StdioServer, line: Line) -> AsyncGenerator[TransportStreams]:
    """Start a program and exchange a line of JSON per message with it.

    It gets a reduced environment (PATH, HOME and the like) and what mcp.json gives it. Its end is
    bounded: its input is closed, then it is asked to end, then it and its children are killed.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        server.command,
        *server.args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=get_default_environment() | dict(server.env),
        cwd=server.cwd,
        limit=LONGEST_MESSAGE,
        start_new_session=True,
    )
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, to_send = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read, process, incoming, line)
        tasks.start_soon(_write, process, to_send, line)
        tasks.start_soon(_hear, process, line)
        try:
            yield received, outgoing
        finally:
            with anyio.CancelScope(shield=True):
                received.close()
                outgoing.close()
                # One that breaks the protocol is not waited for: it may be writing without end.
                await _stop(process, patient=not line.reason)
                line.status = process.returncode
                # Pipes that its children hold, or that nobody has read to the end, stay open
                # otherwise, and nothing public closes them.
                if (transport := getattr(process, "_transport", None)) is not None:
                    transport.close()
            tasks.cancel_scope.cancel()


async def _read(
    process: asyncio.subprocess.Process,
    incoming: anyio.abc.ObjectSendStream[SessionMessage | Exception],
    line: Line,
) -> None:
    assert process.stdout is not None
    noise = 0
    async with incoming:
        try:
            while text := await process.stdout.readline():
                message = _message(text)
                if message is None:
                    noise += len(text)
                    if text.lstrip().startswith(b'{"jsonrpc"'):
                        line.end("sent a message that is not JSON-RPC")
                    elif noise > MOST_NOISE:
                        line.end(f"printed more than {MOST_NOISE:,} bytes that are no messages")
                    if line.ended.is_set():
                        return
                elif not _is_ignored(message):
                    await incoming.send(message)
        except ValueError:  # of a line above the limit
            line.end(f"sent a line longer than {LONGEST_MESSAGE:,} bytes")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the session is over
        finally:
            line.end("")


def _message(text: bytes) -> SessionMessage | None:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(text, by_name=False))
    except ValidationError:
        return None


def _is_ignored(message: SessionMessage) -> bool:
    inner = message.message
    return isinstance(inner, JSONRPCNotification) and inner.method in _IGNORED


async def _write(
    process: asyncio.subprocess.Process,
    to_send: anyio.abc.ObjectReceiveStream[SessionMessage],
    line: Line,
) -> None:
    assert process.stdin is not None
    async with to_send:
        async for message in to_send:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            if process.stdin.is_closing():
                return
            try:
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
            except OSError:
                line.end("")
                return


async def _hear(process: asyncio.subprocess.Process, line: Line) -> None:
    assert process.stderr is not None
    while data := await process.stderr.read(1 << 16):
        line.hear(data)


async def _stop(process: asyncio.subprocess.Process, *, patient: bool) -> None:
    """End a program: by the end of its input, by SIGTERM, by SIGKILL."""
    assert process.stdin is not None
    process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL) if patient else (signal.SIGKILL,):
        if process.returncode is not None or (patient and await _ended(process)):
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> bool:
    """Whether a program ends soon. Its pipes may stay open: its children inherited them."""
    for _ in range(round(STOP_SECONDS / 0.02)):
        if process.returncode is not None:
            return True
        await asyncio.sleep(0.02)
    return process.returncode is not None


@asynccontextmanager
async def http_transport(
    server: HttpServer, line: Line, sites: Sites | None = None
) -> AsyncGenerator[TransportStreams]:
    """Exchange messages with a server over streamable HTTP.

    Redirects are followed within its origin only, and connections go where the guard of the
    network lets them: to the address that the person gave, and to a private one only if it looks
    like that, has a port, or `sites` has it.
    """

    async def bound(response: httpx2.Response) -> None:
        if response.request.method == "POST":
            line.http_status = response.status_code if response.status_code >= 400 else None
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.StreamError("the answer is compressed, which was not asked for")
        # Streams of events may go on for ever; the length of each event has a bound of its own.
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Bounded(response.stream)

    client = httpx2.AsyncClient(
        headers={"accept-encoding": "identity", **server.headers},
        timeout=httpx2.Timeout(_CONNECT_SECONDS, read=_SILENCE_SECONDS),
        event_hooks={"response": [bound]},
        transport=_Guarded(server, sites),
    )
    async with (
        client,
        streamable_http_client(
            server.url, http_client=client, max_sse_event_size=LONGEST_MESSAGE
        ) as streams,
    ):
        try:
            yield streams
        finally:
            line.end("")


class _Guarded(httpx2.AsyncBaseTransport):
    """Connections to addresses that the guard looked up and allowed."""

    def __init__(self, server: HttpServer, sites: Sites | None) -> None:
        self._app = f"mcp:{server.name}"
        self._own = _own_sites(server.url)
        self._sites = sites
        self._egress = Egress(self._allowed, where=SYSTEM_FILE)
        self._inner = httpx2.AsyncHTTPTransport()

    def _allowed(self, app: str) -> Sequence[str]:
        given = None if self._sites is None else self._sites(app)
        return self._own if given is None else given

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        try:
            addresses = await self._egress.addresses(self._app, httpx.URL(str(url)))
        except ToolError as error:
            raise httpx2.ConnectError(str(error)) from error
        for address in addresses:
            sent = httpx2.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,  # with the name of the host
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": url.host},
            )
            try:
                return await self._inner.handle_async_request(sent)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise httpx2.ConnectError(f"{url.host} has no address")

    async def aclose(self) -> None:
        await self._inner.aclose()


def _own_sites(address: str) -> list[str]:
    """What the person's address allows, as a list of sites (`egress.py`)."""
    url = httpx.URL(address)
    host = url.raw_host.decode("ascii").lower()
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    inside = ":" in host or "." not in host or host.endswith(_INSIDE)
    if url.port is None and not inside and not host.replace(".", "").isdecimal():
        return [host]
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]


class _Bounded(httpx2.AsyncByteStream):
    """A body that is an error beyond `LONGEST_MESSAGE`."""

    def __init__(self, stream: httpx2.SyncByteStream | httpx2.AsyncByteStream) -> None:
        assert isinstance(stream, httpx2.AsyncByteStream)
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for chunk in self._stream:
            length += len(chunk)
            if length > LONGEST_MESSAGE:
                raise httpx2.StreamError(f"the answer is longer than {LONGEST_MESSAGE:,} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
