"""A sequence: tokens, and the pages that hold their keys and values."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Sequence as Items
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.pages import Page, PagePool
from oneiros.errors import ModelFileError
from oneiros.model.json_text import parse_object

if TYPE_CHECKING:
    from oneiros.engine.engine import Engine

_MAGIC = "oneiros sequence 1"
_LONGEST_HEADER = 1 << 26


class Sequence:
    """Tokens that a model has read or written, with their keys and values.

    Pages are shared between forks and copied when one of them writes (copy on write).
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokens: list[int] = []  # shared by forks until one of them changes it
        self._shares_tokens = False
        self._pages: list[Page] = []
        self._table = np.zeros(8, np.uint64)  # addresses of the pages
        self._release = weakref.finalize(self, _release_all, engine.pool, self._pages)

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(
        self, tokens: Items[int], logits: Literal["last", "all", "none"] = "last"
    ) -> NDArray[np.float32] | None:
        """Append tokens; see Engine.step for what comes back and what is raised."""
        from oneiros.engine.engine import Work

        return self.engine.step([Work(self, tokens, logits)])[0]

    def fork(self) -> Sequence:
        """A second sequence with the same tokens; no key or value is copied before it must be."""
        other = Sequence(self.engine)
        other.tokens = self.tokens
        self._shares_tokens = other._shares_tokens = True
        for page in self._pages:
            page.references += 1
        other._pages.extend(self._pages)
        other._table = self._table.copy()
        return other

    @property
    def pages(self) -> Items[Page]:
        """What holds its keys and values, PAGE_TOKENS positions each; not to be changed."""
        return self._pages

    def adopt(self, tokens: Items[int], pages: Items[Page]) -> None:
        """Begin an empty sequence with tokens whose keys and values are in shared pages.

        The last page may hold more than the tokens use. A page is copied before it is written to.
        """
        if self.tokens or len(pages) != -(-len(tokens) // PAGE_TOKENS):
            raise ValueError("Only an empty sequence adopts pages, and as many as the tokens fill.")
        for page in pages:
            page.references += 1
        self._pages.extend(pages)
        self._table = np.zeros(max(8, len(pages)), np.uint64)
        self._table[: len(pages)] = [page.address for page in pages]
        self.tokens = list(tokens)

    def replace_page(self, index: int, page: Page) -> None:
        """Hold another page with the same keys and values instead of one's own."""
        page.references += 1
        own, self._pages[index] = self._pages[index], page
        self._table[index] = page.address
        self.engine.pool.release(own)

    def pages_missing(self, count: int) -> int:
        """How many pages must be allocated before `count` tokens can be appended."""
        length = len(self.tokens)
        missing = -(-(length + count) // PAGE_TOKENS) - len(self._pages)
        writing = length // PAGE_TOKENS
        copied = writing < len(self._pages) and self._pages[writing].references > 1
        return max(0, missing) + copied

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens.

        Raises:
            ValueError: the sequence is not that long.
        """
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"Cannot truncate {len(self.tokens)} tokens to {length}.")
        self._own_tokens()
        del self.tokens[length:]
        keep = -(-length // PAGE_TOKENS)
        for page in self._pages[keep:]:
            self.engine.pool.release(page)
        del self._pages[keep:]

    def append_computed(self, tokens: Items[int]) -> None:
        """Note tokens whose keys and values a step has just put into the pages."""
        self._own_tokens()
        self.tokens.extend(tokens)

    def close(self) -> None:
        """Give the pages back now; the sequence is empty afterwards."""
        self.truncate(0)

    def save(self, path: Path, *, durable: bool = True) -> None:
        """Write tokens, keys and values to a file, replacing it as a whole.

        `durable` waits until a power failure cannot lose it.

        Only the engine that made them can use keys and values: the file names the model, the
        kernel version and the arithmetic.
        """
        tokens = [int(token) for token in self.tokens]
        header = {"format": _MAGIC, "tokens": tokens, **_identity(self.engine)}
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            for page in self._pages[: -(-len(self.tokens) // PAGE_TOKENS)]:
                file.write(page.data.data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)

    @staticmethod
    def restore(engine: Engine, path: Path) -> Sequence:
        """Read what `save` wrote; continues bit for bit as the saved one would have.

        Raises:
            ModelFileError: not such a file, not whole, or made by another model or kernel.
        """
        try:
            with path.open("rb") as file:
                header = parse_object(file.readline(_LONGEST_HEADER), str(path))
                size = os.fstat(file.fileno()).st_size - file.tell()
                count = -(-engine.context // PAGE_TOKENS)
                data = file.read(min(size, count * engine.pool.page_bytes + 1))
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror}.") from error
        tokens, identity = header.get("tokens"), {key: header.get(key) for key in _identity(engine)}
        whole = isinstance(tokens, list) and all(type(token) is int for token in tokens)
        if header.get("format") != _MAGIC or not isinstance(tokens, list) or not whole:
            raise ModelFileError(f"{path}: not a saved sequence.")
        for key, ours in _identity(engine).items():
            if identity[key] != ours:
                raise ModelFileError(
                    f"{path}: saved with {key.replace('_', ' ')} {identity[key]}, and this engine "
                    f"has {ours}. Keys and values cannot be carried over; run the tokens again."
                )
        size = engine.pool.page_bytes
        count = -(-len(tokens) // PAGE_TOKENS)
        if len(data) != count * size:
            raise ModelFileError(
                f"{path}: holds {len(data)} bytes of pages; {len(tokens)} tokens have "
                f"{count * size}."
            )
        if len(tokens) > engine.context:
            raise ModelFileError(
                f"{path}: holds {len(tokens):,} tokens, and the context is {engine.context:,}."
            )
        if tokens and not 0 <= min(tokens) <= max(tokens) < engine.vocabulary:
            raise ModelFileError(f"{path}: tokens outside the vocabulary of {engine.vocabulary}.")
        sequence = Sequence(engine)
        sequence.reserve(len(tokens))
        sequence.tokens = tokens
        for index, page in enumerate(sequence._pages):
            page.data[:] = np.frombuffer(data, np.uint8, size, index * size)
        return sequence

    def _own_tokens(self) -> None:
        if self._shares_tokens:
            self.tokens = list(self.tokens)
            self._shares_tokens = False

    def reserve(self, count: int) -> int:
        """Make the pages of the next `count` positions present and writable.

        Returns:
            the address of the page table.
        """
        pool = self.engine.pool
        writing, end = (
            len(self.tokens) // PAGE_TOKENS,
            -(-(len(self.tokens) + count) // PAGE_TOKENS),
        )
        if writing < len(self._pages) and self._pages[writing].references > 1:
            # In this order an interruption loses a page at worst, and never shares a written one.
            shared, own = self._pages[writing], pool.allocate()
            own.data[:] = shared.data
            self._table[writing] = own.address
            self._pages[writing] = own
            pool.release(shared)
        if end > len(self._table):
            self._table = np.concatenate([self._table, np.zeros(end, np.uint64)])
        while len(self._pages) < end:
            page = pool.allocate()
            self._table[len(self._pages)] = page.address
            self._pages.append(page)
        return int(self._table.ctypes.data)


def _release_all(pool: PagePool, pages: list[Page]) -> None:
    for page in pages:
        pool.release(page)


def _identity(engine: Engine) -> dict[str, str | int]:
    return {
        "model": engine.model_sha256,
        "kernel_version": engine.kernel_version,
        "arithmetic": engine.arithmetic,
    }
