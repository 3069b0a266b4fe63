"""The passages of one owner's documents in SQLite, searchable by words, with their vectors."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sql
from numpy.typing import NDArray

from oneiros.errors import DiskError
from oneiros.kernel.label import Label
from oneiros.memory.chunks import Chunk
from oneiros.memory.database import open_database
from oneiros.memory.versions import label_from_json, label_to_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Indexed:
    """What is known of a document in the index."""

    sha256: str  # of its content
    label: Label
    size: int = 0  # of the file, to see without reading it whether it changed; else 0
    modified: float = 0.0  # likewise
    problem: str = ""  # why it has no passages


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document as it is found."""

    kind: str
    path: str
    title: str
    chunk: Chunk
    pages: tuple[int, int] | None  # first and last page, where the document has pages
    label: Label


_metadata = sql.MetaData()
_documents = sql.Table(
    "documents",
    _metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("path", sql.String, nullable=False),
    sql.Column("title", sql.String, nullable=False),
    sql.Column("sha256", sql.String, nullable=False),
    sql.Column("label", sql.String, nullable=False),
    sql.Column("size", sql.Integer, nullable=False),
    sql.Column("modified", sql.Float, nullable=False),
    sql.Column("problem", sql.String, nullable=False),
    sql.UniqueConstraint("kind", "path"),
)
_chunks = sql.Table(
    "chunks",
    _metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("document", sql.ForeignKey("documents.id"), nullable=False, index=True),
    sql.Column("heading", sql.String, nullable=False),
    sql.Column("text", sql.String, nullable=False),
    sql.Column("first", sql.Integer, nullable=False),
    sql.Column("last", sql.Integer, nullable=False),
    sql.Column("first_page", sql.Integer),
    sql.Column("last_page", sql.Integer),
    sql.Column("hash", sql.String, nullable=False, index=True),  # of what is embedded
    sqlite_autoincrement=True,
)
# Under hashes of texts, so that what moves, comes back or stays while the rest of a file changes is
# not computed again.
_vectors = sql.Table(
    "vectors",
    _metadata,
    sql.Column("hash", sql.String, primary_key=True),
    sql.Column("vector", sql.LargeBinary, nullable=False),  # float16
)
_settings = sql.Table(
    "settings",
    _metadata,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("value", sql.String, nullable=False),
)
_WORDS = """
CREATE VIRTUAL TABLE IF NOT EXISTS words
USING fts5(heading, text, tokenize = "porter unicode61")
"""


