"""What is known of the files of a disk: every change, and the version that each file had last."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import sqlalchemy as sql

from oneiros.errors import DiskError
from oneiros.kernel.label import Label
from oneiros.memory.database import open_database

SCHEMA_VERSION = 1

# "outside": made by somebody else than a tool, and noticed afterwards.
ChangeKind = Literal["write", "delete", "move", "outside"]


@dataclass(frozen=True, slots=True)
class Version:
    """A file's content at some time."""

    sha256: str
    size: int  # bytes
    mode: int  # permission bits
    label: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of one file."""

    id: int  # in the order in which they happened
    time: float  # seconds since the epoch; of a change from outside: when it was noticed
    kind: ChangeKind
    path: str
    target: str | None = None  # where it was moved to
    before: Version | None  # None: there was no file
    after: Version | None  # None: there is no file
    call_id: str = ""
    tool: str = ""
    pid: int | None = None
    undoes: int | None = None  # the change that this one takes back
    folders: int = 0  # folders above the file that were made for it


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A change that was begun and not recorded as done."""

    change: Change
    temporary: str  # a name in the file's folder; what it means depends on the kind
    inode: int | None  # of the file that is put in place, or moved; None: it was not ready yet


_metadata = sql.MetaData()
_versions = sql.Table(
    "versions",
    _metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("sha256", sql.String, nullable=False),
    sql.Column("size", sql.Integer, nullable=False),
    sql.Column("mode", sql.Integer, nullable=False),
    sql.Column("label", sql.String, nullable=False),
    sql.UniqueConstraint("sha256", "mode", "label"),
)
_changes = sql.Table(
    "changes",
    _metadata,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("time", sql.Float, nullable=False),
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("path", sql.String, nullable=False, index=True),
    sql.Column("target", sql.String, index=True),
    sql.Column("before", sql.ForeignKey("versions.id")),
    sql.Column("after", sql.ForeignKey("versions.id")),
    sql.Column("call_id", sql.String, nullable=False, index=True),
    sql.Column("tool", sql.String, nullable=False),
    sql.Column("pid", sql.Integer),
    sql.Column("undoes", sql.ForeignKey("changes.id"), index=True),
    sql.Column("folders", sql.Integer, nullable=False),
    sql.Column("done", sql.Boolean, nullable=False),
    sql.Column("temporary", sql.String),  # null once nothing of that name can be there
    sql.Column("inode", sql.Integer),
    sqlite_autoincrement=True,  # a number once told is never another change's
)
sql.Index("changes_open", _changes.c.id, sqlite_where=_changes.c.temporary.is_not(None))
# The version that each file had when it was last looked at; files never changed here are not in it.
_files = sql.Table(
    "files",
    _metadata,
    sql.Column("path", sql.String, primary_key=True),
    sql.Column("version", sql.ForeignKey("versions.id"), nullable=False),
)


