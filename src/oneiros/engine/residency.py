"""Which sequences are in memory: pages for those that run, files for those that make room."""

from __future__ import annotations

from collections.abc import Sequence as Items
from pathlib import Path

from oneiros.engine.active_request import ActiveRequest
from oneiros.engine.engine import Engine, Work
from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.prefix_cache import PrefixCache
from oneiros.engine.sequence import Sequence
from oneiros.errors import NotEnoughMemoryError

# Evicted beyond what is needed: looking for pages costs more than giving them up.
_SPARE_PAGES = 8


class Residency:
    """Gives memory for keys and values to active requests, and takes it away again.

    Attributes:
        preemptions: how often a sequence was written to disk to make room.
    """

    def __init__(self, engine: Engine, cache: PrefixCache, memory: int, spool: Path) -> None:
        """Limit the engine's pages.

        Args:
            engine: whose sequences are meant.
            cache: gives up pages when there are too few.
            memory: bytes for all pages.
            spool: folder for sequences that make room.

        Raises:
            NotEnoughMemoryError: the memory does not hold one full context.
        """
        page_bytes = engine.pool.page_bytes
        needed = -(-engine.context // PAGE_TOKENS) + 1  # and one to copy a shared page to
        if memory < needed * page_bytes:
            raise NotEnoughMemoryError(
                f"A context of {engine.context:,} tokens takes "
                f"{needed * page_bytes / 2**20:,.0f} MiB of keys and values, and "
                f"{memory / 2**20:,.0f} MiB are set apart. Give more (--kv-memory), or choose a "
                "smaller context (--context)."
            )
        self._engine = engine
        self._cache = cache
        self._limit = engine.pool.limit = memory // page_bytes
        self._spool = spool
        self.preemptions = 0

    def has_pages_for(self, work: Items[Work]) -> bool:
        """Whether a step can be made; the prefix cache gives up pages for it."""
        return self._find(sum(w.sequence.pages_missing(len(w.tokens)) for w in work))

    def has_room_for(self, request: ActiveRequest, others: Items[ActiveRequest]) -> bool:
        """Whether all tokens of a request that has no sequence would fit, and one more.

        Pages that `others` will need for prompts that they have not read yet are theirs.
        """
        asked = request.request
        promised = sum(
            max(0, _pages_of(r) - len(r.sequence.pages)) for r in others if r.sequence is not None
        )
        pages = _pages_of(request) + promised
        if request.parked is None and self._limit - self._engine.pool.used < pages:
            pages -= self._cache.count(request.pending, asked.principal, asked.public_prefix)
        return self._find(pages)

    def share(self, request: ActiveRequest) -> None:
        """Put pages that became full into the prefix cache."""
        sequence, node, asked = request.sequence, request.node, request.request
        assert sequence is not None and node is not None  # it was in a step
        if len(sequence) // PAGE_TOKENS > node.depth:
            request.node = self._cache.insert(node, sequence, asked.principal, asked.public_prefix)

    def park(self, request: ActiveRequest) -> None:
        """Write a request's keys and values to a file and give its pages back.

        Raises:
            NotEnoughMemoryError: they cannot be written.
        """
        assert request.sequence is not None  # it has memory to give up
        path = self._spool / f"{request.number}.sequence"
        try:
            self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
            request.sequence.save(path, durable=False)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise NotEnoughMemoryError(
                "There is no memory for this reply, and its keys and values cannot be written to "
                f"{self._spool}: {error.strerror}."
            ) from error
        request.sequence.close()
        request.sequence, request.parked = None, path
        self.preemptions += 1

    def unpark(self, request: ActiveRequest) -> None:
        """Read back what `park` wrote.

        Raises:
            ModelFileError: the file is gone or damaged.
        """
        assert request.parked is not None  # the caller chose it for that
        path, request.parked = request.parked, None
        try:
            request.sequence = Sequence.restore(self._engine, path)
        finally:
            path.unlink(missing_ok=True)
        request.node = self._cache.root  # its pages may have been evicted meanwhile
        self.share(request)

    def release(self, request: ActiveRequest) -> None:
        """Free what an ended request holds; its pages stay in the cache while there is room."""
        if request.parked is not None:
            request.parked.unlink(missing_ok=True)
        if request.sequence is not None and request.node is not None:
            asked = request.request
            self._cache.insert(
                request.node, request.sequence, asked.principal, asked.public_prefix, whole=True
            )
            request.sequence.close()
            request.sequence = None

    def end(self) -> None:
        """Give the engine its pages back, without a limit."""
        self._cache.evict(len(self._cache))
        self._engine.pool.limit = None

    def _find(self, pages: int) -> bool:
        free = self._limit - self._engine.pool.used
        if free >= pages:
            return True
        if free + self._cache.evictable() < pages:
            return False  # and nothing is given up in vain
        self._cache.evict(pages - free + _SPARE_PAGES)
        return True


def _pages_of(request: ActiveRequest) -> int:
    """Pages for all that a request has so far and a token more, one of them to copy to."""
    return request.length // PAGE_TOKENS + 2