class Passages:
    """One owner's documents, cut into chunks."""

    def __init__(self, path: Path, model: str) -> None:
        """Open the database, or make it.

        Args:
            path: the database.
            model: the embedding model; vectors of another one are dropped.

        Raises:
            DiskError: it is damaged, or of a later version of Oneiros.
        """
        self._path = path
        # The last moments before a loss of power are indexed again; nothing is damaged.
        self._engine = open_database(path, "synchronous = NORMAL")
        with self._transaction() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found > SCHEMA_VERSION:
                raise DiskError(f"{path}: written by a later version of Oneiros. Update Oneiros.")
            _metadata.create_all(connection)
            connection.exec_driver_sql(_WORDS)
            if connection.scalar(sql.select(_settings.c.value)) != model:
                connection.execute(sql.delete(_vectors))
                connection.execute(sql.delete(_settings))
                connection.execute(sql.insert(_settings).values(name="model", value=model))
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sql.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sql.exc.DBAPIError as error:
            raise DiskError(
                f"{self._path}: the search index cannot be read or written ({error.orig}). Free "
                "space on the disk; a damaged index can be deleted, and is then made anew."
            ) from error

    def put(
        self,
        kind: str,
        path: str,
        title: str,
        known: Indexed,
        chunks: Sequence[tuple[Chunk, tuple[int, int] | None]],
    ) -> tuple[list[int], list[int]]:
        """Add a document, or replace it; says the chunks that went, and those that came."""
        with self._transaction() as connection:
            gone, hashes = _remove(connection, kind, path)
            values = {
                "kind": kind,
                "path": path,
                "title": title,
                "sha256": known.sha256,
                "label": label_to_json(known.label),
                "size": known.size,
                "modified": known.modified,
                "problem": known.problem,
            }
            key = connection.execute(sql.insert(_documents).values(values)).lastrowid
            come = [_insert(connection, int(key), chunk, pages) for chunk, pages in chunks]
            _drop_unused(connection, hashes)
        return gone, come

    def remove(self, kind: str, path: str) -> list[int] | None:
        """Remove a document; says the chunks that went, or None where it was not there."""
        with self._transaction() as connection:
            there = connection.scalar(sql.select(_documents.c.id).where(_is(kind, path)))
            if there is None:
                return None
            gone, hashes = _remove(connection, kind, path)
            _drop_unused(connection, hashes)
        return gone

    def touch(self, kind: str, path: str, size: int, modified: float) -> None:
        """Record the size and time of a file whose content is still the same."""
        with self._transaction() as connection:
            connection.execute(
                sql.update(_documents).where(_is(kind, path)).values(size=size, modified=modified)
            )

    def known(self, kind: str, path: str | None = None) -> dict[str, Indexed]:
        """The documents of a kind, by path; with a path, only that one."""
        query = sql.select(_documents).where(_documents.c.kind == kind)
        if path is not None:
            query = query.where(_documents.c.path == path)
        with self._transaction() as connection:
            return {
                row.path: Indexed(
                    row.sha256, label_from_json(row.label), row.size, row.modified, row.problem
                )
                for row in connection.execute(query)
            }

    def kinds(self) -> list[str]:
        """The kinds that there are documents of."""
        with self._transaction() as connection:
            return list(connection.scalars(sql.select(_documents.c.kind).distinct()))

    # Vectors

    def without_vector(self, limit: int) -> dict[str, str]:
        """Texts that have no vector yet, by their hashes; at most `limit`, the newest first."""
        query = (
            sql.select(_chunks.c.hash, _chunks.c.heading, _chunks.c.text, _chunks.c.first)
            .outerjoin(_vectors, _vectors.c.hash == _chunks.c.hash)
            .where(_vectors.c.hash.is_(None))
            .order_by(_chunks.c.id.desc())
            .limit(limit)
        )
        with self._transaction() as connection:
            return {
                row.hash: Chunk(row.text, row.heading, row.first, row.first).whole
                for row in connection.execute(query)
            }

    def put_vectors(self, vectors: Mapping[str, NDArray[np.float16]]) -> None:
        """Keep vectors under the hashes of their texts."""
        rows = [{"hash": name, "vector": vector.tobytes()} for name, vector in vectors.items()]
        with self._transaction() as connection:
            connection.execute(sql.insert(_vectors).prefix_with("OR REPLACE"), rows)

    def vectors(
        self, *, chunks: Iterable[int] | None = None, hashes: Iterable[str] | None = None
    ) -> list[tuple[str, int, NDArray[np.float16]]]:
        """Kind, chunk and vector of the chunks that have one; default: of all of them."""
        query = (
            sql.select(_documents.c.kind, _chunks.c.id, _vectors.c.vector)
            .join(_chunks, _chunks.c.document == _documents.c.id)
            .join(_vectors, _vectors.c.hash == _chunks.c.hash)
        )
        if chunks is not None:
            query = query.where(_chunks.c.id.in_(list(chunks)))
        if hashes is not None:
            query = query.where(_chunks.c.hash.in_(list(hashes)))
        with self._transaction() as connection:
            return [
                (row.kind, row.id, np.frombuffer(row.vector, np.float16))
                for row in connection.execute(query)
            ]

    def data_version(self) -> int:
        """A number that changes when somebody else writes to the database."""
        with self._transaction() as connection:
            return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    # Searching

    def by_words(self, terms: Sequence[str], kinds: Sequence[str] | None, count: int) -> list[int]:
        """Chunks with any of some words, those of the highest BM25 score first."""
        if not terms:
            return []
        query, condition = "SELECT words.rowid FROM words", "words MATCH :match"
        values: dict[str, object] = {"count": count}
        values["match"] = " OR ".join(f'"{term}"' for term in terms)
        if kinds is not None:
            query += (
                " JOIN chunks ON chunks.id = words.rowid"
                " JOIN documents ON documents.id = chunks.document"
            )
            condition += " AND documents.kind IN :kinds"
            values["kinds"] = list(kinds)
        statement = sql.text(f"{query} WHERE {condition} ORDER BY rank, words.rowid LIMIT :count")
        if kinds is not None:
            statement = statement.bindparams(sql.bindparam("kinds", expanding=True))
        with self._transaction() as connection:
            return [row[0] for row in connection.execute(statement, values)]

    def passages(self, chunks: Sequence[int]) -> dict[int, Passage]:
        """Chunks by their numbers."""
        query = (
            sql.select(
                _chunks,
                _documents.c.kind,
                _documents.c.path,
                _documents.c.title,
                _documents.c.label,
            )
            .join(_documents, _documents.c.id == _chunks.c.document)
            .where(_chunks.c.id.in_(chunks))
        )
        with self._transaction() as connection:
            return {
                row.id: Passage(
                    row.kind,
                    row.path,
                    row.title,
                    Chunk(row.text, row.heading, row.first, row.last),
                    None if row.first_page is None else (row.first_page, row.last_page),
                    label_from_json(row.label),
                )
                for row in connection.execute(query)
            }


