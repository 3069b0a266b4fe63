"""Oneiros as an MCP server: its tools for other programs, over stdio and streamable HTTP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Receive, Scope, Send

from oneiros import __version__
from oneiros.errors import OneirosError
from oneiros.kernel.contract import Effect
from oneiros.kernel.tools import Tool, ToolResult
from oneiros.server.mcp_endpoint import Sessions, owner_of
from oneiros.server.settings import LARGEST_BODY
from oneiros.server.tool_calls import Notice, ToolCalls

_PAGE = 200  # tools
_MOST_SESSIONS = 1_000
_IDLE_SECONDS = 30 * 60.0
_INSTRUCTIONS = (
    "Tools of Oneiros on the user's machine. Calls that change something outside of it wait until "
    "the user agrees."
)
_Context = ServerRequestContext[object, object]


def mcp_server(calls: ToolCalls) -> Server[object]:
    """A server of the mcp package whose tools are ours, called through `calls`.

    Whose call it is says `owner_of`; over stdio, the control socket, which is its user's alone.
    """

    async def list_tools(
        context: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        tools = await calls.tools()
        cursor = params.cursor if params is not None else None
        start = int(cursor) if cursor is not None and cursor.isdecimal() else 0
        more = str(start + _PAGE) if len(tools) > start + _PAGE else None
        page = [_described(tool) for tool in tools[start : start + _PAGE]]
        return types.ListToolsResult(tools=page, next_cursor=more)

    async def call_tool(
        context: _Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        owner = owner_of(getattr(context.request, "scope", {}))
        notices = 0
        try:
            async with aclosing(calls.call(owner, params.name, params.arguments or {})) as steps:
                async for step in steps:
                    if isinstance(step, Notice):
                        notices += 1
                        await context.session.report_progress(notices, message=step.text)
                    else:
                        return _result(step)
        except OneirosError as error:
            return _failure(str(error))
        return _failure("The call ended without a result.")

    return Server(
        "oneiros",
        title="Oneiros",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        # No argument of ours travels in HTTP headers; without this, tools are listed at each call.
        get_tool_input_schema=lambda name: None,
    )


async def serve_stdio(server: Server[object]) -> None:
    """Serve one client over standard input and output, until the input ends."""
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


@asynccontextmanager
async def http_sessions(server: Server[object]) -> AsyncIterator[Sessions]:
    """Serve clients over streamable HTTP, until the block ends.

    A session is its principal's only.
    """
    manager = StreamableHTTPSessionManager(
        server,
        session_idle_timeout=_IDLE_SECONDS,
        max_sessions=_MOST_SESSIONS,
        max_request_body_size=LARGEST_BODY,
    )

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        token = AccessToken(token="", client_id=owner_of(scope), scopes=[])
        scope = {**scope, "user": AuthenticatedUser(token)}
        await manager.handle_request(scope, receive, send)

    # It tells of its own beginning and end as if they were the server's.
    logging.getLogger("mcp.server.streamable_http_manager").setLevel(logging.WARNING)
    async with manager.run():
        yield answer


def _described(tool: Tool) -> types.Tool:
    contract = tool.contract
    schema = {"type": "object", **tool.parameters}
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=schema,
        annotations=types.ToolAnnotations(
            read_only_hint=not contract.effects,
            destructive_hint=bool(contract.effects & {Effect.DELETE, Effect.EXECUTE, Effect.SPEND}),
            idempotent_hint=contract.idempotent,
            open_world_hint=bool(contract.sinks) or Effect.SEND in contract.effects,
        ),
    )


def _result(result: ToolResult) -> types.CallToolResult:
    data = result.data if isinstance(result.data, dict) else None
    content = types.TextContent(type="text", text=result.text)
    return types.CallToolResult(content=[content], structured_content=data)


def _failure(text: str) -> types.CallToolResult:
    content = types.TextContent(type="text", text=text)
    return types.CallToolResult(content=[content], is_error=True)
