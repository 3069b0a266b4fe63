"""Those who watch what happens, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable

from oneiros.errors import ProcessError
from oneiros.kernel.journal import Recorded

_BACKLOG = 10_000  # events that a watcher may be behind


class Watchers:
    """Tells events to all who watch. Belongs to one event loop."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def tell(self, recorded: Recorded) -> None:
        """Something happened."""
        for watcher in self._watchers:
            watcher.tell(recorded)

    def watched(self, pid: int) -> bool:
        """Whether somebody watches a process."""
        return any(watcher.pid in (None, pid) for watcher in self._watchers)

    def close(self) -> None:
        """Nothing will happen any more."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)

    async def watch(
        self,
        pid: int | None,
        past: Callable[[int, int], Iterable[Recorded]] | None,
        after: int,
    ) -> AsyncGenerator[Recorded, None]:
        """Events as they come; of one process also those that were, each once.

        Args:
            pid: the process; None: all.
            past: reads a process's events after a number; None: only new ones are wanted.
            after: the number.

        Raises:
            ProcessError: whoever watches is too slow.
        """
        watcher = _Watcher(pid)
        self._watchers.add(watcher)
        try:
            if pid is not None and past is not None:
                for recorded in past(pid, after):
                    after = recorded.seq
                    yield recorded
            while (event := await watcher.queue.get()) is not None:
                if pid is None or event.seq > after:
                    yield event
            if watcher.lost:
                raise ProcessError("Events come faster than they are read: watch again.")
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    """Somebody who watches: the events that they have not seen yet."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        self.queue: asyncio.Queue[Recorded | None] = asyncio.Queue()
        self.lost = False

    def tell(self, recorded: Recorded) -> None:
        if self.lost or self.pid not in (None, recorded.pid):
            return
        self.lost = self.queue.qsize() >= _BACKLOG
        self.queue.put_nowait(None if self.lost else recorded)