_CJK = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])")
_CAMEL = re.compile(r"[a-z0-9](?=[A-Z])|[A-Z](?=[A-Z][a-z])")
_WORD = re.compile(r"\w+")
_COMMON = re.compile(
    r"an?|and|are|as|at|be|but|by|do|does|for|from|has|have|how|i|if|in|into|is|it|its|me|my|no|not"
    r"|of|on|or|such|that|the|their|then|there|these|they|this|to|was|we|were|what|when|where|which"
    r"|who|why|will|with|you|your"
)


def searchable(text: str) -> str:
    """A text as its words are indexed.

    Case and accents do not count. Scripts without spaces are words of one character each, and the
    parts of names such as `readFile` are words beside the name.
    """
    parts = [
        _CAMEL.sub(r"\g<0> ", word)
        for word in dict.fromkeys(_WORD.findall(text))
        if _CAMEL.search(word)
    ]
    text = "\n".join((text, *parts))
    if not text.isascii():
        marked = unicodedata.normalize("NFKD", text)
        bare = "".join(char for char in marked if unicodedata.category(char) != "Mn")
        text = _CJK.sub(r" \1 ", unicodedata.normalize("NFC", bare))
    return text.casefold()


def query_terms(query: str, most: int = 64) -> list[str]:
    """The different words of a query that are searched, in its order.

    Words that are in almost every English text are left out: they cost most of the time and change
    next to nothing. Where there are no others they stay.
    """
    words = list(dict.fromkeys(_WORD.findall(searchable(query).replace("_", " "))))
    return ([word for word in words if not _COMMON.fullmatch(word)] or words)[:most]


def _is(kind: str, path: str) -> sql.ColumnElement[bool]:
    return (_documents.c.kind == kind) & (_documents.c.path == path)


def _insert(
    connection: sql.Connection, document: int, chunk: Chunk, pages: tuple[int, int] | None
) -> int:
    values = {
        "document": document,
        "heading": chunk.heading,
        "text": chunk.text,
        "first": chunk.start,
        "last": chunk.end,
        "first_page": pages and pages[0],
        "last_page": pages and pages[1],
        "hash": hashlib.sha256(chunk.whole.encode(errors="replace")).hexdigest(),
    }
    key = connection.execute(sql.insert(_chunks).values(values)).lastrowid
    words = {
        "id": key,
        "heading": searchable(chunk.heading),
        "text": searchable(chunk.text),
    }
    connection.execute(
        sql.text("INSERT INTO words(rowid, heading, text) VALUES (:id, :heading, :text)"), words
    )
    return int(key)


def _remove(connection: sql.Connection, kind: str, path: str) -> tuple[list[int], list[str]]:
    """Remove a document with its chunks: their numbers, and the hashes of their texts.

    Their vectors stay, for the chunks that may come instead.
    """
    document = connection.scalar(sql.select(_documents.c.id).where(_is(kind, path)))
    if document is None:
        return [], []
    query = sql.select(_chunks.c.id, _chunks.c.hash).where(_chunks.c.document == document)
    gone = connection.execute(query).all()
    for row in gone:
        connection.execute(sql.text("DELETE FROM words WHERE rowid = :id"), {"id": row.id})
    connection.execute(sql.delete(_chunks).where(_chunks.c.document == document))
    connection.execute(sql.delete(_documents).where(_documents.c.id == document))
    return [row.id for row in gone], [row.hash for row in gone]


def _drop_unused(connection: sql.Connection, hashes: Sequence[str]) -> None:
    """Remove the vectors of texts that no chunk has any more."""
    for name in hashes:
        used = sql.exists().where(_chunks.c.hash == name)
        connection.execute(sql.delete(_vectors).where((_vectors.c.hash == name) & ~used))
