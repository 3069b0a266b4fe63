"""A journal's file that is damaged: what can be read of it goes into a new one.

The damaged file is kept, under another name. A crash at any point leaves either the damaged file
in its place, from which salvage begins again, or a finished new one, which is then put there.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from itertools import count
from pathlib import Path
from time import time
from urllib.parse import quote

import sqlalchemy as sa

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
    if found["spoilt"]:
        note += f" {found['spoilt']:,} texts are lost."
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
    ended: dict[int, bool] = {}
    highest = 0
    # Not through SQLAlchemy: a damaged file's rows may hold anything, and are taken as they are.
    with (
        closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as old,
        new.transaction(durable=True) as connection,
    ):
        # Lets a file be read that is shorter than its header says.
        old.execute("PRAGMA writable_schema = ON")
        old.text_factory = bytes
        for _, pid, seq, when, version, body, checksum in _rows(
            old, "event", "pid, seq, time, version, body, checksum"
        ):
            if not isinstance(pid, int) or not isinstance(seq, int):
                found["aside"] += 1
                continue
            highest = max(highest, pid)
            row = {"pid": pid, "seq": seq, "time": when, "version": version, "body": body}
            row["checksum"] = checksum
            if isinstance(body, bytes) and seq == last.get(pid, 0) + 1 and _verifies(row):
                connection.execute(sa.insert(EVENT), row)
                last[pid] = seq
                ended[pid] = json.loads(body)["kind"] == "ended"
                found["events"] += 1
            else:
                why = "It is damaged, or does not follow the event before, in a damaged file."
                connection.execute(sa.insert(DAMAGED), _storable(row, why))
                found["aside"] += 1
        for _, digest, data in _rows(old, "blob", "hash, data"):
            if data is None and isinstance(digest, bytes) and len(digest) == 32:
                connection.execute(sa.insert(BLOB), {"hash": digest, "data": None})
            elif isinstance(data, bytes) and sha256(data).digest() == digest:
                connection.execute(sa.insert(BLOB), {"hash": digest, "data": data})
                found["texts"] += 1
            else:
                found["spoilt"] += 1
        for pid in last:
            connection.execute(sa.insert(PROCESS), {"pid": pid, "ended": ended[pid]})
        given = [value for _, key, value in _rows(old, "meta", "key, value") if key == b"next_pid"]
        highest = max(highest, *(value for value in given if isinstance(value, int)), 0)
        values = {"value": highest + SPARE_PIDS}
        connection.execute(sa.update(META).where(META.c.key == "next_pid").values(values))
    return found


def _rows(old: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[object, ...]]:
    """Every row that can be read, in the order of the row numbers, which come first."""
    after, failed = -1, 0
    while after < 2**62:
        try:
            for row in old.execute(
                f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? ORDER BY rowid", (after,)
            ):
                yield row
                after, failed = row[0], 0
        except sqlite3.DatabaseError:
            after += 1 if failed < SINGLE_STEPS else 2 ** (failed - SINGLE_STEPS)
            failed += 1
        else:
            return


def _verifies(row: dict[str, object]) -> bool:
    match row:
        case {"pid": int(pid), "seq": int(seq), "time": float(when), "version": int(version)}:
            body = row["body"]
            return isinstance(body, bytes) and row["checksum"] == event_checksum(
                pid, seq, when, version, body
            )
    return False


def _storable(row: dict[str, object], why: str) -> dict[str, object]:
    """A damaged event for the table of those, without values of other types than its columns'."""
    body, when = row["body"], row["time"]
    numbers = {
        name: row[name] if isinstance(row[name], int) else None for name in ("version", "checksum")
    }
    return {
        "found": time(),
        "why": why,
        "pid": row["pid"],
        "seq": row["seq"],
        "time": when if isinstance(when, float) else None,
        "body": body if isinstance(body, bytes) else None,
        **numbers,
    }


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
