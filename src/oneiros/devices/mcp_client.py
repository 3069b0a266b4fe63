"""MCP servers as devices: their tools are tools of ours, and nothing that they say is trusted."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from oneiros.devices.contracts import FILE as CONTRACTS_FILE
from oneiros.devices.contracts import (
    ContractError,
    Entry,
    conservative,
    contract_of,
    read_contracts,
)
from oneiros.devices.egress import SYSTEM_FILE, SiteList
from oneiros.devices.mcp_config import FILE as MCP_FILE
from oneiros.devices.mcp_config import Server, fingerprint, read_servers
from oneiros.devices.mcp_tools import Adopted, Definition, LeftOut, adopt, named
from oneiros.errors import OneirosError
from oneiros.kernel.contract import Contract
from oneiros.kernel.tools import CallContext, Json, Tool, ToolError, ToolResult

if TYPE_CHECKING:
    from oneiros.devices.mcp_connection import McpConnection
    from oneiros.devices.mcp_results import FileStore

_REREAD_SECONDS = 1.0
_FOLDER = "mcp"  # in the data folder: what servers listed when they ran last
_log = logging.getLogger(__name__)
_LISTING: TypeAdapter[list[Definition]] = TypeAdapter(list[Definition])


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool of a server, with the name and the contract that it has here."""

    name: str
    server: str
    adopted: Adopted
    contract: Contract
    problem: str = ""  # why the contracts file's entry does not count


