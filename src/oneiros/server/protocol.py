"""Uvicorn's HTTP connection, with bounds on what comes before a request's body, and on waiting.

A client that has not shown a key yet must not be able to fill the memory with header lines, nor to
hold a connection for ever by sending one byte a minute. One that does not read its answer must not
hold it for ever either, nor the server when it is to end.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 64 << 10
"""Bytes of a request line and headers."""

HEAD_SECONDS = 30.0
"""From a connection, or the first byte of a further request, to the end of its headers."""

SEND_SECONDS = 60.0
"""In which a client takes what is ready for it, about 64 kB."""


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose headers are too long or too slow, or whose answers nobody reads."""

    _head = 0  # bytes read since the last request's headers were complete
    _deadline: asyncio.TimerHandle | None = None
    _send_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_complete()
        self._sent()
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

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sent()
        self._send_deadline = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._sent()
        super().resume_writing()

    def _sent(self) -> None:
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None

    def _expect_head(self) -> None:
        self._head_complete()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_complete(self) -> None:
        self._head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
