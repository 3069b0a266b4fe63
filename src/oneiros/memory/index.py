"""Hybrid search over documents: files, evicted pages of contexts, fetched web pages.

Passages are found by their words (BM25, Robertson and Zaragoza 2009, in SQLite's FTS5) and by their
meaning (sentence embeddings), and the two lists become one by reciprocal-rank fusion (Cormack,
Clarke and Buettcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods"). Each owner has a database of their own: nobody's documents are in another's
results, nor in the word statistics behind them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from oneiros.kernel.label import Label
from oneiros.memory.chunks import split_into_chunks
from oneiros.memory.extraction import ExtractedText
from oneiros.memory.passages import Indexed, Passage, Passages, query_terms
from oneiros.memory.vectors import VectorSet

FILE = "file"  # the kind of documents that are files of a disk

# Reciprocal-rank fusion: a passage gets 1 / (OFFSET + rank) from each list that it is in. Cormack
# et al. took 60, for lists of a thousand. On the dev half of bench/retrieval.py 10 is better by
# 0.01 to 0.02 of nDCG@10, and weights other than equal ones are worse.
OFFSET = 10
CANDIDATES = 100  # passages that each list has

# Texts embedded at a time. Few: a search waits for those that are being computed.
_BATCH = 8
# What is taken for tokens where there is no embedder.
_CHARACTERS_PER_TOKEN, _LONGEST = 4, 256


class Embeds(Protocol):
    """What the index needs of an `engine.embedding.Embedder`."""

    @property
    def dimensions(self) -> int: ...

    @property
    def longest(self) -> int: ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Something to be found."""

    owner: str
    kind: str  # FILE, or what else the caller has: "page", "web"
    path: str  # unique for its owner and kind; what a citation names
    text: str | ExtractedText
    label: Label
    title: str = ""
    sha256: str = ""  # of the content that the text was taken from; default: of the text
    size: int = 0  # of a file, in bytes
    modified: float = 0.0  # of a file, in seconds since the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found. `path` and lines or pages are its citation."""

    kind: str
    path: str
    title: str
    heading: str  # headings above it, the outermost first, with " > " between
    text: str
    start: int  # its first line in the document's text, from 1
    end: int  # its last line
    pages: tuple[int, int] | None  # first and last page, of documents that have pages
    score: float  # of the fusion: comparable within one search only
    similarity: float | None  # cosine to the query; None: not embedded yet
    label: Label

    @property
    def citation(self) -> str:
        """Path and place, such as "report.pdf, page 3" or "notes.md, lines 12-20"."""
        first, last = self.pages or (self.start, self.end)
        unit = "page" if self.pages else "line"
        place = f"{unit} {first}" if first == last else f"{unit}s {first}-{last}"
        return f"{self.path}, {place}"


@dataclass(slots=True)
class _Shelf:
    """One owner's part of the index."""

    passages: Passages
    lock: threading.RLock = field(default_factory=threading.RLock)
    embedding: threading.Lock = field(default_factory=threading.Lock)
    vectors: dict[str, VectorSet] | None = None  # by kind; None: not loaded
    version: int = -1  # of the database when they were loaded


