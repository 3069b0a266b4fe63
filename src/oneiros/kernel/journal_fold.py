"""States out of the journal: its events, verified as they are read, folded from a checkpoint on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import sqlalchemy as sa
from pydantic import ValidationError

from oneiros.errors import JournalError
from oneiros.kernel import events as e
from oneiros.kernel.journal_schema import CHECKPOINT, DAMAGED, EVENT, PROCESS, event_checksum
from oneiros.kernel.state import STATE, ProcessState, apply

# Counts the changes of what `state.apply` means by an event where the state's fields stay the
# same, so that no checkpoint of before is read.
FOLD = 1

# A damaged row may hold values of any type; casts make them those that can be verified.
_EVENTS = (
    sa.select(
        EVENT.c.seq,
        sa.cast(EVENT.c.time, sa.Float).label("time"),
        sa.cast(EVENT.c.version, sa.Integer).label("version"),
        sa.cast(EVENT.c.body, sa.LargeBinary).label("body"),
        EVENT.c.checksum,
    )
    .where(EVENT.c.pid == sa.bindparam("of"), EVENT.c.seq > sa.bindparam("after"))
    .order_by(EVENT.c.seq)
    .limit(sa.bindparam("most"))
)
_CHECKPOINT = sa.select(
    CHECKPOINT.c.shape,
    sa.cast(CHECKPOINT.c.state, sa.LargeBinary).label("state"),
    CHECKPOINT.c.checksum,
).where(CHECKPOINT.c.pid == sa.bindparam("of"))
_ASIDE = ("pid", "seq", "time", "version", "body", "checksum")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it is in the journal."""

    seq: int  # counts a process's events from 1
    time: float  # seconds since the epoch; never decreases within a process
    pid: int
    event: e.Event


@dataclass(frozen=True, slots=True)
class Folded:
    """A process's state and where in the journal it is."""

    state: ProcessState | None  # None: there are no events
    seq: int  # of the last event in it
    time: float  # of that event
    checkpoint: int  # the event that the process's checkpoint is at; 0: there is none


def read_events(
    connection: sa.Connection, pid: int, after: int, *, most: int = -1
) -> Iterator[Recorded]:
    """A process's events after one of them, verified; at most so many, or all.

    Raises:
        JournalError: one is missing, damaged, or of a newer version.
    """
    rows = connection.execute(_EVENTS, {"of": pid, "after": after, "most": most})
    for expected, row in enumerate(rows, after + 1):
        where = f"Event {expected} of process {pid}"
        if row.seq != expected:
            raise JournalError(f"{where} is missing: event {row.seq} comes next.")
        checksum = event_checksum(pid, row.seq, row.time or 0.0, row.version or 0, row.body or b"")
        if row.checksum != checksum:
            raise JournalError(f"{where} is damaged: it does not match its checksum.")
        if row.version > e.VERSION:
            raise JournalError(
                f"{where} is of version {row.version}, and this Oneiros knows versions up to "
                f"{e.VERSION}: use the newer Oneiros that wrote it."
            )
        try:
            event = e.from_json(row.body)
        except ValidationError as error:
            raise JournalError(f"{where} is not an event: {error}.") from error
        yield Recorded(row.seq, row.time, pid, event)


def fold(connection: sa.Connection, pid: int, load: e.LoadBlob) -> Folded:
    """A process's state after its last event.

    Args:
        connection: in a transaction.
        pid: the process.
        load: reads a blob.

    Raises:
        JournalError: an event is damaged.
    """
    folded, error = _fold(connection, pid, load, _checkpoint(connection, pid))
    if error is not None:
        raise error
    return folded


def set_aside(
    connection: sa.Connection, pid: int, load: e.LoadBlob, now: float
) -> tuple[Folded, str | None]:
    """A process's state after its last whole event; those behind are moved to `damaged`.

    Args:
        connection: in a transaction.
        pid: the process.
        load: reads a blob.
        now: seconds since the epoch, for the record.

    Returns:
        The state, and a sentence about what was set aside, if anything was.
    """
    folded, error = _fold(connection, pid, load, _checkpoint(connection, pid))
    if error is None:
        return folded, None
    behind = sa.and_(EVENT.c.pid == pid, EVENT.c.seq > folded.seq)
    rows = sa.select(sa.literal(now), sa.literal(str(error)), *(EVENT.c[name] for name in _ASIDE))
    moved = connection.execute(
        sa.insert(DAMAGED).from_select(["found", "why", *_ASIDE], rows.where(behind))
    ).rowcount
    connection.execute(sa.delete(EVENT).where(behind))
    if folded.state is None:
        connection.execute(sa.delete(PROCESS).where(PROCESS.c.pid == pid))
    outdated = sa.and_(CHECKPOINT.c.pid == pid, CHECKPOINT.c.seq > folded.seq)
    connection.execute(sa.delete(CHECKPOINT).where(outdated))
    return folded, (
        f"{error} Process {pid} goes on after event {folded.seq}; {moved} of its events were set "
        "aside, and are in the journal's table `damaged`."
    )


def checkpoint_row(state: ProcessState) -> dict[str, object]:
    """The row that keeps a state."""
    body = STATE.dump_json(state)
    return {
        "pid": state.pid,
        "seq": state.seq,
        "shape": _shape(),
        "state": body,
        "checksum": zlib.crc32(body),
    }


def _fold(
    connection: sa.Connection, pid: int, load: e.LoadBlob, start: ProcessState | None
) -> tuple[Folded, JournalError | None]:
    """The fold as far as it goes, and what is wrong with the next event."""
    checkpoint = 0 if start is None else start.seq
    folded = Folded(start, checkpoint, 0.0, checkpoint)
    try:
        # From a checkpoint's own event on: that has the time, and has to be sound.
        for row in read_events(connection, pid, max(0, checkpoint - 1)):
            state = folded.state
            if row.seq > checkpoint:
                state = apply(state, pid, row.seq, row.event, load)
            folded = Folded(state, row.seq, row.time, checkpoint)
    except JournalError as error:
        if checkpoint and folded.time == 0.0:
            return _fold(connection, pid, load, None)
        return folded, error
    return folded, None


def _checkpoint(connection: sa.Connection, pid: int) -> ProcessState | None:
    row = connection.execute(_CHECKPOINT, {"of": pid}).one_or_none()
    if row is None or row.shape != _shape() or row.checksum != zlib.crc32(row.state):
        return None
    return STATE.validate_json(row.state)


@cache
def _shape() -> str:
    """Names the form of a state's JSON: checkpoints of other forms are not read, but made again."""
    schema = json.dumps([FOLD, STATE.json_schema()], sort_keys=True)
    return sha256(schema.encode()).hexdigest()[:16]
