"""KV pages on disk: what memory has no room for, and what a restart must not lose.

Each page is a file named by its key, which says all that determines the content (see
`prefix_cache`). So files are never rewritten, several processes may use one folder, and a missing
file is only a page that has to be computed again.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_MAGIC = 0x3130_4547_4150_4B4F  # "OKPAGE01"
_HEADER_WORDS = 2


class PageStore:
    """A folder of pages with a limit in bytes; the least recently used pages go first.

    Only the owner can read the files: keys and values tell what was said.
    """

    def __init__(self, folder: Path, page_bytes: int, limit: int) -> None:
        """Open or make the folder.

        Args:
            folder: for pages of one model and kernel only.
            page_bytes: the size of every page.
            limit: bytes that all pages together may take.

        Raises:
            OSError: the folder cannot be made or read.
        """
        self._folder = folder
        self._page_bytes = page_bytes
        self._limit = max(0, limit // self._file_bytes)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, None] = OrderedDict()  # least recently used first
        found: list[tuple[float, str]] = []
        for path in folder.iterdir():
            if path.suffix == ".part":
                writer = path.stem.rpartition(".")[2]
                if not Path("/proc", writer).exists():  # it was killed while it wrote
                    path.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path.name))
        self._keys.update((name, None) for _, name in sorted(found))
        self._make_room()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def _file_bytes(self) -> int:
        return self._page_bytes + 8 * _HEADER_WORDS

    def save(self, key: str, data: NDArray[np.uint8]) -> None:
        """Write a page; a second time does nothing. May be called from any thread.

        A page appears as a whole or not at all.

        Args:
            key: its name: hexadecimal digits.
            data: uint8 (page bytes,).

        Raises:
            OSError: the disk is full or fails.
        """
        if key in self._keys or self._limit == 0:
            return
        path = self._folder / key
        part = path.with_name(f"{key}.{os.getpid()}.part")
        header = np.array([_MAGIC, _checksum(data)], np.uint64)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            written = os.writev(descriptor, [header.data, data.data])
            if written != self._file_bytes:
                raise OSError(f"Only {written} of {self._file_bytes} bytes were written.")
            part.replace(path)
        finally:
            os.close(descriptor)
            part.unlink(missing_ok=True)
        with self._lock:
            self._keys[key] = None
            self._make_room()

    def load(self, key: str, into: NDArray[np.uint8]) -> bool:
        """Read a page.

        Args:
            key: its name.
            into: uint8 (page bytes,) to be filled; undefined where False is returned.

        Returns:
            whether the page was there and whole; if not, it is forgotten.
        """
        path = self._folder / key
        header = np.zeros(_HEADER_WORDS, np.uint64)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            self._forget(key)
            return False
        try:
            read = os.readv(descriptor, [header.data, into.data])
        except OSError:
            read = 0
        finally:
            os.close(descriptor)
        # Pages are not synced to the disk: after a power failure a file may have holes.
        whole = read == self._file_bytes and header[0] == _MAGIC and header[1] == _checksum(into)
        if not whole:
            self._forget(key)
        return whole

    def touch(self, keys: Iterable[str]) -> None:
        """Note that pages were used, the last one most recently."""
        with self._lock:
            for key in keys:
                if key in self._keys:
                    self._keys.move_to_end(key)
                    with suppress(OSError):
                        os.utime(self._folder / key)

    def _forget(self, key: str) -> None:
        with self._lock:
            self._keys.pop(key, None)
            with suppress(OSError):
                (self._folder / key).unlink()

    def _make_room(self) -> None:
        while len(self._keys) > self._limit:
            key, _ = self._keys.popitem(last=False)
            with suppress(OSError):
                (self._folder / key).unlink()


def _checksum(data: NDArray[np.uint8]) -> int:
    """Enough to see holes and torn writes at the speed of memory."""
    return int(np.add.reduce(data.view(np.uint64), dtype=np.uint64))
