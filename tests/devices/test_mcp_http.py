"""The MCP client against HTTP servers that answer with something else."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from oneiros.devices import egress
from oneiros.devices.mcp_client import McpServers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def answering(status: int, headers: dict[str, str], body: bytes) -> Iterator[str]:
    """A server whose answer to everything is this; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # the client has seen enough
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp"
        finally:
            server.shutdown()
            thread.join()


JSON = {"content-type": "application/json"}
TOO_LONG = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"x": "y" * (17 << 20)}}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (401, {}, b"who are you?", "HTTP status 401"),
        (500, {}, b"", "HTTP status 500"),
        (200, {"content-type": "text/html"}, b"<html>", "content type"),
        (200, JSON, b"{", "JSON"),
        (200, JSON, TOO_LONG, "longer than"),
        (200, {**JSON, "content-encoding": "gzip"}, gzip.compress(b"{}"), "compressed"),
        (307, {"location": "http://127.0.0.2/mcp"}, b"", "edirect"),
        (202, {}, b"", "202"),
    ],
)
async def test_an_address_that_is_no_mcp_server_is_told(
    tmp_path: Path, status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    with answering(status, headers, body) as url:
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"odd": {"url": url}}}))
        servers = McpServers(tmp_path)
        await servers.discover()
        await servers.close()
    assert servers.tools() == {}
    assert said in servers.failures["odd"]


async def test_an_address_where_nobody_listens_is_told(tmp_path: Path) -> None:
    entry = {"url": "http://127.0.0.1:9/mcp"}
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"odd": entry}}))
    servers = McpServers(tmp_path)
    await servers.discover()
    await servers.close()
    assert "could not be reached" in servers.failures["odd"]


async def test_a_server_of_the_public_internet_cannot_lead_into_this_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name points here, as whoever owns the name can have it do (DNS rebinding)."""

    async def here(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(egress, "_system_resolve", here)
    with answering(401, {}, b"") as url:
        port = urlsplit(url).port
        addresses = {
            "public": "http://tracker.example/mcp",
            "meant": f"http://tracker.example:{port}/mcp",
            "local": "http://tracker.local/mcp",
        }
        config = {name: {"url": address} for name, address in addresses.items()}
        (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": config}))
        servers = McpServers(tmp_path)
        await servers.discover()
        assert "tracker.example has the address 127.0.0.1 inside of this" in servers.failures[
            "public"
        ].replace("\n", " ")
        assert "HTTP status 401" in servers.failures["meant"]
        assert "inside of this network" not in servers.failures["local"]
        (tmp_path / "oneiros.toml").write_text('[apps."mcp:meant"]\negress = []\n')
        await servers.discover(again=True)
        await servers.close()
    assert 'may not be reached by "mcp:meant"' in servers.failures["meant"]
