"""Requests to an ASGI app by hand: where a test decides when the client reads and when it goes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI


class Connection:
    """One request; `status`, `headers` and `body` are what was answered so far.

    Attributes:
        reading: the client takes what is sent; cleared, `send` waits as a full socket does.
    """

    def __init__(self, app: FastAPI, path: str, body: object, **headers: str) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False
        self.reading = asyncio.Event()
        self.reading.set()
        self.something_sent = asyncio.Event()
        self._gone = asyncio.Event()
        self._incoming: list[bytes] = [json.dumps(body).encode()]
        fields = {"host": "localhost", "content-type": "application/json", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def disconnect(self) -> None:
        self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        if self._incoming:
            return {"type": "http.request", "body": self._incoming.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        self.body += message.get("body", b"")
        self.complete = not message.get("more_body", False)
        self.something_sent.set()


async def until(condition: Any) -> None:
    """Let other tasks run until the condition holds; fails where it never does."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
