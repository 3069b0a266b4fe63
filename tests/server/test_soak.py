"""A crowd of clients that behave as clients do, and an engine that is killed among them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server.running import MODEL, RunningServer, own_home

LARGEST_BODY = 10 << 20
NEVER_ENDS = {"0": -100, "2": -100}  # the tokens that would
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}


class Client:
    """One client, which does one thing after another until the time is up."""

    def __init__(self, server: RunningServer, seed: int, outcomes: Counter[str]) -> None:
        address = urlsplit(server.address)
        self._host, self._port = address.hostname, address.port
        self._random = random.Random(seed)
        self._outcomes = outcomes

    async def run(self, until: float) -> None:
        while time.monotonic() < until:
            act = self._random.choices(
                [self.stream, self.whole, self.leave, self.dawdle, self.constrain, self.misbehave],
                weights=[5, 2, 4, 1, 2, 2],
            )[0]
            # Whatever happens, an answer comes in the end.
            await asyncio.wait_for(act(), 120)

    def _body(self, **more: object) -> dict[str, object]:
        words = " ".join(
            str(self._random.randint(0, 999)) for _ in range(self._random.choice([3, 30, 200]))
        )
        common = "You are a helpful assistant who counts. " * self._random.choice([1, 10])
        return {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": common},
                {"role": "user", "content": f"Go on counting: {words}"},
            ],
            "max_tokens": self._random.randint(1, 40),
            "seed": self._random.randint(0, 9),
        } | more

    @contextlib.asynccontextmanager
    async def _post(self, body: object, buffer: int | None = None):  # type: ignore[no-untyped-def]
        """`buffer`: bytes that come in while nobody reads, here and in the socket."""
        connection = socket.socket()
        connection.setblocking(False)
        if buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await asyncio.get_running_loop().sock_connect(connection, (self._host, self._port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=buffer or 1 << 16)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
            )
            writer.write(data)
            yield reader
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _status(self, reader: asyncio.StreamReader) -> int:
        status = int((await reader.readline()).split()[1])
        while (await reader.readline()).strip():
            pass
        return status

    def _note(self, kind: str, status: int) -> None:
        """An answer, or an error that says what to do: nothing else may happen."""
        assert status in (200, 429, 503), status
        self._outcomes[kind if status == 200 else f"{kind} {status}"] += 1

    async def stream(self) -> None:
        async with self._post(self._body(stream=True)) as reader:
            status = await self._status(reader)
            text = await reader.read()
            if status == 200:
                # The whole of it, or an error in OpenAI's shape where the engine was lost.
                assert b"[DONE]" in text or b'"error"' in text, text[-300:]
                assert b'"finish_reason"' in text or b'"error"' in text
            self._note("stream", status)

    async def whole(self) -> None:
        async with self._post(self._body()) as reader:
            status = await self._status(reader)
            text = await reader.read()
            if status == 200:
                assert b'"usage"' in text
            self._note("whole", status)

    async def leave(self) -> None:
        """Disconnect: at once, while waiting, or in the middle of the reply."""
        streaming = self._random.random() < 0.7
        async with self._post(self._body(stream=streaming, max_tokens=2000)) as reader:
            if streaming and self._random.random() < 0.7:
                await self._status(reader)
                for _ in range(self._random.randint(0, 12)):
                    await reader.readline()
            else:
                await asyncio.sleep(self._random.random() * 0.2)
        self._outcomes["leave"] += 1

    async def dawdle(self) -> None:
        """Read nothing of a long reply until all buffers on the way are full, then slowly."""
        # With alternatives a token takes kilobytes: less than 300 of them fill what there is.
        body = self._body(
            stream=True, max_tokens=300, logprobs=True, top_logprobs=20, logit_bias=NEVER_ENDS
        )
        async with self._post(body, buffer=4096) as reader:
            status = await self._status(reader)
            await asyncio.sleep(self._random.random() * 8)
            received = 0
            while piece := await reader.read(16_384):
                received += len(piece)
                await asyncio.sleep(0.01)
            if status == 200:
                self._outcomes["slow bytes"] = max(self._outcomes["slow bytes"], received)
            self._note("dawdle", status)

    async def constrain(self) -> None:
        response_format = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        }
        async with self._post(self._body(response_format=response_format)) as reader:
            status = await self._status(reader)
            text = await reader.read()
            if status == 200:
                choice = json.loads(text[text.index(b"{") : text.rindex(b"}") + 1])["choices"][0]
                if choice["finish_reason"] == "stop":
                    answer = json.loads(choice["message"]["content"])
                    assert set(answer) == {"answer", "sure"}
            self._note("constrain", status)

    async def misbehave(self) -> None:
        kind, body, expected = self._random.choice(
            [
                ("oversized", b"x" * (LARGEST_BODY + 1), 413),
                ("malformed", b'{"messages": [', 400),
                ("too long", self._body(messages=[{"role": "user", "content": "7 " * 9000}]), 400),
                ("unknown model", self._body(model="gpt-0"), 404),
            ]
        )
        try:
            async with self._post(body) as reader:
                line = await reader.readline()
                if not line:
                    raise ConnectionResetError
                assert int(line.split()[1]) == expected
                assert b'"error"' in await reader.read()
        except ConnectionError:  # it may hang up while it is being told, if that is much
            assert kind == "oversized"
            self._outcomes[f"{kind}, hung up"] += 1
        else:
            self._outcomes[kind] += 1


def engine_of(server: RunningServer) -> int:
    """The process id of the server's engine."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
            if parent == server.process.pid and b"oneiros.engine.worker" in command:
                return int(path.name)
    raise AssertionError("the server has no engine")


