"""A journal's file that is damaged: what can be read of it goes into a new one.

The damaged file is kept, under another name. A crash at any point leaves either the damaged file
in its place, from which salvage begins again, or a finished new one, which is then put there.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from oneiros.errors import JournalError
from oneiros.kernel.journal_database import DamagedFileError, Database, suspect
from oneiros.kernel.journal_schema import (
    BLOB,
    DAMAGED,
    EVENT,
    META,
    PROCESS,
    event_checksum,
    migrate,
)

# Smaller files are checked whole when they are opened: about 0.1 s for the largest. Of larger ones
# what opening reads is checked, and the rest whenever it is read.
CHECKED_WHOLE = 32 * 2**20  # bytes
# Numbers that processes may have had of which nothing was left: not given again, because what a
# call did is found by its process's number.
SPARE_PIDS = 1_000
# Rows that cannot be read are passed over one by one, so that none behind them is missed, and
# after so many in ever larger steps: then most of the file is gone, or its end.
SINGLE_STEPS = 4_096


def open_sound(path: Path) -> tuple[Database, list[str]]:
    """Open a journal's file as a sound one of this version.

    Returns:
        The file, and sentences about what was damaged and what was done.

    Raises:
        JournalError: no event in it can be read, it is of a newer version or another program's, or
            it cannot be written.
    """
    _put_in_place(path)
    try:
        return _open(path), []
    except DamagedFileError:
        note = salvage(path)
        return _open(path), [note]


def salvage(path: Path) -> str:
    """Copy what can be read of a damaged journal into a new one, and put that in its place.

    Returns:
        What was done, in sentences for the user.

    Raises:
        JournalError: no event can be read, or the new file cannot be written.
    """
    unfinished = path.with_suffix(".unfinished.sqlite")
    _remove(unfinished)
    new = Database(unfinished)
    try:
        migrate(new)
        found = _copy(path, new)
        new.flush_log()
    finally:
        new.close()
    if not found["events"]:
        _remove(unfinished)
        raise JournalError(
            f"{path} is damaged so much that no event in it can be read. Put a backup in its "
            "place, or move it away to begin a new journal."
        )
    number = next(n for n in count(1) if not _kept(path, n).exists())
    unfinished.replace(_finished(path, number))
    _put_in_place(path)
    note = (
        f"{path.name} was damaged. A new one has what could be read: {found['events']:,} events "
        f"and {found['texts']:,} texts; what was written last may be missing."
    )
    if found["aside"]:
        note += f" {found['aside']:,} more events do not follow the others, and are set aside."
    return f"{note} The damaged file is kept as {_kept(path, number).name}."


def _open(path: Path) -> Database:
    database = Database(path)
    try:
        if suspect(path).exists():
            database.check(indexes=True)
            suspect(path).unlink()
        elif path.stat().st_size <= CHECKED_WHOLE:
            database.check()
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _copy(path: Path, new: Database) -> Counter[str]:
    """Copy events and texts that verify, and make up the rest from them; returns how many."""
    found: Counter[str] = Counter()
    last: dict[int, int] = {}  # by process: its last event that was copied
    ended: set[int] = set()
    highest = 0
    # Not through SQLAlchemy: a damaged file's rows may hold anything, and are taken as they are.
    with (
        closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as old,
        new.transaction(durable=True) as connection,
    ):
        # Lets a file be read that is shorter than its header says.
        old.execute("PRAGMA writable_schema = ON")
        old.text_factory = bytes
        for values in _rows(old, "event", _EVENT_COLUMNS, _is_event):
            row = dict(zip(_EVENT_COLUMNS, values, strict=True))
            pid, seq = row["pid"], row["seq"]
            highest = max(highest, pid)
            if seq == last.get(pid, 0) + 1:
                connection.execute(sa.insert(EVENT), row)
                last[pid] = seq
                if json.loads(row["body"])["kind"] == "ended":
                    ended.add(pid)
                found["events"] += 1
            else:
                why = "Events before it are lost to damage of the file."
                connection.execute(sa.insert(DAMAGED), {"found": time(), "why": why, **row})
                found["aside"] += 1
        for digest, data in _rows(old, "blob", ("hash", "data"), _is_blob):
            blob = sqlite.insert(BLOB).on_conflict_do_nothing()
            connection.execute(blob, {"hash": digest, "data": data})
            found["texts"] += 1
        for pid in last:
            connection.execute(sa.insert(PROCESS), {"pid": pid, "ended": pid in ended})
        for (value,) in _rows(old, "meta", ("value",), _is_number):
            highest = max(highest, value)
        next_pid = sa.update(META).where(META.c.key == "next_pid")
        connection.execute(next_pid.values(value=highest + SPARE_PIDS))
    return found


_EVENT_COLUMNS = ("pid", "seq", "time", "version", "body", "checksum")


def _is_event(pid: object, seq: object, when: object, *rest: object) -> bool:
    match (pid, seq, when, *rest):
        case (int(pid), int(seq), float(when), int(version), bytes(body), checksum):
            return event_checksum(pid, seq, when, version, body) == checksum
    return False


def _is_blob(digest: object, data: object) -> bool:
    if data is None:
        return isinstance(digest, bytes) and len(digest) == 32
    return isinstance(data, bytes) and sha256(data).digest() == digest


def _is_number(value: object) -> bool:
    return isinstance(value, int) and 0 < value < 2**40


def _rows(
    old: sqlite3.Connection, table: str, columns: tuple[str, ...], sound: Callable[..., bool]
) -> Iterator[tuple[Any, ...]]:
    """Every sound row that can be read, in the order of the row numbers."""
    select = f"SELECT rowid, {', '.join(columns)} FROM {table} WHERE rowid > ? ORDER BY rowid"
    after, failed = -1, 0  # the last row number that was sound, or passed over
    while after < 2**62:
        read = after
        try:
            for number, *values in old.execute(select, (after,)):
                # Damaged pages may lead round in circles, and name numbers that are none.
                if number <= read:
                    raise sqlite3.DatabaseError("Rows are out of order.")
                read = number
                if sound(*values):
                    yield tuple(values)
                    after, failed = number, 0
        except sqlite3.DatabaseError:
            after += 1 if failed < SINGLE_STEPS else 2 ** (failed - SINGLE_STEPS)
            failed += 1
        else:
            return


def _put_in_place(path: Path) -> None:
    """Put a finished new file where the damaged one is, and that aside."""
    for finished in path.parent.glob(f"{path.stem}.salvaged-*.sqlite"):
        number = int(finished.stem.rpartition("-")[2])
        kept = _kept(path, number)
        # The write-ahead log goes with its database: it would be taken for the new one's.
        for end in ("", "-wal"):
            old = path.with_name(f"{path.name}{end}")
            if end and old.exists() and old.stat().st_size == 0:
                old.unlink()
            elif old.exists():
                old.replace(kept.with_name(f"{kept.name}{end}"))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        suspect(path).unlink(missing_ok=True)
        finished.replace(path)


def _kept(path: Path, number: int) -> Path:
    return path.with_suffix(f".damaged-{number}.sqlite")


def _finished(path: Path, number: int) -> Path:
    return path.with_suffix(f".salvaged-{number}.sqlite")


def _remove(database: Path) -> None:
    for end in ("", "-wal", "-shm"):
        database.with_name(f"{database.name}{end}").unlink(missing_ok=True)
