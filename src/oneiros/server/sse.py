"""Server-sent events, sent as they are made; and noticing that a client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from oneiros.errors import OneirosError
from oneiros.server.errors import api_error, error_body

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # proxies would collect what should be seen at once
]

json_text = encode_basestring_ascii
"""A string as a JSON string: what `json.dumps` does, without deciding what it was given."""


class ClientDisconnected(Exception):
    """Nobody waits for the answer any more."""


def event(data: object) -> bytes:
    """One event, of small JSON-like data."""
    return b"data: %b\n\n" % json.dumps(data, separators=(",", ":")).encode()


def named_event(name: str, data: object) -> bytes:
    """One event that has a name beside its data."""
    return b"event: %b\n%b" % (name.encode(), event(data))


class EventStream(Response):
    """An answer of events from several sources, in the order in which they come.

    A source is pulled again when what it gave was taken by the connection: a client that reads
    slowly slows down its own sources and nothing else.
    """

    def __init__(
        self,
        sources: Sequence[AsyncIterator[bytes]],
        ending: Callable[[], bytes],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare an answer.

        Args:
            sources: give whole events.
            ending: gives the events after the sources' last.
            close: frees what the sources use; called in any case, also when the client goes away.
        """
        super().__init__()
        self.raw_headers = [*_HEADERS]
        self._sources = sources
        self._ending = ending
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            await unless_disconnected(receive, self._send_all(send))
        except ClientDisconnected:
            return
        finally:
            await self._close()

    async def _send_all(self, send: Send) -> None:
        try:
            if len(self._sources) == 1:
                await _pump(self._sources[0], send)
            else:
                await gather([_pump(source, send) for source in self._sources])
            last = self._ending()
        except OneirosError as error:  # too late for a status: the answer has begun
            last = event(error_body(api_error(error)))
        await send({"type": "http.response.body", "body": last, "more_body": False})


async def _pump(source: AsyncIterator[bytes], send: Send) -> None:
    async for frame in source:
        message: Message = {"type": "http.response.body", "body": frame, "more_body": True}
        await send(message)


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises:
        ClientDisconnected: it did.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnection(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnected
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def gather(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all; the first failure cancels the others, and is what is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
