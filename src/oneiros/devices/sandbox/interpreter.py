"""A Python interpreter of one process, confined, that keeps its variables from call to call."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import dataclass
from typing import Any

from oneiros.devices.sandbox.confined import Confined, Ended
from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.mechanism import PROGRAMS, Mechanism
from oneiros.devices.sandbox.place import Place

_LONGEST = 4 << 20  # bytes of a reply
_MOMENT = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Reply:
    """What a piece of code brought."""

    output: str
    value: str | None = None
    error: str | None = None
    figures: tuple[str, ...] = ()
    ended: Ended | None = None  # how the interpreter ended, if it did


class Interpreter:
    """A running interpreter. Between two calls it stands still, and has no other processes."""

    def __init__(self, confined: Confined, channel: socket.socket) -> None:
        """Take over what `start` opened."""
        self._confined = confined
        self._channel = channel

    @classmethod
    async def start(cls, mechanism: Mechanism, place: Place, limits: Limits) -> Interpreter:
        """Start an interpreter. Raises SandboxError where it cannot be."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                program = str(PROGRAMS / "interpreter.py")
                command = [sys.executable, "-I", "-B", program, str(theirs.fileno())]
                confined = await Confined.start(mechanism, place, limits, command, channel=theirs)
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return cls(confined, ours)

    async def run(self, code: str) -> Reply:
        """Run a piece of code, for as long as the limits let it; then the interpreter is ended.

        Cancelled, or failing, the interpreter is ended as well.
        """
        self._confined.go()
        try:
            reply, timed_out = await self._answer(code)
            if reply is not None and await self._confined.pause():
                output = self._confined.take_output().text()
                value = reply["value"] if output.strip() else reply["value"] or reply["assigned"]
                return Reply(output, value, reply["error"], tuple(reply["figures"]))
        except BaseException:
            await self.end()
            raise
        ended = await self.end()
        if timed_out:
            ended = Ended("time", ended.status)
        return Reply(self._confined.take_output().text(), ended=ended)

    async def _answer(self, code: str) -> tuple[dict[str, Any] | None, bool]:
        """The interpreter's reply, if there is one; else whether it took too long."""
        exchange = asyncio.ensure_future(self._exchange(code))
        ended = asyncio.ensure_future(self._confined.ended())
        try:
            done, _ = await asyncio.wait(
                {exchange, ended},
                timeout=self._confined.limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if exchange in done and (exchange.exception() or exchange.result() is None):
                # Its socket closes a moment before it has ended.
                await asyncio.wait({ended}, timeout=_MOMENT)
        finally:
            for task in (exchange, ended):
                task.cancel()
            await asyncio.wait({exchange, ended})
        if exchange not in done or isinstance(exchange.exception(), OSError):
            return None, not done
        return exchange.result(), False

    async def end(self) -> Ended:
        """End it, with all that it started."""
        self._channel.close()
        return await self._confined.end()

    async def _exchange(self, code: str) -> dict[str, Any] | None:
        """Send code, and get the reply; None: what came is none."""
        loop = asyncio.get_running_loop()
        data = json.dumps({"code": code}).encode()
        await loop.sock_sendall(self._channel, len(data).to_bytes(4, "little") + data)
        received = await self._receive(4)
        length = int.from_bytes(received, "little")
        if len(received) < 4 or length > _LONGEST:
            return None
        try:
            reply = json.loads(await self._receive(length))
        except (ValueError, RecursionError):
            return None
        return reply if _is_reply(reply) else None

    async def _receive(self, length: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < length:
            piece = await loop.sock_recv(self._channel, length - len(data))
            if not piece:
                break
            data += piece
        return data


def _is_reply(reply: object) -> bool:
    """Whether it is one: the code that ran there may have sent anything."""
    if not isinstance(reply, dict):
        return False
    texts = [reply.get(name) for name in ("value", "assigned", "error")]
    figures = reply.get("figures")
    return (
        reply.keys() == {"value", "assigned", "error", "figures"}
        and all(text is None or isinstance(text, str) for text in texts)
        and isinstance(figures, list)
        and all(isinstance(name, str) for name in figures)
    )
