"""A model hub on this machine, with the faults that real ones have."""

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

STORAGE = "/storage/"


@dataclass
class HubServer:
    """Serves `files` ("owner/name/file" to bytes) under a hub's paths; faults are switches.

    Large files are redirected to a storage path, as on the real hub; the redirect carries size and
    SHA-256. `requests` lists (method, path, range) of everything that was asked.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    large: bool = True  # False: no redirect and no SHA-256, as for small files
    ranges: bool = True  # False: byte ranges are ignored
    status: int | None = None  # answer everything with this
    cuts: list[int] = field(default_factory=list)  # body bytes after which the next replies break
    said_sha256: str | None = None  # what the hub claims instead of the truth
    hold_after: int | None = None  # send so many bytes, then wait for `released`
    released: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def body_requests(self) -> list[str | None]:
        """The ranges of all requests that reached a file's bytes."""
        direct = "/resolve/" if not self.large else STORAGE
        return [span for method, path, span in self.requests if method == "GET" and direct in path]


class _Handler(BaseHTTPRequestHandler):
    server_hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        hub = self.server_hub
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        stored = self.path.startswith(STORAGE)
        key = self.path.removeprefix(STORAGE) if stored else self.path.lstrip("/")
        owner, name, *rest = key.split("/")
        if not stored and rest[:1] == ["resolve"]:
            key = "/".join((owner, name, *rest[2:]))
        content = hub.files.get(key)
        if hub.status is not None or content is None:
            self.empty(hub.status or 404)
        elif hub.large and not stored:
            sha256 = hub.said_sha256 or hashlib.sha256(content).hexdigest()
            self.send_response(302)
            self.send_header(
                "Location", f"http://localhost:{self.server.server_port}/storage/{key}"
            )
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-Etag", f'"{sha256}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_content(content, body)

    def empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_content(self, content: bytes, body: bool) -> None:
        hub = self.server_hub
        start = 0
        if hub.ranges and (span := self.headers.get("Range")):
            start = int(span.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.empty(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        payload = content[start:]
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if not body:
            return
        if hub.cuts:
            self.wfile.write(payload[: hub.cuts.pop(0)])
            self.close_connection = True
            return
        if hub.hold_after is not None:
            self.wfile.write(payload[: hub.hold_after])
            self.wfile.flush()
            hub.holding.set()
            hub.released.wait(30)
            payload = payload[hub.hold_after :]
        self.wfile.write(payload)