def resident_bytes(process: int) -> int:
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def soak(server: RunningServer, clients: int, seconds: float) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    until = start + seconds

    async def measure_and_kill() -> tuple[int, int]:
        """Bytes of the server, and of the engine that follows the killed one."""
        await asyncio.sleep(seconds * 0.4)
        resident = resident_bytes(server.process.pid)
        killed = engine_of(server)
        os.kill(killed, signal.SIGKILL)
        await asyncio.sleep(seconds * 0.3)  # it has been busy again for a while
        engine = engine_of(server)
        assert engine != killed
        return resident, resident_bytes(engine)

    killing = asyncio.create_task(measure_and_kill())
    async with asyncio.TaskGroup() as group:
        for seed in range(clients):
            group.create_task(Client(server, seed, outcomes).run(until))
    before, engine_before = await killing
    # The last disconnects are noticed a moment later.
    for _ in range(200):
        if server.metric("sequences_running") == server.metric("requests_waiting") == 0:
            break
        await asyncio.sleep(0.05)
    assert server.metric("restarts_total") == 1
    for name in ("sequences_running", "requests_waiting", "sequences_parked", "kv_pages_used"):
        assert server.metric(name) == 0, name
    assert 0 < server.metric("kv_pages_cached") <= server.metric("kv_pages_limit")
    # Memory is flat: what a client leaves behind, among thousands of requests, would show.
    assert resident_bytes(server.process.pid) < before + (40 << 20)
    # The engine may fill its cache, of which it says how large that is, and no more.
    cache = server.metric("kv_pages_limit") * server.metric("kv_page_bytes")
    assert resident_bytes(engine_of(server)) < engine_before + cache + (100 << 20)
    assert server.metric("kv_pages_stored") > 0
    return outcomes


@pytest.mark.parametrize(
    ("clients", "seconds"), [(20, 30), pytest.param(200, 180, marks=pytest.mark.long)]
)
def test_a_crowd_of_clients_gets_answers_and_leaves_nothing_behind(
    clients: int, seconds: float, tmp_path: Path
) -> None:
    # A store of its own, from which the engine that follows a killed one goes on.
    options = ("--max-batch", "8", "--context", "4096")
    with RunningServer(*options, home=own_home(tmp_path), kv_disk="2G") as server:
        outcomes = asyncio.run(soak(server, clients, seconds))
    for kind in ("stream", "whole", "leave", "dawdle", "constrain", "malformed", "too long"):
        assert outcomes[kind] > 0, outcomes
    assert outcomes["slow bytes"] > 300_000  # more than all buffers on the way hold
    assert "Traceback" not in server.log
