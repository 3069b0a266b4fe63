"""The journal: everything that happened to every process, and the only place where it is kept.

Events are appended and never changed. Texts are blobs beside them, named by their SHA-256, so that
one can be erased and the log stays whole. A process's state is the fold of its events; a checkpoint
now and then (the state at some event) keeps opening from taking longer the more has happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO, Self

import sqlalchemy as sa
from pydantic_core import PydanticSerializationError
from sqlalchemy.dialects import sqlite

from oneiros.errors import BlobErasedError, JournalError, ProcessError
from oneiros.kernel import events as e
from oneiros.kernel.journal_database import Database, copy_database, lock
from oneiros.kernel.journal_erasure import erasable_blobs, is_fork_state, texts_of_page, under_way
from oneiros.kernel.journal_fold import (
    Folded,
    Recorded,
    checkpoint_row,
    fold,
    read_events,
    set_aside,
)
from oneiros.kernel.journal_recovery import open_sound
from oneiros.kernel.journal_schema import (
    BLOB,
    CHECKPOINT,
    EVENT,
    META,
    PROCESS,
    event_checksum,
)
from oneiros.kernel.state import STATE, ProcessState, apply

__all__ = ["Journal", "Recorded"]

# A checkpoint is written after so many events, or as many as its state has pages where those are
# more: writing it then costs each event the same, however long the process lives.
CHECKPOINT_EVENTS = 128

_blob = sqlite.insert(BLOB)
# A text that was erased, and is said again, is there again.
_PUT = _blob.on_conflict_do_update(
    index_elements=["hash"], set_={"data": _blob.excluded.data}, where=BLOB.c.data.is_(None)
)
_LOAD = sa.select(sa.cast(BLOB.c.data, sa.LargeBinary).label("data")).where(
    BLOB.c.hash == sa.bindparam("of")
)
_ERASE = sa.update(BLOB).where(BLOB.c.hash == sa.bindparam("of")).values(data=None)
_APPEND = sa.insert(EVENT)
_START = sa.insert(PROCESS)
_END = sa.update(PROCESS).where(PROCESS.c.pid == sa.bindparam("of")).values(ended=True)
_checkpoint = sqlite.insert(CHECKPOINT)
_CHECKPOINT = _checkpoint.on_conflict_do_update(
    index_elements=["pid"],
    set_={name: _checkpoint.excluded[name] for name in ("seq", "shape", "state", "checksum")},
)
_NEXT_PID = sa.update(META).where(META.c.key == "next_pid").values(value=META.c.value + 1)


class Journal:
    """The journal of a data folder, for the one thread that opened it.

    Attributes:
        recovered: what was lost to damage and what was done about it, in sentences for the user;
            None: nothing was.
    """

    recovered: str | None

    def __init__(
        self, database: Database, locked: IO[str], notes: Sequence[str], clock: Callable[[], float]
    ) -> None:
        """Use `Journal.open`."""
        self._database = database
        self._lock = locked
        self._clock = clock
        self._pending: dict[str, bytes] = {}  # blobs that the next append writes
        self._live: dict[int, Folded] = {}
        notes = [*notes, *self._fold_live()]
        self.recovered = " ".join(notes) or None

    @classmethod
    def open(cls, folder: Path, *, clock: Callable[[], float] = time.time) -> Self:
        """Open the journal of a data folder, or begin one.

        An older version's file is brought to this version, with a copy of it left beside. Damaged
        rows at the end of a process's events are set aside; of a damaged file, what can be read is
        salvaged into a new one, and the damaged one is kept. `recovered` says so.

        Args:
            folder: made where it is missing; nobody else may have it open.
            clock: tells the time, in seconds since the epoch.

        Raises:
            JournalError: another process has the folder, the file is of a newer version or another
                program's, nothing of it can be read, or it cannot be written.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{folder} cannot be made: {error.strerror}.") from error
        locked = lock(folder / "journal.lock")
        try:
            path = folder / "journal.sqlite"
            database, notes = open_sound(path)
            try:
                return cls(database, locked, notes, clock)
            except BaseException:
                database.close()
                raise
        except BaseException:
            locked.close()
            raise

    def new_pid(self) -> int:
        """A process number that was never given before, and never will be again."""
        with self._database.transaction() as connection:
            after = connection.execute(_NEXT_PID.returning(META.c.value)).scalar_one()
        return int(after) - 1

    def put(self, data: bytes) -> str:
        """Keep a text for the next append, which writes it; returns its SHA-256 in hexadecimal."""
        blob = sha256(data).hexdigest()
        self._pending[blob] = data
        return blob

    def load(self, blob: str) -> bytes:
        """A text by its hash.

        Raises:
            BlobErasedError: it was erased, or is lost to damage of the file.
            JournalError: the file cannot be read.
        """
        data = self._pending.get(blob)
        if data is not None:
            return data
        with self._database.transaction() as connection:
            row = connection.execute(_LOAD, {"of": bytes.fromhex(blob)}).one_or_none()
        if row is None:
            raise BlobErasedError(f"The text {blob[:12]}… is not in the journal: it was lost.")
        if row.data is None:
            raise BlobErasedError(f"The text {blob[:12]}… was erased.")
        if sha256(row.data).hexdigest() != blob:
            raise BlobErasedError(f"The text {blob[:12]}… is lost: it does not match its hash.")
        return bytes(row.data)

    def append(
        self, pid: int, events: Sequence[e.Event], *, durable: bool = False
    ) -> list[Recorded]:
        """Write what happened to a process, and every text put since the last append: all or none.

        Args:
            pid: from `new_pid`; its first event is Started or Forked.
            events: in their order.
            durable: whether they have reached the disk when this returns, and so survive a power
                failure; otherwise they survive the death of this process.

        Raises:
            JournalError: an event cannot follow those before it, or cannot be written; nothing was.
                The texts are kept for the next append.
        """
        before = self._live.get(pid) or self._first_of(pid)
        state, seq = before.state, before.seq
        now = max(self._clock(), before.time)
        recorded, rows = [], []
        for event in events:
            seq += 1
            try:
                body = e.to_json(event)
            except PydanticSerializationError as error:
                raise JournalError(f"A {event.kind!r} event cannot be written: {error}.") from error
            # What is folded is what will be read again.
            event = e.from_json(body)
            state = apply(state, pid, seq, event, self.load)
            recorded.append(Recorded(seq, now, pid, event))
            checksum = event_checksum(pid, seq, now, e.VERSION, body)
            rows.append(
                {
                    "pid": pid,
                    "seq": seq,
                    "time": now,
                    "version": e.VERSION,
                    "body": body,
                    "checksum": checksum,
                }
            )
        if state is None or not rows:
            return []
        due = state.end is not None or seq - before.checkpoint >= max(
            CHECKPOINT_EVENTS, len(state.pages) + len(state.evicted)
        )
        after = Folded(state, seq, now, seq if due else before.checkpoint)
        with self._database.transaction(durable=durable) as connection:
            if self._pending:
                blobs = [
                    {"hash": bytes.fromhex(blob), "data": data}
                    for blob, data in self._pending.items()
                ]
                connection.execute(_PUT, blobs)
            connection.execute(_APPEND, rows)
            if before.seq == 0:
                connection.execute(_START, {"pid": pid, "ended": state.end is not None})
            elif state.end is not None:
                connection.execute(_END, {"of": pid})
            if due:
                connection.execute(_CHECKPOINT, checkpoint_row(state))
        self._pending.clear()
        self._live[pid] = after
        if state.end is not None:
            del self._live[pid]
        return recorded

    def events(self, pid: int, after: int = 0) -> Iterator[Recorded]:
        """A process's events in their order, also those appended while this goes on.

        Args:
            pid: the process; one without events has none here.
            after: the number of the last event that is not wanted.

        Raises:
            JournalError: an event is damaged, or of a newer version.
        """
        while True:
            # In portions: between them, others may append.
            with self._database.transaction() as connection:
                portion = list(read_events(connection, pid, after, most=256))
            for row in portion:
                yield row
                after = row.seq
            if not portion:
                return

    def state(self, pid: int) -> ProcessState:
        """A process's state after its last event.

        Raises:
            ProcessError: there is no such process.
            JournalError: an event of it is damaged.
        """
        folded = self._live.get(pid)
        if folded is None:
            with self._database.transaction() as connection:
                folded = fold(connection, pid, self.load)
        if folded.state is None:
            raise ProcessError(f"There is no process {pid}.")
        return folded.state

    def pids(self) -> list[int]:
        """Every process, in the order of their numbers."""
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(PROCESS.c.pid).order_by(PROCESS.c.pid))
            return list(found.scalars())

    def live(self) -> list[int]:
        """The processes that have not ended, in the order of their numbers."""
        return sorted(self._live)

    def erase(self, blob: str) -> None:
        """Erase a text: its bytes are overwritten, and `load` says that it was erased.

        Raises:
            BlobErasedError: there is no such text (any more).
            JournalError: it holds no text of a user, but what a fork began with.
        """
        self.load(blob)
        with self._database.transaction() as connection:
            if is_fork_state(connection, blob):
                raise JournalError(
                    f"The text {blob[:12]}… is the state that a process was forked with, and holds "
                    "only hashes: erase those texts."
                )
        self._erase({blob})

    def texts_of(self, pid: int, page: int | None = None) -> set[str]:
        """The hashes of the texts that erasing a process, or one of its pages, takes away.

        Of a page: all that it was made of, and copies; of a process see `erase_process`. What a
        process that has not ended has under way is not among them.

        Raises:
            ProcessError: there is no such process.
        """
        state = self.state(pid)
        if page is None:
            with self._database.transaction() as connection:
                return erasable_blobs(connection, state)
        texts = set[str]()
        one: int | None = pid
        until = state.seq
        while one is not None:  # a fork's pages were made by what it was forked from
            events = [known.event for known in self.events(one) if known.seq <= until]
            inbox: list[str] = []
            one = None
            if isinstance(first := events[0], e.Forked):
                inbox = [mail.text for mail in STATE.validate_json(self.load(first.state)).inbox]
                one, until = first.parent, first.at
            texts |= texts_of_page(events, inbox, page)
        return texts.difference(
            *(under_way(live.state) for live in self._live.values() if live.state is not None)
        )

    def erase_texts(self, texts: set[str]) -> None:
        """Erase texts that `texts_of` gave."""
        self._erase(texts)

    def erase_process(self, pid: int) -> int:
        """Erase every text of a process that no other process uses; returns how many.

        Its events stay, with names and numbers: title, tools, labels, paths. So do the settings it
        runs with and, of a process that has not ended, what it has under way: messages not yet
        read, the reply being generated, calls that are not over.

        Raises:
            ProcessError: there is no such process.
        """
        blobs = self.texts_of(pid)
        self._erase(blobs)
        return len(blobs)

    def _erase(self, blobs: set[str]) -> None:
        if not blobs:
            return
        with self._database.transaction(durable=True) as connection:
            connection.execute(_ERASE, [{"of": bytes.fromhex(blob)} for blob in sorted(blobs)])
        for blob in blobs:
            self._pending.pop(blob, None)
        # The write-ahead log still has the bytes.
        self._database.flush_log()

    def backup(self, path: Path) -> None:
        """Copy the journal, as it is now, to a file that another data folder can begin with.

        May run in another thread, while this one goes on appending.

        Args:
            path: a file that does not exist; under the name `journal.sqlite` in a folder of its
                own, it opens as that folder's journal.

        Raises:
            JournalError: the file exists, or cannot be written.
        """
        copy_database(self._database.path, path)

    def close(self) -> None:
        """Close the file and let others have the folder. Texts not yet appended are dropped."""
        try:
            self._write_checkpoints()
        except JournalError:
            pass  # on a full disk, say; the events are all there
        finally:
            self._database.close()
            self._lock.truncate(0)
            self._lock.close()

    def _write_checkpoints(self) -> None:
        rows = [
            checkpoint_row(folded.state)
            for folded in self._live.values()
            if folded.state is not None and folded.seq > folded.checkpoint
        ]
        if rows:
            with self._database.transaction() as connection:
                connection.execute(_CHECKPOINT, rows)

    def _first_of(self, pid: int) -> Folded:
        with self._database.transaction() as connection:
            folded = fold(connection, pid, self.load)
            given = connection.execute(sa.select(META.c.value).where(META.c.key == "next_pid"))
            if not 0 < pid < given.scalar_one():
                raise ProcessError(f"There is no process {pid}: its number was never given.")
        return folded

    def _fold_live(self) -> list[str]:
        """Fold every process that has not ended; what is damaged at an end is set aside."""
        with self._database.transaction() as connection:
            live = connection.execute(sa.select(PROCESS.c.pid).where(~PROCESS.c.ended)).scalars()
            pids = list(live)
        notes = []
        for pid in pids:
            with self._database.transaction() as connection:
                folded, note = set_aside(connection, pid, self.load, self._clock())
            if note is not None:
                notes.append(note)
            if folded.state is not None:
                self._live[pid] = folded
        return notes
