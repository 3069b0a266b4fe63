"""Connections that do not behave, against the real HTTP stack."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from oneiros.engine.local_model import LocalModel
from oneiros.server import lifecycle, protocol
from oneiros.server.lifecycle import bind, serve
from tests.server.conftest import NAME, FakeServer, fake_server

pytestmark = pytest.mark.anyio

GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"


@asynccontextmanager
async def connected(
    server: FakeServer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the app over a socket."""
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        ready = asyncio.Event()
        task = asyncio.create_task(serve(server.app, listener, ready.set))
        await ready.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()
            server.app.state.serving.draining = True
            assert await task


@pytest.fixture
def server(model_parts: LocalModel) -> FakeServer:
    return fake_server(model_parts)


async def closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("line", [b"x: y\r\n", b"y"])
async def test_endless_headers_end_the_connection(server: FakeServer, line: bytes) -> None:
    async with connected(server) as (reader, writer):
        writer.write(GET + b"x: ")
        sent = 0
        while sent < 100 * protocol.LARGEST_HEAD and not writer.is_closing():
            writer.write(line * 1000)
            sent += len(line) * 1000
            try:
                await asyncio.wait_for(writer.drain(), 5)
            except ConnectionError:
                break
            await asyncio.sleep(0)
        assert await closed(reader)
        assert sent < 100 * protocol.LARGEST_HEAD


@pytest.mark.parametrize("begin", [b"", b"GET / HT", GET, GET + b"\r\n" + b"G"])
async def test_headers_that_do_not_come_end_the_connection(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.4)
    async with connected(server) as (reader, writer):
        writer.write(begin)
        async with asyncio.timeout(10):
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
        assert answer.count(b"HTTP/1.1 200") == begin.count(b"\r\n\r\n")


async def test_requests_may_follow_each_other_slowly(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    async with connected(server) as (reader, writer):
        for pause in (0.0, 0.6, 0.6):
            await asyncio.sleep(pause)
            writer.write(GET + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
            await reader.readexactly(length)


def generating(server: FakeServer) -> bytes:
    """A request whose answer never ends."""
    server.service.endless = True
    body = {"model": NAME, "prompt": "x", "max_tokens": 2**31 - 1, "stream": True, "echo": True}
    data = json.dumps({**body, "logprobs": None}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(data) + data


async def test_who_does_not_read_the_answer_is_disconnected(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "SEND_SECONDS", 0.2)
    async with connected(server) as (reader, writer):
        writer.write(generating(server))
        await reader.readuntil(b"data: ")
        assert server.service.running == 1
        async with asyncio.timeout(30):
            while server.service.running:
                await asyncio.sleep(0.01)


async def test_who_reads_slowly_is_not(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SEND_SECONDS", 1.0)
    async with connected(server) as (reader, writer):
        writer.write(generating(server))
        for _ in range(60):
            assert await reader.read(1 << 20)
            await asyncio.sleep(0.03)
        assert server.service.running == 1


async def test_the_end_does_not_wait_for_ever(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "DRAIN_SECONDS", 0.3)
    with bind("127.0.0.1", 0) as listener:
        ready = asyncio.Event()
        port = listener.getsockname()[1]
        task = asyncio.create_task(serve(server.app, listener, ready.set))
        await ready.wait()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(generating(server))
        async with asyncio.timeout(30):
            while not server.service.running:
                await asyncio.sleep(0.01)
            server.app.state.serving.draining = True
            assert await task is False
        assert server.service.running == 0
        writer.close()


@pytest.mark.parametrize(
    "data", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
)
async def test_what_is_no_http_is_refused(server: FakeServer, data: bytes) -> None:
    async with connected(server) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 400")


async def test_web_sockets_are_not_spoken(server: FakeServer) -> None:
    async with connected(server) as (reader, writer):
        writer.write(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
