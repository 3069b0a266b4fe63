"""Where the HTTP server speaks MCP: /mcp, behind the same keys and checks as everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oneiros.server.keys import LOCAL, Principal
from oneiros.server.tool_calls import ToolCalls

ANYBODY = "http"
"""The kernel's principal for requests that need no key."""

Sessions = Callable[[Scope, Receive, Send], Awaitable[None]]


class McpEndpoint:
    """An ASGI app that speaks MCP over streamable HTTP; requests come with their principal.

    There is no stream without a request (a GET is refused): it would have nothing to say, and would
    keep the server from ending. The library behind it is loaded when the first client comes.
    """

    def __init__(self, calls: ToolCalls) -> None:
        """Offer these tools. `close` ends all sessions."""
        self._calls = calls
        self._starting = asyncio.Lock()
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._sessions: Sessions | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "DELETE"):
            headers = {"Allow": "POST, DELETE"}
            await Response(status_code=405, headers=headers)(scope, receive, send)
            return
        async with self._starting:
            sessions = self._sessions or await self._started()
        await sessions(scope, receive, send)

    async def close(self) -> None:
        """End all sessions."""
        self._stop.set()
        if self._running is not None:
            await self._running

    async def _started(self) -> Sessions:
        # It takes a second, and others are being answered.
        await asyncio.to_thread(import_module, "oneiros.server.mcp_server")
        ready: asyncio.Future[Sessions] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run(ready))
        self._sessions = await ready
        return self._sessions

    async def _run(self, ready: asyncio.Future[Sessions]) -> None:
        from oneiros.server.mcp_server import http_sessions, mcp_server

        async with http_sessions(mcp_server(self._calls)) as sessions:
            ready.set_result(sessions)
            await self._stop.wait()


def owner_of(scope: MutableMapping[str, Any]) -> str:
    """The kernel's principal for a request, by what `Authentication` found out.

    Without keys everybody on this machine may ask, and they are not its user: they get a principal
    of their own, with files of its own. What the user's own programs may do, they do over stdio.
    """
    principal = scope.get("state", {}).get("principal", LOCAL)
    assert isinstance(principal, Principal)
    return ANYBODY if principal == LOCAL else principal.id
