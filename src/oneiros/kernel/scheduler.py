"""Whose reply is generated next.

The engine batches replies, and lets those that somebody waits for go first, at every token. What
is left to decide is which background processes are in the batch at all. That goes by weighted fair
queueing (Demers, Keshav and Shenker 1989), as in Linux's CFS: each process has a virtual time,
which runs as fast as it uses tokens divided by its weight, and the one furthest behind is next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from oneiros.engine.requests import BACKGROUND, INTERACTIVE

_NICE_STEP = 1.25  # a process with one more of priority gets this much less


@dataclass(slots=True)
class Turn:
    """The right to generate one reply."""

    pid: int
    priority: int
    tokens: int = 0  # that it took; set before the turn ends
    steady: bool = False  # whether it keeps its priority, whatever becomes of the process's
    _granted: asyncio.Event = field(default_factory=asyncio.Event)
    _slot: bool = False  # whether it takes one of the background's

    @property
    def interactive(self) -> bool:
        """Whether somebody waits for the reply."""
        return self.priority <= 0

    @property
    def engine_priority(self) -> int:
        """What the engine is told."""
        return INTERACTIVE if self.interactive else BACKGROUND


class Scheduler:
    """Gives out turns. Belongs to one event loop."""

    def __init__(self, slots: int) -> None:
        """Let `slots` replies of background processes be generated at once.

        Interactive ones take no slot: there are only as many as there are people.
        """
        self._free = slots
        self._waiting: list[Turn] = []
        self._virtual: dict[int, float] = {}
        self._now = 0.0  # virtual time of the turn that began last: newcomers begin here

    @asynccontextmanager
    async def turn(
        self, pid: int, priority: int, *, steady: bool = False
    ) -> AsyncGenerator[Turn, None]:
        """Wait for one's turn, and have it for the body of the `async with`."""
        turn = Turn(pid, priority, steady=steady)
        if turn.interactive:
            try:
                yield turn
            finally:
                self._charge(turn)
            return
        self._virtual[pid] = max(self._virtual.get(pid, 0.0), self._now)
        self._waiting.append(turn)
        self._grant()
        try:
            await turn._granted.wait()
            yield turn
        finally:
            if turn._granted.is_set():
                self._free += turn._slot
                self._charge(turn)
            else:
                self._waiting.remove(turn)
            self._grant()

    def renice(self, pid: int, priority: int) -> None:
        """Change the priority of a process's turn; one that becomes interactive waits no longer."""
        for turn in [one for one in self._waiting if one.pid == pid and not one.steady]:
            turn.priority = priority
            if turn.interactive:
                self._waiting.remove(turn)
                turn._granted.set()

    def forget(self, pid: int) -> None:
        """A process has ended."""
        self._virtual.pop(pid, None)

    def _charge(self, turn: Turn) -> None:
        # Every turn costs something, or a process that gets errors at once would have them all.
        used = (turn.tokens + 1) * _NICE_STEP ** max(0, turn.priority - 1)
        self._virtual[turn.pid] = self._virtual.get(turn.pid, self._now) + used

    def _grant(self) -> None:
        while self._free and self._waiting:
            turn = min(self._waiting, key=lambda turn: self._virtual[turn.pid])
            self._waiting.remove(turn)
            self._now = max(self._now, self._virtual[turn.pid])
            self._free -= 1
            turn._slot = True
            turn._granted.set()
