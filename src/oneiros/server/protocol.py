"""Uvicorn's HTTP connection, with bounds on what comes before a request's body.

A client that has not shown a key yet must not be able to fill the memory with header lines, nor to
hold a connection for ever by sending one byte a minute.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10
"""Bytes of a request line and headers."""

HEAD_SECONDS = 30.0
"""From a connection, or the first byte of a further request, to the end of its headers."""


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose headers are too long or too slow."""

    _head = 0  # bytes read since the last request's headers were complete
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None:
            self._head += len(data)
            if self._head > LARGEST_HEAD:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_complete()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._head_complete()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_complete(self) -> None:
        self._head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
