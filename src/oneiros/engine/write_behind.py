"""Pages written to disk beside the computation."""

from __future__ import annotations

import time
from concurrent.futures import Executor, Future
from contextlib import suppress

from oneiros.engine.page_store import PageStore
from oneiros.engine.prefix_cache import Node, PrefixCache

_EVERY = 0.05  # seconds between two pages while replies run, so that they do not notice
_AT_END = 10.0  # seconds for what is left when the engine closes


class WriteBehind:
    """Writes the pages of a cache to its store, oldest first, one at a time."""

    def __init__(self, cache: PrefixCache, store: PageStore | None, threads: Executor) -> None:
        self._cache = cache
        self._store = store
        self._threads = threads
        self._writing: tuple[Node, Future[None]] | None = None
        self._began = 0.0

    @property
    def unfinished(self) -> bool:
        """Whether anything is left to write."""
        return self._writing is not None or (self._store is not None and bool(self._cache.unsaved))

    def go_on(self, *, idle: bool) -> None:
        """See to the page that is being written, and begin with the next when it is time."""
        if self._writing is not None:
            node, future = self._writing
            if not future.done():
                return
            self._writing = None
            self._cache.saved(node)
        now = time.perf_counter()
        if self._store is None or (not idle and now - self._began < _EVERY):
            return
        node_ = self._cache.next_unsaved()
        if node_ is not None:
            self._began = now
            self._writing = (node_, self._threads.submit(self._save, self._store, node_))

    def finish(self) -> None:
        """Write what is left, as long as that takes no more than some seconds."""
        until = time.perf_counter() + _AT_END
        while self.unfinished and time.perf_counter() < until:
            if self._writing is not None:
                self._writing[1].result()
            self.go_on(idle=True)

    @staticmethod
    def _save(store: PageStore, node: Node) -> None:
        assert node.page is not None  # only the root has none
        with suppress(OSError):  # a full disk: the page will have to be computed again
            store.save(node.key, node.page.data)
