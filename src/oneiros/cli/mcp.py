"""`oneiros mcp`: tools of others' MCP servers, and ours for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oneiros.cli import options, output

if TYPE_CHECKING:
    from oneiros.devices.mcp_client import McpServers
    from oneiros.devices.mcp_config import Server

EXAMPLE = "oneiros mcp add files npx -y @modelcontextprotocol/server-filesystem ~/notes"

app = typer.Typer(
    help="Use tools of MCP servers (add, list, remove), and offer ours to others (serve).",
    no_args_is_help=True,
)

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What it is called here.", show_default=False)
]
_Pairs = list[str] | None


@app.command(
    "add", epilog=f"Example: {EXAMPLE}", context_settings={"allow_interspersed_args": False}
)
def add(
    name: _Name,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND...",
            help="A program and its arguments, or the address of a server: https://...",
            show_default=False,
        ),
    ],
    env: Annotated[
        _Pairs,
        typer.Option(
            metavar="NAME=VALUE", help="A variable for the program; may be given several times."
        ),
    ] = None,
    header: Annotated[
        _Pairs,
        typer.Option(
            metavar="NAME:VALUE", help="A header for the address; may be given several times."
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Start it once, and see which tools it has.")] = True,
) -> None:
    """Write a server into mcp.json. Options come before NAME.

    A running kernel uses it at once. Every call of its tools is asked about, until
    `oneiros tools contract` says what a tool may do."""
    from oneiros.devices.mcp_config import HttpServer, StdioServer, add_server
    from oneiros.model.folders import data_folder

    is_address = len(command) == 1 and "://" in command[0]
    if is_address and env:
        raise typer.BadParameter("--env is for programs; an address takes --header")
    if not is_address and header:
        raise typer.BadParameter("--header is for addresses; a program takes --env")
    server: Server
    if is_address:
        server = HttpServer(name, command[0], _pairs(header, ":", "--header"))
    else:
        # A kernel that runs in another folder has to find it too.
        program = str(Path(command[0]).absolute()) if "/" in command[0] else command[0]
        server = StdioServer(name, program, tuple(command[1:]), _pairs(env, "=", "--env"))
    folder = data_folder()
    add_server(folder, server)
    if not check:
        return
    servers = _asked(name)
    if name in servers.failures:
        output.say(f"{name} is in {folder / 'mcp.json'}, but does not work yet:")
        output.say(servers.failures[name])
        raise typer.Exit(1)
    for tool in _tools_of(servers, name):
        output.say(tool)
    for left_out in servers.left_out.get(name, ()):
        output.say(f"left out: {left_out.name}: {left_out.reason}")


@app.command("list", epilog="Example: oneiros mcp list --check")
def list_servers(
    check: Annotated[
        bool, typer.Option("--check", help="Start them, and see whether they work.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List the servers of mcp.json. Environments and headers are not shown: they hold secrets."""
    from oneiros.devices.mcp_client import McpServers
    from oneiros.model.folders import data_folder

    folder = data_folder()
    servers = _asked() if check else McpServers(folder)
    rows = [
        {
            "name": name,
            "address": _address(server),
            "tools": _tools_of(servers, name) if servers.is_listed(name) else None,
            "left_out": {one.name: one.reason for one in servers.left_out.get(name, ())},
            "failure": servers.failures.get(name),
        }
        for name, server in servers.servers.items()
    ]
    if json:
        output.write_json(rows)
        return
    if not rows:
        output.say(
            f"There are no MCP servers in {folder / 'mcp.json'}: `oneiros mcp add` adds one."
        )
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("name", "tools", "address", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        tools = "?" if row["tools"] is None else str(len(row["tools"]))
        table.add_row(
            Text(str(row["name"])),
            tools,
            Text(output.one_line(str(row["failure"] or row["address"]))),
        )
    output.stdout().print(table)


@app.command("remove", epilog="Example: oneiros mcp remove files")
def remove(name: _Name) -> None:
    """Take a server out of mcp.json. A running kernel ends it."""
    from oneiros.devices.mcp_config import remove_server
    from oneiros.model.folders import data_folder

    remove_server(data_folder(), name)
    output.say(f"{name} is removed.")


@app.command("serve", epilog="Example: oneiros mcp serve")
def serve() -> None:
    """Offer the tools of the running kernel over standard input and output.

    For programs that start MCP servers: give them the command `oneiros mcp serve`. Where
    `oneiros` runs, programs that reach servers by an address find one at its /mcp."""
    import asyncio

    from oneiros.kernel.control_client import connect
    from oneiros.model.folders import data_folder
    from oneiros.server.mcp_server import mcp_server, serve_stdio
    from oneiros.server.tool_calls import ControlCalls

    folder = data_folder()
    connect(folder).close()  # says at once where no kernel runs
    asyncio.run(serve_stdio(mcp_server(ControlCalls(folder))))


def _asked(name: str | None = None) -> McpServers:
    """The servers after each (or one) was started once and asked for its tools."""
    import asyncio

    from oneiros.devices.mcp_client import McpServers
    from oneiros.model.folders import data_folder

    async def ask() -> McpServers:
        servers = McpServers(data_folder())
        try:
            await servers.discover(None if name is None else [name], again=True)
        finally:
            await servers.close()
        return servers

    return asyncio.run(ask())


def _tools_of(servers: McpServers, name: str) -> list[str]:
    return [known.name for known in servers.known.values() if known.server == name]


def _address(server: Server) -> str:
    from oneiros.devices.mcp_config import HttpServer

    if isinstance(server, HttpServer):
        return server.url
    return " ".join((server.command, *server.args))


def _pairs(texts: _Pairs, separator: str, option: str) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        name, found, value = text.partition(separator)
        if not found or not name.strip():
            raise typer.BadParameter(f"{option}: write NAME{separator}VALUE")
        pairs[name.strip()] = value.strip()
    return pairs
