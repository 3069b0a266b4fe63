"""A connection to one MCP server: started when it is needed, and again when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import mcp_types as types
from mcp.client import Client, IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from oneiros import __version__
from oneiros.devices.mcp_config import HttpServer, Server
from oneiros.devices.mcp_tools import MOST_TOOLS, Definition, plain
from oneiros.devices.mcp_transport import Line, Sites, http_transport, stdio_transport
from oneiros.kernel.syscalls import OutcomeUnknownError
from oneiros.kernel.tools import Json, ToolError

START_SECONDS = 60.0  # to start, to agree on a version, and to list tools; npx may have to install
LONGEST_PAUSE = 60.0  # seconds between attempts to start a server that keeps dying

_MOST_PAGES = 200  # of a list of tools
_RELIST_SECONDS = 1.0  # between two lists that a server asks us to read
# Errors that mean that nobody knows what became of the call; the second is what the transport makes
# of an HTTP status.
_LOST = frozenset({types.CONNECTION_CLOSED, types.PARSE_ERROR, types.REQUEST_TIMEOUT})
_REFUSED_BY_STATUS = "Server returned an error response"
_HINTS = {
    "read_only_hint": "reads only",
    "destructive_hint": "may destroy",
    "idempotent_hint": "may be repeated",
    "open_world_hint": "reaches out",
}

Listed = Callable[[Server, list[Definition]], Awaitable[None]]


class McpConnection:
    """Calls to one server."""

    def __init__(
        self,
        server: Server,
        listed: Listed,
        *,
        clock: Callable[[], float] = time.monotonic,
        start_seconds: float = START_SECONDS,
        sites: Sites | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            server: how it is reached.
            listed: told the server's tools whenever it has listed them.
            clock: seconds.
            start_seconds: that the server may take until its tools are known.
            sites: says what an app may reach, if a person did: the app "mcp:NAME".
        """
        self._server = server
        self._sites = sites
        self._listed = listed
        self._clock = clock
        self._start_seconds = start_seconds
        self._starting = asyncio.Lock()
        self._link: _Link | None = None
        self._failures = 0  # one after the other, without a call that was answered
        self._not_before = 0.0
        self._reason = ""

    async def connect(self) -> None:
        """Start the server and list its tools, unless that is done.

        Raises:
            ToolError: it does not start, or it is too early to try again.
        """
        await self._connected()

    async def call(self, tool: str, arguments: Json, *, effects: bool) -> types.CallToolResult:
        """Call a tool. A call that is cancelled here is cancelled there.

        Args:
            tool: its name there.
            arguments: as its schema wants them.
            effects: whether the call may change anything.

        Raises:
            ToolError: the call failed or could not be made; OutcomeUnknownError where it may have
                had effects all the same.
        """
        try:
            json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:
            raise ToolError(f"The arguments cannot be sent as JSON: {error}.") from error
        link = await self._connected()
        request = types.CallToolRequest(
            params=types.CallToolRequestParams(name=tool, arguments=dict(arguments))
        )
        try:
            # Not `call_tool`: it checks results with the server's own regular expressions.
            result = await link.client.session.send_request(request, types.CallToolResult)
        except ValidationError as error:
            self._failures = 0
            raise self._lost("answered with something that is no result", effects) from error
        except MCPError as error:
            raise await self._failed(link, error, effects) from error
        self._failures = 0
        return result

    async def close(self) -> None:
        """End the server."""
        async with self._starting:
            if self._link is not None:
                await self._link.close()

    async def _connected(self) -> _Link:
        async with self._starting:
            link = self._link
            if link is None or link.over:
                if link is not None:
                    self._note(await link.ended())
                    self._link = None
                link = self._started()
            # Who waits may be cancelled; the server goes on starting for the next call.
            await link.started()
            if link.over:
                self._note(await link.ended())
                self._link = None
                raise ToolError(f"The server {self._server.name} did not start: it {self._reason}.")
            return link

    def _started(self) -> _Link:
        wait = self._not_before - self._clock()
        if wait > 0:
            raise ToolError(
                f"The server {self._server.name} is not running: it {self._reason}. It has failed "
                f"{self._failures} times and is not started again for {wait:.0f} seconds. Go on "
                "without it, or try later."
            )
        self._link = _Link(self._server, self._listed, self._start_seconds, self._sites)
        return self._link

    async def _failed(self, link: _Link, error: MCPError, effects: bool) -> ToolError:
        """What a call's failure is to its caller."""
        said = plain(error.message, 500)
        name = self._server.name
        if error.code in _LOST or said == _REFUSED_BY_STATUS or link.over:
            if link.over:
                return self._lost(await link.ended(), effects)
            status = link.line.http_status
            said = f"answered with HTTP status {status}" if status else f"broke off ({said})"
            return self._lost(said, effects)
        self._failures = 0
        if error.code == types.INVALID_REQUEST and said == "Session terminated":
            await link.close()
            return ToolError(f"The server {name} was restarted and did nothing: call it again.")
        return ToolError(f"The server {name} refused the call: {said} (error {error.code}).")

    def _lost(self, what: str, effects: bool) -> ToolError:
        text = f"The call was not answered: the server {self._server.name} {what}."
        if not effects:
            return ToolError(f"{text} Try again, or go on without it.")
        return OutcomeUnknownError(
            f"{text} Whether it had an effect is not known: find out before it is repeated."
        )

    def _note(self, reason: str) -> None:
        """Count an end that nobody asked for: the second in a row makes the next start wait."""
        self._reason = reason
        self._failures += 1
        pause = 0.0 if self._failures < 2 else min(2.0 ** (self._failures - 2), LONGEST_PAUSE)
        self._not_before = self._clock() + pause


