"""The MCP client against HTTP servers that answer with something else."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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