class McpServers:
    """The servers of a data folder. They start when they are needed, and end with `close`.

    Attributes:
        failures: why a server's tools are not known, by its name.
        left_out: tools that are not offered, with reasons, by server.
    """

    def __init__(
        self,
        folder: Path,
        *,
        files: Callable[[str], FileStore] | None = None,
        reserved: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read which servers there are; starts none.

        Args:
            folder: the data folder.
            files: the disk of a principal, for images and other files; None: they are not kept.
            reserved: names that other tools have; asked when names are given.
            clock: seconds.

        Raises:
            McpConfigError, ContractError: a file is malformed.
        """
        self._folder = folder
        self._sites = SiteList(folder / SYSTEM_FILE)
        self._files = files
        self._reserved = reserved
        self._clock = clock
        self._servers: dict[str, Server] = {}
        self._entries: dict[str, Entry] = {}
        self._connections: dict[str, McpConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._listed: dict[str, list[Adopted]] = {}
        self._known: dict[str, ServerTool] | None = None  # None: names are to be given anew
        self._tools: dict[str, Tool] = {}
        self.failures: dict[str, str] = {}
        self.left_out: dict[str, list[LeftOut]] = {}
        self._read_at = clock()
        self._stamp = self._stamp_now()
        self._read()

    @property
    def servers(self) -> Mapping[str, Server]:
        """The servers by name."""
        return self._servers

    @property
    def known(self) -> Mapping[str, ServerTool]:
        """All tools that are known, by name."""
        if self._known is None:
            self._known = self._named()
            self._tools = {name: self._tool(known) for name, known in self._known.items()}
        return self._known

    def tools(self) -> Mapping[str, Tool]:
        """The tools by name, as far as they are known now: servers change theirs.

        Changes of mcp.json and contracts.json are noticed within a second.
        """
        if self._clock() - self._read_at >= _REREAD_SECONDS:
            self._read_at = self._clock()
            if (stamp := self._stamp_now()) != self._stamp:
                self._stamp = stamp
                try:
                    self._read()
                except OneirosError as error:
                    _log.warning("%s What was read before it counts still.", error)
        return self._tools if self.known else {}

    def is_listed(self, server: str) -> bool:
        """Whether a server's tools are known."""
        return server in self._listed

    async def discover(
        self, servers: Collection[str] | None = None, *, again: bool = False
    ) -> None:
        """Start the servers whose tools are not known yet and ask them, all at once.

        Servers that fail are in `failures`; the others' tools are known then.

        Args:
            servers: which; None: all.
            again: ask those too whose tools are known from an earlier run.
        """
        asked = [
            name
            for name in self._servers
            if (servers is None or name in servers) and (again or name not in self._listed)
        ]

        async def ask(name: str) -> None:
            try:
                await (await self._connection(name)).connect()
            except ToolError as error:
                self.failures[name] = str(error)

        await asyncio.gather(*map(ask, asked))

    async def close(self) -> None:
        """End all servers."""
        ending = [connection.close() for connection in self._connections.values()]
        await asyncio.gather(*ending, *self._closing)

    def _read(self) -> None:
        """Take what the files say, all of it or nothing."""
        entries = read_contracts(self._folder)
        servers = {server.name: server for server in read_servers(self._folder)}
        for name, server in self._servers.items():
            if servers.get(name) != server:
                for known in (self._listed, self.left_out, self.failures):
                    known.pop(name, None)
                if name in self._connections:
                    closing = asyncio.create_task(self._connections.pop(name).close())
                    self._closing.add(closing)
                    closing.add_done_callback(self._closing.discard)
        self._entries, self._servers = entries, servers
        for name, server in servers.items():
            listing = None if name in self._listed else self._remembered(server)
            if listing is not None:
                self._listed[name], self.left_out[name] = adopt(name, listing)
        self._known = None

    def _stamp_now(self) -> tuple[tuple[int, int] | None, ...]:
        """Changes when one of the files does, or when another program lists a server's tools."""
        paths = (self._folder / MCP_FILE, self._folder / CONTRACTS_FILE, self._folder / _FOLDER)
        stamps: list[tuple[int, int] | None] = []
        for path in paths:
            try:
                status = path.stat()
            except FileNotFoundError:
                stamps.append(None)
            else:
                stamps.append((status.st_mtime_ns, status.st_ino))
        return tuple(stamps)

    async def _connection(self, name: str) -> McpConnection:
        if name not in self._connections:
            # It takes a second, and processes are running.
            await asyncio.to_thread(import_module, "oneiros.devices.mcp_connection")
        if name not in self._connections:
            from oneiros.devices.mcp_connection import McpConnection

            if name not in self._servers:
                raise ToolError(f"The server {name} is not in {MCP_FILE} any more.")
            self._connections[name] = McpConnection(
                self._servers[name], self._take, sites=self._sites.given
            )
        return self._connections[name]

    async def _take(self, server: Server, listing: list[Definition]) -> None:
        """A server listed its tools."""
        # Thousands of schemas take a while to check.
        adopted, left_out = await asyncio.to_thread(adopt, server.name, listing)
        self._listed[server.name], self.left_out[server.name] = adopted, left_out
        self.failures.pop(server.name, None)
        self._known = None
        await asyncio.to_thread(self._remember, server, listing)

    def _named(self) -> dict[str, ServerTool]:
        """All tools with their names, which depend on each other."""
        pairs = [(name, tool) for name, tools in self._listed.items() for tool in tools]
        names = named(((name, tool.definition.name) for name, tool in pairs), self._reserved)
        return {
            name: self._contracted(name, server, tool)
            for name, (server, tool) in zip(names, pairs, strict=True)
        }

    def _contracted(self, name: str, server: str, tool: Adopted) -> ServerTool:
        base = conservative(server)
        entry = self._entries.get(name)
        if entry is None:
            return ServerTool(name, server, tool, base)
        try:
            return ServerTool(name, server, tool, applied(entry, name, base, tool))
        except ContractError as error:
            return ServerTool(name, server, tool, base, str(error))

    def _tool(self, known: ServerTool) -> Tool:
        definition = known.adopted.definition

        async def run(arguments: Json, context: CallContext) -> ToolResult:
            from oneiros.devices.mcp_results import converted

            connection = await self._connection(known.server)
            effects = bool(known.contract.effects)
            result = await connection.call(definition.name, arguments, effects=effects)
            files = self._files(context.owner) if self._files is not None else None
            return await converted(known.server, result, context, files)

        return Tool(
            name=known.name,
            description=known.adopted.description,
            parameters=known.adopted.parameters,
            contract=known.contract,
            run=run,
        )

    def _listing_file(self, server: Server) -> Path:
        return self._folder / _FOLDER / f"{fingerprint(server)[:32]}.json"

    def _remembered(self, server: Server) -> list[Definition] | None:
        try:
            return _LISTING.validate_json(self._listing_file(server).read_bytes())
        except (OSError, ValidationError):
            return None  # the server is asked

    def _remember(self, server: Server, listing: list[Definition]) -> None:
        path = self._listing_file(server)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps([asdict(one) for one in listing]), encoding="utf-8")
        new.replace(path)


def applied(entry: Entry, name: str, base: Contract, tool: Adopted) -> Contract:
    """The contract that an entry of the contracts file makes of a tool's conservative one.

    Raises:
        ContractError: it does not fit the tool, or the tool is not the one that it was made for.
    """
    if entry.definition is not None and entry.definition != tool.definition.sha256:
        raise ContractError(
            f"{name} has changed since its contract was written, which does not count until it is "
            f"confirmed: look at it with `oneiros tools contract {name}`, then add --confirm."
        )
    properties = tool.parameters.get("properties")
    arguments = properties if isinstance(properties, dict) else {}
    return contract_of(base, entry.fields, arguments, f"contracts.json: {name}")
