"""An MCP server over streamable HTTP, of the official library: a program for tests.

It takes the port that the first argument names (0: any), and prints the one that it has.
"""

import asyncio
import os
import socket
import sys

import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer

server = MCPServer("over-http", log_level="ERROR")


@server.tool()
def token(ctx: Context) -> str:
    """Say the key that the client brought."""
    return ctx.headers["authorization"]


@server.tool()
def picture() -> Image:
    """Draw."""
    return Image(data=b"\x89PNG...", format="png")


@server.tool()
def flood() -> str:
    """Say far too much."""
    return "x" * 20_000_000


@server.tool()
async def sleep() -> str:
    """Take a while."""
    await asyncio.sleep(60)
    return "awake"


@server.tool()
def die() -> str:
    """Die."""
    os._exit(1)


@server.tool()
async def grow(ctx: Context) -> str:
    """Learn another tool."""
    server.add_tool(lambda: "new", name="sprout", description="Do something new.")
    await ctx.notify_tools_changed()
    return "grown"


listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(server.streamable_http_app(), log_level="error")
uvicorn.Server(config).run(sockets=[listener])