class VersionLog:
    """The changes of one disk, in an SQLite database. One process at a time may use it."""

    def __init__(self, path: Path) -> None:
        """Open the database, or make it.

        Raises:
            DiskError: it is damaged, or of a later version of Oneiros.
        """
        self._path = path
        self._engine = open_database(path, "foreign_keys = ON")
        with self._transaction() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found > SCHEMA_VERSION:
                raise DiskError(
                    f"{path}: written by a later version of Oneiros (schema {found}; this one "
                    f"knows {SCHEMA_VERSION}). Update Oneiros."
                )
            _metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sql.Connection]:
        """One transaction. It survives a kill, and if `durable` a loss of power."""
        try:
            with self._engine.begin() as connection:
                # SQLite's own transaction begins with the first change; until then this counts.
                level = "FULL" if durable else "NORMAL"
                connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
                yield connection
        except sql.exc.DBAPIError as error:
            raise DiskError(
                f"{self._path}: the versions of the files cannot be read or written "
                f"({error.orig}). Free space on the disk, or restore the database from a backup."
            ) from error

    def current(self, path: str) -> Version | None:
        """The version that a file had when it was last looked at; None: nothing is known."""
        query = (
            sql.select(_versions)
            .join(_files, _files.c.version == _versions.c.id)
            .where(_files.c.path == path)
        )
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _version(row)

    def labels(self, folder: str) -> list[Label]:
        """The labels of the known versions of the files in a folder, and not in those in it."""
        prefix = f"{folder}/" if folder else ""
        path, length = _files.c.path, len(prefix)
        query = (
            sql.select(_versions.c.label)
            .distinct()
            .join(_files, _files.c.version == _versions.c.id)
            .where(sql.func.substr(path, 1, length) == prefix)
            .where(sql.func.instr(sql.func.substr(path, length + 1), "/") == 0)
        )
        with self._transaction() as connection:
            return [label_from_json(text) for text in connection.scalars(query)]

    def tracked(self) -> list[str]:
        """The paths of all files of which a version is known."""
        with self._transaction() as connection:
            return list(connection.scalars(sql.select(_files.c.path).order_by(_files.c.path)))

    def begin(self, change: Change, temporary: str, inode: int | None = None) -> int:
        """Record what is about to happen; says the change's number.

        With an inode it is ready to happen, and known of even after a loss of power.
        """
        with self._transaction(durable=inode is not None) as connection:
            return _insert(connection, change, done=False, temporary=temporary, inode=inode)

    def staged(self, change: int, inode: int) -> None:
        """Record that the file that is to be put in place is ready."""
        with self._transaction(durable=True) as connection:
            connection.execute(
                sql.update(_changes).where(_changes.c.id == change).values(inode=inode)
            )

    def unfinished(self) -> list[Unfinished]:
        """The changes that were begun and not recorded as done."""
        return self._open(_changes.c.done.is_(False))

    def untidy(self) -> list[Unfinished]:
        """Those that are done, and whose temporary file may still be there."""
        return self._open(_changes.c.done.is_(True))

    def _open(self, condition: sql.ColumnElement[bool]) -> list[Unfinished]:
        condition &= _changes.c.temporary.is_not(None)
        query = sql.select(_changes.c.id, _changes.c.temporary, _changes.c.inode)
        with self._transaction() as connection:
            rows = connection.execute(query.where(condition).order_by(_changes.c.id)).all()
            if not rows:
                return []
            changes = {c.id: c for c in _select(connection, condition)}
        return [Unfinished(changes[row.id], row.temporary, row.inode) for row in rows]

    def finish(self, number: int, *, tidy: bool, displaced: Version | None = None) -> Change:
        """Record that a change happened; says it as it is known from now on.

        Args:
            number: the change.
            tidy: whether its temporary file is gone already.
            displaced: what was in the place of its `before`, if it was something else: somebody
                changed the file in the last moment. That becomes a change of its own.
        """
        with self._transaction() as connection:
            (change,) = _select(connection, _changes.c.id == number)
            if displaced is not None:
                row = connection.execute(
                    sql.select(_changes.c.temporary).where(_changes.c.id == number)
                ).one()
                connection.execute(sql.delete(_changes).where(_changes.c.id == number))
                outside = Change(
                    id=0,
                    time=time.time(),
                    kind="outside",
                    path=change.path,
                    before=change.before,
                    after=displaced,
                )
                _insert(connection, outside, done=True)
                change = replace(change, before=displaced)
                number = _insert(connection, change, done=True, temporary=row.temporary)
            connection.execute(
                sql.update(_changes)
                .where(_changes.c.id == number)
                .values(done=True, **({"temporary": None} if tidy else {}))
            )
            _follow(connection, change)
            return _select(connection, _changes.c.id == number)[0]

    def drop(self, number: int) -> None:
        """Forget a change that did not happen."""
        with self._transaction() as connection:
            connection.execute(sql.delete(_changes).where(_changes.c.id == number))

    def tidied(self, number: int) -> None:
        """Record that a change's temporary file is gone."""
        with self._transaction() as connection:
            connection.execute(
                sql.update(_changes).where(_changes.c.id == number).values(temporary=None)
            )

    def noticed(self, path: str, before: Version | None, after: Version | None) -> Change:
        """Record a change that somebody made outside."""
        change = Change(
            id=0, time=time.time(), kind="outside", path=path, before=before, after=after
        )
        with self._transaction() as connection:
            number = _insert(connection, change, done=True)
            _follow(connection, change)
            return _select(connection, _changes.c.id == number)[0]

    def change(self, number: int) -> Change | None:
        """A change that happened; None: there is none of that number."""
        with self._transaction() as connection:
            found = _select(connection, (_changes.c.id == number) & _changes.c.done)
        return found[0] if found else None

    def of_call(self, call_id: str) -> list[Change]:
        """The changes that a call made, in their order."""
        with self._transaction() as connection:
            return _select(connection, (_changes.c.call_id == call_id) & _changes.c.done)

    def of_path(self, path: str) -> list[Change]:
        """The changes of a file, in their order; also from before it was moved to this path."""
        with self._transaction() as connection:
            found: list[Change] = []
            before: int | None = None
            while True:
                condition = ((_changes.c.path == path) | (_changes.c.target == path)) & (
                    _changes.c.done
                )
                if before is not None:
                    condition &= _changes.c.id < before
                rows = _select(connection, condition)
                moved = [c for c in rows if c.target == path]
                if not moved:
                    return rows + found
                # What this path was before the file came is another file's history.
                found = [c for c in rows if c.id >= moved[-1].id] + found
                path, before = moved[-1].path, moved[-1].id

    def undone_by(self, number: int) -> Change | None:
        """The change that took another one back, unless it was itself taken back."""
        with self._transaction() as connection:
            return _undone_by(connection, number)