class _Link:
    """One run of a server. A task of its own holds it, because it outlives the call that began it.

    Attributes:
        client: once it has started.
        line: what is known of the connection.
    """

    client: Client

    def __init__(
        self, server: Server, listed: Listed, start_seconds: float, sites: Sites | None
    ) -> None:
        # Its tracebacks tell of servers' mistakes, which are told to who calls them.
        logging.getLogger("mcp.client").setLevel(logging.CRITICAL)
        self.line = Line()
        self._server = server
        self._listed = listed
        self._sites = sites
        self._start_seconds = start_seconds
        self._ready = asyncio.Event()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._ready.set())

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._task.done() or self.line.ended.is_set()

    async def started(self) -> None:
        """Wait until the server can be called, or has ended."""
        await self._ready.wait()

    async def ended(self) -> str:
        """Wait until all is put away; why it ended: "ended with status 1: no such file"."""
        await asyncio.wait({self._task})
        line = self.line
        error = None if self._task.cancelled() else self._task.exception()
        if line.reason:
            what = line.reason
        elif line.http_status:
            what = f"answered with HTTP status {line.http_status}"
        elif isinstance(error, TimeoutError):
            what = f"did not answer within {self._start_seconds:g} seconds"
        elif line.status is not None:
            killed = f"was ended by signal {-line.status}"
            what, error = killed if line.status < 0 else f"ended with status {line.status}", None
        elif error is not None:
            what = "could not be reached or started"
        else:
            what = "ended"
        details = [line.last_words] if line.last_words else _leaves(error)
        return f"{what}: {'; '.join(details)}".rstrip(".: ") if details else what

    async def close(self) -> None:
        """End the server, and wait until it has."""
        self.line.ended.set()
        if not self._ready.is_set():
            self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        if isinstance(self._server, HttpServer):
            transport = http_transport(self._server, self.line, self._sites)
        else:
            transport = stdio_transport(self._server, self.line)
        client = Client(
            transport,
            client_info=types.Implementation(name="oneiros", version=__version__),
            message_handler=self._heard,
            cache=None,
        )
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._start_seconds):
                self.client = await stack.enter_async_context(client)
                await self._list()
            self._ready.set()
            follower = asyncio.create_task(self._follow())
            stack.push_async_callback(_cancelled, follower)
            ended = asyncio.create_task(self.line.ended.wait())
            stack.push_async_callback(_cancelled, ended)
            await asyncio.wait({follower, ended}, return_when=asyncio.FIRST_COMPLETED)
            if follower.done():
                follower.result()

    async def _heard(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._changed.set()

    async def _follow(self) -> None:
        """List the tools again when the server says that they have changed."""
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                with contextlib.suppress(MCPError, ValidationError, TimeoutError):
                    async with asyncio.timeout(self._start_seconds):
                        await self._list()
                await asyncio.sleep(_RELIST_SECONDS)
        finally:
            await _cancelled(listener)

    async def _listen(self) -> None:
        """Since 2026, servers tell of changes only to who listens."""
        tools = self.client.server_capabilities.tools
        if self.client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return
        if tools is None or not tools.list_changed:
            return
        # Where that fails the tools stay as they are until the next start.
        with contextlib.suppress(MCPError, SubscriptionLost):
            async with self.client.listen(tools_list_changed=True) as events:
                async for _ in events:
                    self._changed.set()

    async def _list(self) -> None:
        tools: list[Definition] = []
        cursor = None
        if self.client.server_capabilities.tools is None:
            await self._listed(self._server, [])
            return
        for _ in range(_MOST_PAGES):
            page = await self.client.list_tools(cursor=cursor)
            tools += map(_definition, page.tools)
            cursor = page.next_cursor
            if cursor is None or len(tools) > MOST_TOOLS:
                break
        await self._listed(self._server, tools)


async def _cancelled(task: asyncio.Task[object]) -> None:
    """Cancel a task and wait for its end, whatever that is."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _definition(tool: types.Tool) -> Definition:
    hints = tool.annotations
    said = [
        f"{text}: {'yes' if getattr(hints, name) else 'no'}"
        for name, text in _HINTS.items()
        if hints is not None and getattr(hints, name) is not None
    ]
    return Definition(tool.name, tool.description or "", tool.input_schema, tuple(said))


def _leaves(error: BaseException | None) -> list[str]:
    """What went wrong, out of groups of errors."""
    if error is None or isinstance(error, TimeoutError):
        return []
    if isinstance(error, BaseExceptionGroup):
        return [text for inner in error.exceptions for text in _leaves(inner)][:3]
    return [plain(str(error), 300) or type(error).__name__]
