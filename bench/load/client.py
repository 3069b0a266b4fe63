"""A load generator for servers that stream replies in OpenAI's format.

Bare sockets and as little parsing as the measurements need: it runs beside the server, on the same
cores, and what it takes is missing there. Both sides of a comparison are driven by the same code.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

Body = dict[str, Any]


class ServerError(Exception):
    """The server answered something else than a whole reply."""


@dataclass(slots=True)
class Reply:
    """What came back on one request; times are those of time.perf_counter."""

    sent: float
    times: list[float] = field(default_factory=list)  # of each piece of text
    texts: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0  # generated
    ended: float = 0.0

    @property
    def first_token_seconds(self) -> float:
        return self.times[0] - self.sent

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def decode_speed(self) -> float:
        """Tokens a second after the first one."""
        return (self.tokens - 1) / (self.times[-1] - self.times[0])


class Connection(asyncio.Protocol):
    """One connection for one request: llama.cpp's server keeps none open after a stream."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()  # of the response, not parsed yet
        self._events = bytearray()  # of its body, not parsed yet
        self._in_body = False
        self._status = 0
        self._reply: Reply | None = None
        self._done: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, port: int) -> Self:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    def start(self, path: str, body: Body) -> tuple[Reply, asyncio.Future[Reply]]:
        """Send a request. The reply fills as pieces arrive; the future ends with it."""
        assert self._transport is not None
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        self._done = asyncio.get_running_loop().create_future()
        self._reply = Reply(time.perf_counter())
        self._transport.write(head.encode() + content)
        return self._reply, self._done

    async def ask(self, path: str, body: Body) -> Reply:
        """Send a request and wait for the whole reply.

        Raises:
            ServerError: another status than 200, or the connection was closed.
        """
        return await self.start(path, body)[1]

    def close(self) -> None:
        """Leave, which cancels what is running."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ServerError("The server closed the connection."))
            self._done.exception()  # whoever left on purpose does not ask for it

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        if not self._in_body and not self._take_head():
            return
        while (chunk := self._take_chunk()) is not None:
            if not chunk:
                self._finish(now)
                return
            self._events += chunk
            *lines, rest = self._events.split(b"\n")
            self._events = rest
            for line in lines:
                if self._status == 200 and line.startswith(b"data:"):
                    self._take_event(bytes(line[5:]), now)

    def _take_head(self) -> bool:
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return False
        self._status = int(head.split(b" ", 2)[1])
        if b"chunked" not in head.lower():
            self._fail(f"status {self._status}: {bytes(body[:300])!r}")
            return False
        self._received, self._in_body = body, True
        return True

    def _take_chunk(self) -> bytes | None:
        """The next whole chunk of the body, b"" for the last one, None if it is not there yet."""
        size_end = self._received.find(b"\r\n")
        if size_end < 0:
            return None
        begin = size_end + 2
        end = begin + int(self._received[:size_end], 16)
        if len(self._received) < end + 2:
            return None
        chunk = bytes(self._received[begin:end])
        del self._received[: end + 2]
        return chunk

    def _take_event(self, data: bytes, now: float) -> None:
        assert self._reply is not None
        if data.strip() == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            self._fail(str(event["error"]))
        for choice in event.get("choices", ()):
            text = choice.get("text") or choice.get("delta", {}).get("content")
            if text:
                self._reply.times.append(now)
                self._reply.texts.append(text)
        usage = event.get("usage")
        if usage:
            self._reply.prompt_tokens = usage["prompt_tokens"]
            self._reply.tokens = usage["completion_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            self._reply.cached_tokens = details.get("cached_tokens") or 0

    def _finish(self, now: float) -> None:
        assert self._reply is not None and self._done is not None
        if self._status != 200:
            self._fail(f"status {self._status}: {bytes(self._events[:300])!r}")
            return
        self._reply.ended = now
        self.close()
        if not self._done.done():
            self._done.set_result(self._reply)

    def _fail(self, what: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ServerError(f"The server answered {what}"))
        self.close()


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed loop of clients measured."""

    replies: tuple[Reply, ...]
    seconds: float  # from the first request to the end of the last reply
    client_seconds: float  # processor time that the load generator itself took

    @property
    def tokens_per_second(self) -> float:
        return sum(reply.tokens for reply in self.replies) / self.seconds


def closed_loop(port: int, path: str, bodies: Sequence[Sequence[Body]]) -> Load:
    """Each client sends its requests one after the other; all clients at once.

    Args:
        bodies: the requests of each client.

    Raises:
        ServerError: a request failed, or a reply has no text.
    """
    return asyncio.run(_closed_loop(port, path, bodies))


async def _closed_loop(port: int, path: str, bodies: Sequence[Sequence[Body]]) -> Load:
    async def client(requests: Sequence[Body]) -> list[Reply]:
        return [await (await Connection.open(port)).ask(path, body) for body in requests]

    used, begun = time.process_time(), time.perf_counter()
    replies = await asyncio.gather(*map(client, bodies))
    found = [reply for one in replies for reply in one]
    if not all(reply.times and reply.tokens for reply in found):
        raise ServerError("The server sent a reply without text or without usage.")
    seconds = max(reply.ended for reply in found) - begun
    return Load(tuple(found), seconds, time.process_time() - used)


def interrupted(
    port: int, path: str, running: Sequence[Body], arriving: Body, warm: int
) -> tuple[list[Reply], Reply]:
    """Let a request arrive while replies are running, which are cancelled when it is answered.

    Args:
        running: the requests that run.
        arriving: the one that arrives, after each of the others has had `warm` pieces of text.

    Returns:
        the running replies, as far as they came, and the one that arrived.
    """

    async def measure() -> tuple[list[Reply], Reply]:
        connections = [await Connection.open(port) for _ in (*running, arriving)]
        *old, new = connections
        try:
            started = [c.start(path, body) for c, body in zip(old, running, strict=True)]
            await _until(lambda: all(len(reply.times) >= warm for reply, _ in started))
            answer = await new.ask(path, arriving)
            if any(done.done() for _, done in started):
                raise ServerError("A running reply ended before the long prompt was answered.")
            return [reply for reply, _ in started], answer
        finally:
            for connection in connections:
                connection.close()

    return asyncio.run(measure())


async def _until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.perf_counter() + seconds
    while not true():
        if time.perf_counter() > deadline:
            raise ServerError(f"The server sent too little within {seconds:.0f} s.")
        await asyncio.sleep(0.01)


def longest_gap(replies: Sequence[Reply], since: float, until: float) -> float:
    """The longest wait for a next piece of text that overlaps the time from `since` to `until`."""
    gaps = [
        later - earlier
        for reply in replies
        for earlier, later in zip(reply.times, [*reply.times[1:], until], strict=True)
        if later > since and earlier < until
    ]
    return max(gaps)
