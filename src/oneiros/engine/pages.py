"""KV pages: fixed-size, reference-counted pieces of the key/value cache."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.machine import huge_pages
from oneiros.errors import NotEnoughMemoryError

_SLAB_BYTES = 32 << 20
_HUGE_PAGE = 2 << 20


@dataclass(slots=True, eq=False)
class Page:
    """Keys and values of PAGE_TOKENS positions in all layers."""

    data: NDArray[np.uint8]  # (page bytes,)
    address: int
    references: int = 1  # sequences that hold it; written only while there is one


@dataclass(slots=True)
class PagePool:
    """Hands out pages, and takes them back when nobody holds them any more.

    Memory comes in slabs, grows with use and is kept for reuse.
    """

    page_bytes: int
    limit: int | None = None  # most pages in use at once; None: what the machine has
    used: int = 0  # pages that somebody holds
    _free: list[Page] = field(default_factory=list)
    _slabs: int = 0

    def allocate(self) -> Page:
        """A page with one reference; what it holds is undefined.

        Raises:
            NotEnoughMemoryError: the limit is reached, or the machine has no more.
        """
        if self.used == self.limit:
            raise NotEnoughMemoryError(
                f"All {self.limit:,} KV pages ({self.limit * self.page_bytes / 2**20:,.0f} MiB) "
                "are in use."
            )
        if not self._free:
            self._add_slab()
        page = self._free.pop()
        page.references = 1
        self.used += 1
        return page

    def release(self, page: Page) -> None:
        """Drop one reference."""
        page.references -= 1
        if page.references == 0:
            self._free.append(page)
            self.used -= 1

    def _add_slab(self) -> None:
        # A decoding step reads a little of every page: huge pages save most address translations.
        grown = min(_SLAB_BYTES, _HUGE_PAGE << self._slabs)
        size = -(-max(grown, self.page_bytes) // _HUGE_PAGE) * _HUGE_PAGE
        count = size // self.page_bytes
        pages = huge_pages(count * self.page_bytes).reshape(count, -1)
        self._free.extend(Page(data, data.ctypes.data, 0) for data in pages[::-1])
        self._slabs += 1
