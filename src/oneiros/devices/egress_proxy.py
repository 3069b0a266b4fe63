"""The guard of the network as an HTTP proxy, for programs that make their requests themselves.

Every connection goes to an address that the guard looked up and allowed just now; names are never
looked up by the program. What a page loads, where it redirects and what its scripts fetch passes
here like anything else.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import httpx

from oneiros.devices.egress import Egress
from oneiros.kernel.tools import ToolError

REFUSED: Final = 403  # the status of what the guard refuses
_LONGEST_HEAD: Final = 64 * 1024  # bytes
_HEAD_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 20.0
_IDLE_SECONDS: Final = 120.0
_MOST_BYTES: Final = 200_000_000  # of one connection, each way
_PIECE: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}
_USER: Final = "oneiros"


class EgressProxy:
    """A proxy for one app, on a port of this machine that needs a password.

    Attributes:
        hosts: that were reached through it.
        refused: why connections were refused, the last ones.
    """

    def __init__(self, egress: Egress, app: str) -> None:
        """Make a proxy; `start` opens its port."""
        self.hosts: set[str] = set()
        self.refused: list[str] = []
        self.password = secrets.token_urlsafe(24)
        self.user = _USER
        self._egress = egress
        self._app = app
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        token = base64.b64encode(f"{_USER}:{self.password}".encode()).decode()
        self._authorization = f"Basic {token}"

    async def start(self) -> str:
        """Open the port; the proxy's address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LONGEST_HEAD)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        """Close the port and all connections."""
        if self._server is not None:
            self._server.close()
            for writer in self._clients:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._pass_on(head, reader, writer)
        except (
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            TimeoutError,
            OSError,
            ValueError,
        ):
            pass  # whoever is at the other end sees the connection end
        finally:
            self._clients.discard(writer)
            writer.close()

    async def _pass_on(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = [line for line in lines if line]
        if not self._may(headers):
            await _answer(
                writer, "407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="p"'
            )
            return
        tunnel = method == "CONNECT"
        try:
            url = httpx.URL(f"https://{target}" if tunnel else target)
            port = url.port or _PORTS[url.scheme]
            addresses = await self._egress.addresses(self._app, url)
        except ToolError as error:
            self.refused = [*self.refused[-9:], str(error)]
            await _answer(writer, f"{REFUSED} Forbidden", body=str(error))
            return
        except (httpx.InvalidURL, KeyError):
            await _answer(writer, "400 Bad Request", body="This is no address of the web.")
            return
        there, back = await _connected(addresses, port)
        self.hosts.add(url.host)
        try:
            if tunnel:
                writer.write(f"{version} 200 Connection established\r\n\r\n".encode("latin-1"))
            else:
                # One request for each connection: the next one may be for another host.
                path = url.raw_path.decode("ascii")
                kept = [line for line in headers if _name(line) not in _HOP]
                # A server may have many sites: the one that was allowed is asked for.
                host = f"Host: {url.netloc.decode('ascii')}"
                lines = [f"{method} {path} {version}", host, *kept, "Connection: close", "", ""]
                back.write("\r\n".join(lines).encode("latin-1"))
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, back))
                group.create_task(_copy(there, writer))
        finally:
            back.close()

    def _may(self, headers: list[str]) -> bool:
        given = [
            line.partition(":")[2].strip()
            for line in headers
            if _name(line) == "proxy-authorization"
        ]
        return len(given) == 1 and hmac.compare_digest(given[0], self._authorization)


_HOP: Final = {"host", "proxy-authorization", "proxy-connection", "connection", "keep-alive"}


async def _connected(
    addresses: Sequence[str], port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the first address that answers. Raises OSError, TimeoutError."""
    for address in addresses[:-1]:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS / len(addresses)):
                return await asyncio.open_connection(address, port)
    async with asyncio.timeout(_CONNECT_SECONDS / len(addresses)):
        return await asyncio.open_connection(addresses[-1], port)


def _name(header: str) -> str:
    return header.partition(":")[0].strip().lower()


async def _answer(
    writer: asyncio.StreamWriter, status: str, header: str = "", body: str = ""
) -> None:
    data = body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close"]
    lines += ["Content-Type: text/plain; charset=utf-8", *([header] if header else []), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + data)
    with suppress(OSError):
        await writer.drain()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Everything from one end to the other, up to a limit."""
    copied = 0
    while copied < _MOST_BYTES:
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                piece = await source.read(_PIECE)
                if not piece:
                    break
                sink.write(piece)
                await sink.drain()
        except (OSError, TimeoutError):
            break
        copied += len(piece)
    # Whoever reads at the other end sees that nothing more comes.
    sink.close()
