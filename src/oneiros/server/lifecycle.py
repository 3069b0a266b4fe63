"""Running the app: a socket, signals, and an end that lets running replies finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from oneiros.errors import OneirosError
from oneiros.server.protocol import BoundedHttp
from oneiros.server.serving import Serving

DRAIN_SECONDS = 60.0
"""From the first signal, in which running replies can finish; those that then still run are cut."""

_KEEP_ALIVE_SECONDS = 30
_FLUSH_SECONDS = 10  # for what was sent to closing connections, and is not yet read
_SEND_BUFFER = 64 << 10  # bytes
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class AddressError(OneirosError):
    """The server cannot listen on the address that was asked for."""


def bind(host: str, port: int) -> socket.socket:
    """A socket with an address, on which nothing listens yet; port 0 means any that is free.

    Raises:
        AddressError: the name is unknown, or the address taken or not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(f"--host {host}: no such address ({error}).") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it; the system's own choice grows to megabytes for who reads nothing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind(address)
    except OSError as error:
        listener.close()
        match error.errno:
            case errno.EADDRINUSE:
                what = f"port {port} is in use: choose another one with --port"
            case errno.EACCES:
                what = f"port {port} is for the system: choose one above 1023 with --port"
            case _:
                what = f"{error.strerror}: choose an address of this machine with --host"
        raise AddressError(f"{host}: {what}.") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The URL at which a client on this machine reaches a socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn, but the first signal lets running replies finish, and the second ends at once.

    After `DRAIN_SECONDS` it ends too: a client that does not read would hold it for ever.

    New requests are refused with a 503 in between: a closed port would tell a client nothing.
    """

    def __init__(self, config: uvicorn.Config, serving: Serving, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._serving = serving
        self._ready = ready
        self._drained_by: float | None = None  # time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        if self._serving.draining:
            if self._drained_by is None:
                self._drained_by = time.monotonic() + DRAIN_SECONDS
            if not self._serving.running:
                self.should_exit = True
            elif time.monotonic() > self._drained_by:
                self.should_exit = self.force_exit = True
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As Uvicorn's, without raising the signals again at the end: models are to be closed."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = self.force_exit = self._serving.draining
        self._serving.draining = True


async def serve(
    app: FastAPI,
    listener: socket.socket,
    ready: Callable[[], None],
    close: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Serve until a signal comes; closes the models.

    Args:
        app: of `create_app`.
        listener: of `bind`.
        ready: called when requests are answered.
        close: closes what else uses the models, before they are closed.

    Returns:
        Whether all running replies were finished.
    """
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_FLUSH_SECONDS,
    )
    serving: Serving = app.state.serving
    server = Server(config, serving, ready)
    try:
        await server.serve([listener])
        if server.force_exit:
            await _cut_off(server.server_state.tasks)
    finally:
        if close is not None:
            await close()
        await serving.models.close()
        listener.close()
    return not server.force_exit


async def _cut_off(requests: set[asyncio.Task[None]]) -> None:
    """End requests that still run; that this leaves them without an answer is no news."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
