"""An HTTP server that answers as it is told to, well or badly."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more is sent until the client goes."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is aborted."""


Answer = Sequence[bytes | Stall | Reset]


@dataclass(slots=True)
class Request:
    """What a client sent."""

    line: str
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class ScriptedServer:
    """Gives one answer to each request, in order, and closes the connection.

    Attributes:
        answers: those to come.
        requests: those that came.
        gone: set when a client closed its connection during a Stall.
    """

    base_url: str = ""
    answers: deque[Answer] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.strip().split("\r\n")
        headers = {k.lower(): v for k, v in (entry.split(": ", 1) for entry in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(line, headers, json.loads(body)))
        for piece in self.answers.popleft():
            if isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            elif isinstance(piece, Stall):
                await reader.read()  # returns when the client closes
                self.gone.set()
            else:
                linger = struct.pack("ii", 1, 0)  # closing is then a reset, not an end
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return
        writer.close()


@asynccontextmanager
async def scripted_server(*answers: Answer) -> AsyncIterator[ScriptedServer]:
    """A server on a free port of the loopback, for the duration of the block."""
    scripted = ScriptedServer(answers=deque(answers))
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield scripted


def status(code: int, body: object = "", **headers: str) -> Answer:
    """An answer that is no stream."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {code} Some reason", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + content]


def chunk(delta: Mapping[str, object], finish_reason: str | None = None) -> bytes:
    """One event of a streamed completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def said(*texts: str, finish_reason: str | None = "stop", done: bool = True) -> Answer:
    """A streamed completion of these texts."""
    pieces = [EVENTS, chunk({"role": "assistant", "content": ""})]
    pieces += [chunk({"content": text}) for text in texts]
    if finish_reason:
        pieces.append(chunk({}, finish_reason))
    return [*pieces, b"data: [DONE]\n\n"] if done else pieces