class Index:
    """Documents of many owners. Threads may use it at the same time."""

    def __init__(
        self,
        folder: Path,
        embedder: Callable[[], Embeds] | None,
        *,
        model: str = "all-minilm-l6-v2",
    ) -> None:
        """Open the index of a folder, or make it.

        Args:
            folder: for the databases.
            embedder: gives the embedder when it is needed first; None: search by words only.
            model: the embedder's name; what another one computed is not used.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._load = embedder
        self._model = model
        self._embedder: Embeds | None = None
        self._shelves: dict[str, _Shelf] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the databases."""
        with self._lock:
            for shelf in self._shelves.values():
                shelf.passages.close()
            self._shelves.clear()

    def add(self, document: Document, *, embed: bool = True) -> bool:
        """Add a document, or replace the one of its kind and path.

        It is found by its words when this returns, and by its meaning once it is embedded.

        Args:
            document: what to add.
            embed: whether to embed it now; else `embed` does it later.

        Returns:
            Whether anything changed: false for a document that was there with this content.

        Raises:
            DiskError: the index cannot be written.
        """
        text = document.text
        extracted = text if isinstance(text, ExtractedText) else ExtractedText(text, "markdown")
        sha256 = (
            document.sha256
            or hashlib.sha256(
                f"{document.title}\n{extracted.text}".encode(errors="replace")
            ).hexdigest()
        )
        shelf = self._shelf(document.owner)
        with shelf.lock:
            before = shelf.passages.known(document.kind, document.path).get(document.path)
            if before and (before.sha256, before.label) == (sha256, document.label):
                shelf.passages.touch(document.kind, document.path, document.size, document.modified)
                return False
        title = document.title or extracted.title
        count, longest = self._counting()
        chunks = split_into_chunks(extracted, count, longest, title=title)
        known = Indexed(sha256, document.label, document.size, document.modified)
        placed = [(chunk, _pages(extracted, chunk.start, chunk.end)) for chunk in chunks]
        with shelf.lock:
            gone, come = shelf.passages.put(document.kind, document.path, title, known, placed)
            self._forget(shelf, document.kind, gone)
            if shelf.vectors is not None:
                self._take(shelf, shelf.passages.vectors(chunks=come))
        if embed:
            self.embed(document.owner)
        return True

    def refuse(self, document: Document, problem: str) -> None:
        """Record a document that has no text to be found, so that it is not read again."""
        shelf = self._shelf(document.owner)
        known = Indexed(document.sha256, document.label, document.size, document.modified, problem)
        with shelf.lock:
            gone, _ = shelf.passages.put(document.kind, document.path, "", known, ())
            self._forget(shelf, document.kind, gone)

    def remove(self, owner: str, kind: str, path: str) -> bool:
        """Remove a document; says whether it was there."""
        shelf = self._shelf(owner)
        with shelf.lock:
            gone = shelf.passages.remove(kind, path)
            self._forget(shelf, kind, gone or ())
        return gone is not None

    def known(self, owner: str, kind: str) -> dict[str, Indexed]:
        """The documents of a kind, by path."""
        shelf = self._shelf(owner)
        with shelf.lock:
            return shelf.passages.known(kind)

    def embed(self, owner: str, limit: int | None = None) -> int:
        """Embed passages that are not embedded yet, the newest first; says how many.

        Args:
            owner: whose.
            limit: how many at most.
        """
        if self._load is None:
            return 0
        shelf, done = self._shelf(owner), 0
        while limit is None or done < limit:
            # Whoever added something last has it embedded next, whoever embeds.
            with shelf.embedding:
                with shelf.lock:
                    texts = shelf.passages.without_vector(_BATCH)
                if not texts:
                    break
                computed = self._loaded().embed(list(texts.values()), truncate=True)
                rows = dict(zip(texts, computed.astype(np.float16), strict=True))
                with shelf.lock:
                    shelf.passages.put_vectors(rows)
                    if shelf.vectors is not None:
                        self._take(shelf, shelf.passages.vectors(hashes=rows))
                done += len(texts)
        return done

    def search(
        self,
        query: str,
        owner: str,
        *,
        limit: int = 8,
        kinds: Iterable[str] | None = None,
    ) -> list[Hit]:
        """The passages that fit a query best, the best first.

        Args:
            query: words, or a question.
            owner: whose documents.
            limit: how many passages at most.
            kinds: of documents; default: all.
        """
        shelf = self._shelf(owner)
        wanted = None if kinds is None else sorted(set(kinds))
        vector = self._loaded().embed([query], truncate=True)[0] if self._load else None
        with shelf.lock:
            scores = fuse(
                shelf.passages.by_words(query_terms(query), wanted, max(CANDIDATES, limit))
            )
            sets: list[VectorSet] = []
            if vector is not None:
                vectors = self._vectors(shelf)
                sets = [vectors[kind] for kind in wanted or vectors if kind in vectors]
                near = [hit for one in sets for hit in one.nearest(vector, max(CANDIDATES, limit))]
                near.sort(key=lambda hit: (-hit[1], hit[0]))
                for chunk, score in fuse([chunk for chunk, _ in near]).items():
                    scores[chunk] = scores.get(chunk, 0.0) + score
            best = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:limit]
            passages = shelf.passages.passages(best)
            cosines: dict[int, float] = {}
            for one in sets:
                assert vector is not None
                cosines |= one.cosines(vector, best)
        return [
            _hit(passages[chunk], scores[chunk], cosines.get(chunk))
            for chunk in best
            if chunk in passages
        ]

    def _shelf(self, owner: str) -> _Shelf:
        with self._lock:
            if owner not in self._shelves:
                name = quote(owner, safe="")
                if len(name) > 100:
                    name = hashlib.sha256(owner.encode()).hexdigest()
                path = self._folder / f"{name}.sqlite"
                self._shelves[owner] = _Shelf(Passages(path, self._model))
            return self._shelves[owner]

    def _loaded(self) -> Embeds:
        assert self._load is not None
        with self._lock:
            if self._embedder is None:
                self._embedder = self._load()
            return self._embedder

    def _counting(self) -> tuple[Callable[[Sequence[str]], list[int]], int]:
        """How tokens are counted, and how many a chunk may have."""
        if self._load is None:
            return _estimated_tokens, _LONGEST
        embedder = self._loaded()
        special = embedder.count_tokens([""])[0]  # those before and after every text

        def count(texts: Sequence[str]) -> list[int]:
            return [tokens - special for tokens in embedder.count_tokens(texts)]

        return count, embedder.longest - special

    def _vectors(self, shelf: _Shelf) -> dict[str, VectorSet]:
        version = shelf.passages.data_version()
        if shelf.vectors is None or version != shelf.version:
            shelf.vectors, shelf.version = {}, version
            self._take(shelf, shelf.passages.vectors())
        return shelf.vectors

    def _take(self, shelf: _Shelf, found: list[tuple[str, int, NDArray[np.float16]]]) -> None:
        """Add vectors to those in memory, which are loaded."""
        assert shelf.vectors is not None
        for kind in {kind for kind, *_ in found}:
            rows = [(chunk, vector) for other, chunk, vector in found if other == kind]
            vectors = np.stack([vector for _, vector in rows])
            one = shelf.vectors.setdefault(kind, VectorSet(vectors.shape[1]))
            one.add([chunk for chunk, _ in rows], vectors)

    def _forget(self, shelf: _Shelf, kind: str, chunks: Iterable[int]) -> None:
        if shelf.vectors is not None and kind in shelf.vectors:
            shelf.vectors[kind].remove(chunks)


def fuse(ranked: Sequence[int]) -> dict[int, float]:
    """What each of a ranked list gets in reciprocal-rank fusion."""
    return {item: 1 / (OFFSET + rank) for rank, item in enumerate(ranked, 1)}


def _pages(extracted: ExtractedText, start: int, end: int) -> tuple[int, int] | None:
    first, last = extracted.page(start), extracted.page(end)
    return None if first is None or last is None else (first, last)


def _hit(passage: Passage, score: float, similarity: float | None) -> Hit:
    return Hit(
        kind=passage.kind,
        path=passage.path,
        title=passage.title,
        heading=passage.chunk.heading,
        text=passage.chunk.text,
        start=passage.chunk.start,
        end=passage.chunk.end,
        pages=passage.pages,
        score=score,
        similarity=similarity,
        label=passage.label,
    )


def _estimated_tokens(texts: Sequence[str]) -> list[int]:
    return [len(text) // _CHARACTERS_PER_TOKEN + 1 for text in texts]
