"""A web server of this machine, for tests of what reads the web."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).resolve().parent / "site"


class Drip(bytes):
    """A body after which a byte comes now and then, for a long time."""


# Path and headers of a request -> status, headers, body.
Answer = tuple[int, dict[str, str], bytes]
Handle = Callable[[str, dict[str, str]], Answer]


@contextmanager
def serving(handle: Handle, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve until the block ends; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = handle(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # whoever asked may have heard enough
                self.wfile.write(body)
                for _ in range(200 if isinstance(body, Drip) else 0):
                    time.sleep(0.05)
                    self.wfile.write(b"x")

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def site_page(path: str, headers: dict[str, str]) -> Answer:
    """The pages of `tests/devices/site`."""
    name = path.partition("?")[0].strip("/") or "index.html"
    file = SITE / name
    if ".." in name or not file.is_file():
        return 404, {"Content-Type": "text/html"}, b"<p>There is no such page.</p>"
    return 200, {"Content-Type": "text/html; charset=utf-8"}, file.read_bytes()