def _insert(
    connection: sql.Connection,
    change: Change,
    *,
    done: bool,
    temporary: str | None = None,
    inode: int | None = None,
) -> int:
    values = {
        "time": change.time,
        "kind": change.kind,
        "path": change.path,
        "target": change.target,
        "before": _version_id(connection, change.before),
        "after": _version_id(connection, change.after),
        "call_id": change.call_id,
        "tool": change.tool,
        "pid": change.pid,
        "undoes": change.undoes,
        "folders": change.folders,
        "done": done,
        "temporary": temporary,
        "inode": inode,
    }
    key = connection.execute(sql.insert(_changes).values(values)).lastrowid
    return int(key)


def _version_id(connection: sql.Connection, version: Version | None) -> int | None:
    if version is None:
        return None
    label = label_to_json(version.label)
    query = sql.select(_versions.c.id).where(
        (_versions.c.sha256 == version.sha256)
        & (_versions.c.mode == version.mode)
        & (_versions.c.label == label)
    )
    found = connection.scalar(query)
    if found is not None:
        return int(found)
    values = {
        "sha256": version.sha256,
        "size": version.size,
        "mode": version.mode,
        "label": label,
    }
    return int(connection.execute(sql.insert(_versions).values(values)).lastrowid)


def _follow(connection: sql.Connection, change: Change) -> None:
    """Have `files` say what a change made of them."""
    connection.execute(sql.delete(_files).where(_files.c.path == change.path))
    path = change.target or change.path
    if change.after is not None:
        version = _version_id(connection, change.after)
        connection.execute(sql.delete(_files).where(_files.c.path == path))
        connection.execute(sql.insert(_files).values(path=path, version=version))


def _select(connection: sql.Connection, condition: sql.ColumnElement[bool]) -> list[Change]:
    before, after = _versions.alias(), _versions.alias()
    query = (
        sql.select(
            _changes,
            *(column.label(f"before_{column.name}") for column in before.columns),
            *(column.label(f"after_{column.name}") for column in after.columns),
        )
        .select_from(
            _changes.outerjoin(before, _changes.c.before == before.c.id).outerjoin(
                after, _changes.c.after == after.c.id
            )
        )
        .where(condition)
        .order_by(_changes.c.id)
    )
    return [
        Change(
            id=row.id,
            time=row.time,
            kind=row.kind,
            path=row.path,
            target=row.target,
            before=_joined_version(row, "before"),
            after=_joined_version(row, "after"),
            call_id=row.call_id,
            tool=row.tool,
            pid=row.pid,
            undoes=row.undoes,
            folders=row.folders,
        )
        for row in connection.execute(query)
    ]


def _undone_by(connection: sql.Connection, number: int) -> Change | None:
    undos = _select(connection, (_changes.c.undoes == number) & _changes.c.done)
    standing = (undo for undo in undos if _undone_by(connection, undo.id) is None)
    return next(standing, None)


def _version(row: sql.Row[tuple[object, ...]]) -> Version:
    return Version(row.sha256, row.size, row.mode, label_from_json(row.label))


def _joined_version(row: sql.Row[tuple[object, ...]], side: str) -> Version | None:
    values = row._mapping
    if values[f"{side}_id"] is None:
        return None
    return Version(
        values[f"{side}_sha256"],
        values[f"{side}_size"],
        values[f"{side}_mode"],
        label_from_json(values[f"{side}_label"]),
    )


def label_to_json(label: Label) -> str:
    """A label as text, equal for equal labels."""
    readers = None if label.readers is None else sorted(label.readers)
    return json.dumps({"origins": sorted(label.origins), "readers": readers})


@functools.lru_cache(maxsize=1_000)  # few labels, of many files
def label_from_json(text: str) -> Label:
    """The label of `label_to_json`'s text."""
    found = json.loads(text)
    return Label.of(*found["origins"], readers=found["readers"])
