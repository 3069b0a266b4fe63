"""The journal when things go wrong: crashes, damage, full disks, locks, other versions."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from oneiros.errors import JournalError
from oneiros.kernel import events as e
from oneiros.kernel import journal_database, journal_recovery
from oneiros.kernel.journal import Journal
from oneiros.kernel.journal_schema import METADATA, MIGRATIONS, VERSION
from tests.kernel.histories import History, make_history
from tests.kernel.test_journal import STARTED, change, folded, message, write

APPENDER = Path(__file__).with_name("appender.py")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[History]]:
    """A closed journal of six processes, and their histories."""
    folder = tmp_path_factory.mktemp("sound")
    histories = [make_history(Random(seed), 90, pid=seed) for seed in range(1, 7)]
    with closing(Journal.open(folder)) as journal:
        for history in histories:
            write(journal, history)
    return folder, histories


def kill_at(folder: Path, acknowledged: int, random: Random) -> dict[int, list[tuple[int, str]]]:
    """Run an appender and kill it after so many appends; returns what it had acknowledged."""
    with subprocess.Popen(
        [sys.executable, APPENDER, folder], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledged)]
        for _ in range(random.randrange(20_000)):
            pass  # at any point of the next append
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    seen: dict[int, list[tuple[int, str]]] = {}
    for pid, seq, text in (line.split() for line in lines if line.endswith("\n")):
        seen.setdefault(int(pid), []).append((int(seq), text))
    return seen


@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 40))]
)
def test_after_sigkill_every_acknowledged_append_is_there(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    seen = kill_at(tmp_path, random.randrange(10, 600), random)
    assert seen
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        for pid, appended in seen.items():
            events = {recorded.seq: recorded.event for recorded in journal.events(pid)}
            assert journal.state(pid) == folded(journal, pid)
            assert len(events) % 2 == 1  # each append whole, after the first event
            for seq, text in appended:
                event = events[seq]
                assert isinstance(event, e.Delivered)
                assert event.text == text
                journal.load(text)


def test_a_second_opener_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    tmp_path.joinpath("journal.lock").write_text("1\n")  # of a process that is dead
    with closing(Journal.open(tmp_path)):
        with pytest.raises(JournalError, match=f"pid {os.getpid()}:"):
            Journal.open(tmp_path)
        second = subprocess.run(
            [sys.executable, APPENDER, tmp_path], capture_output=True, text=True, check=False
        )
        assert f"in use by the process with pid {os.getpid()}" in second.stderr
    Journal.open(tmp_path).close()


def test_the_migrations_make_the_tables_that_are_declared(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    made = sa.MetaData()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'journal.sqlite'}")
    made.reflect(engine)
    engine.dispose()

    def described(metadata: sa.MetaData) -> dict[str, list[tuple[str, str, bool, bool]]]:
        return {
            table.name: [
                (column.name, str(column.type), bool(column.nullable), column.primary_key)
                for column in table.columns
            ]
            for table in metadata.sorted_tables
        }

    assert described(made) == described(METADATA)


def old_file(folder: Path, version: int) -> None:
    """Make the journal of a folder one of an older version."""
    new = folder / "journal.sqlite"
    old = folder / "old.sqlite"
    with closing(sqlite3.connect(old)) as connection:
        for statements in MIGRATIONS[:version]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"ATTACH '{new}' AS new")
        for (table,) in connection.execute(
            "SELECT name FROM main.sqlite_schema WHERE sql LIKE 'CREATE TABLE%'"
        ).fetchall():
            connection.execute(f"DELETE FROM main.{table}")
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
        connection.execute("UPDATE main.meta SET value = ? WHERE key = 'version'", (version,))
        connection.commit()
    old.replace(new)


@pytest.mark.parametrize("version", range(1, VERSION))
def test_an_older_file_is_brought_to_this_version_and_a_copy_is_kept(
    tmp_path: Path, sound: tuple[Path, list[History]], version: int
) -> None:
    folder, histories = sound
    shutil.copy(folder / "journal.sqlite", tmp_path)
    old_file(tmp_path, version)
    with closing(Journal.open(tmp_path)) as journal:
        assert [journal.state(pid) for pid in journal.pids()] == [h.state for h in histories]
        assert journal.new_pid() == 7
    copy = tmp_path / f"journal.version-{version}.sqlite"
    assert number(copy, "SELECT value FROM meta WHERE key = 'version'") == version
    assert number(copy, "SELECT count(*) FROM event") == sum(len(h.events) for h in histories)
    copy.unlink()
    Journal.open(tmp_path).close()
    assert not copy.exists()  # it is of this version now


def test_a_newer_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Journal.open(tmp_path).close()
    change(tmp_path, "UPDATE meta SET value = 99 WHERE key = 'version'")
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(JournalError, match="version 99"):
        Journal.open(tmp_path)
    assert (tmp_path / "journal.sqlite").read_bytes() == before


def test_an_event_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(e, "VERSION", e.VERSION + 1)
            journal.append(pid, [STARTED, e.Ended(status="done")])
        with pytest.raises(JournalError, match="newer Oneiros"):
            list(journal.events(pid))


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    before = file.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        Journal.open(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET body = x'7b7d' WHERE pid = 1 AND seq = 4",
        "UPDATE event SET body = 'text' WHERE pid = 1 AND seq = 4",
        "UPDATE event SET time = 'noon' WHERE pid = 1 AND seq = 4",
        "UPDATE event SET checksum = checksum + 1 WHERE pid = 1 AND seq >= 4",
        "DELETE FROM event WHERE pid = 1 AND seq = 4",
    ],
)
def test_damaged_events_at_an_end_are_set_aside_and_said(tmp_path: Path, damage: str) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        for pid in (journal.new_pid(), journal.new_pid()):
            journal.append(pid, [STARTED, *(e.Reniced(priority=n) for n in range(5))])
    change(tmp_path, "DELETE FROM checkpoint")
    change(tmp_path, damage)
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is not None
        assert "Event 4 of process 1 is" in journal.recovered
        assert "goes on after event 3" in journal.recovered
        assert (journal.state(1).seq, journal.state(1).priority) == (3, 1)
        assert journal.state(2).seq == 6
        journal.append(1, [e.Reniced(priority=9)])
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        assert [recorded.seq for recorded in journal.events(1)] == [1, 2, 3, 4]
        assert journal.state(1).priority == 9
    kept = 2 if damage.startswith("DELETE") else 3
    file = tmp_path / "journal.sqlite"
    assert number(file, "SELECT count(*) FROM damaged WHERE pid = 1 AND seq >= 4") == kept


def test_a_checkpoint_of_events_that_were_set_aside_goes_with_them(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        journal.append(pid, [STARTED, *(e.Reniced(priority=n) for n in range(5))])
    change(tmp_path, "UPDATE event SET checksum = 0 WHERE seq >= 4")
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.state(pid).seq == 3
        journal.append(pid, [e.Reniced(priority=9) for _ in range(3)])
        shutil.copytree(tmp_path, tmp_path / "crashed")
    with closing(Journal.open(tmp_path / "crashed")) as journal:
        assert (journal.recovered, journal.state(pid).priority) == (None, 9)


def test_a_process_of_which_no_event_is_left_is_gone_and_its_number_too(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        journal.append(pid, [STARTED])
    change(tmp_path, "UPDATE event SET body = x'00'")
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is not None
        assert (journal.pids(), journal.live()) == ([], [])
        assert journal.new_pid() > pid


def damaged(sound: bytes, random: Random) -> bytes:
    """A file that was cut off, or has garbage at its end or somewhere behind its first page."""
    data = bytearray(sound)
    size = random.randrange(1, len(data) - 4096)
    match random.choice(("cut", "end", "middle")):
        case "cut":
            del data[-size:]
        case "end":
            data[-size:] = random.randbytes(size)
        case "middle":
            size = min(size, 20_000)
            start = random.randrange(4096, len(data) - size + 1)
            data[start : start + size] = random.randbytes(size)
    return bytes(data)


@pytest.mark.parametrize(
    "seed",
    [*range(6), 42, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(50, 180))],
)
def test_of_a_damaged_file_the_beginning_of_every_process_is_salvaged(
    tmp_path: Path, sound: tuple[Path, list[History]], seed: int
) -> None:
    folder, histories = sound
    file = tmp_path / "journal.sqlite"
    file.write_bytes(damaged((folder / "journal.sqlite").read_bytes(), Random(seed)))
    try:
        journal = Journal.open(tmp_path)
    except JournalError as error:
        assert "no event in it can be read" in str(error)
        assert file.exists()
        return
    with closing(journal):
        for pid in journal.pids():
            events = tuple(recorded.event for recorded in journal.events(pid))
            assert events == histories[pid - 1].events[: len(events)]
            assert journal.state(pid) == folded(journal, pid)
            assert (pid in journal.live()) == (journal.state(pid).end is None)
        if journal.recovered is not None:
            kept = re.search(r"kept as (\S+)\.( |$)", journal.recovered)
            assert kept is not None
            assert (tmp_path / kept[1]).exists()
            assert journal.new_pid() > 100
        pid = journal.new_pid()
        journal.append(pid, [STARTED, message(journal, "new")])
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        assert journal.state(pid).inbox


def test_most_of_a_file_that_lost_its_end_is_salvaged(
    tmp_path: Path, sound: tuple[Path, list[History]]
) -> None:
    folder, histories = sound
    data = (folder / "journal.sqlite").read_bytes()
    (tmp_path / "journal.sqlite").write_bytes(data[:-20_000])
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is not None
        whole = [pid for pid in journal.pids() if journal.state(pid) == histories[pid - 1].state]
        assert len(whole) >= 3


def test_a_file_of_which_nothing_can_be_read_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    data = Random(0).randbytes(40_000)
    file.write_bytes(data)
    for _ in range(2):
        with pytest.raises(JournalError, match="Put a backup in its place"):
            Journal.open(tmp_path)
    assert file.read_bytes() == data
    file.unlink()
    with closing(Journal.open(tmp_path)) as journal:
        assert (journal.pids(), journal.recovered) == ([], None)


def test_a_crash_while_a_salvaged_file_is_put_in_place_is_made_good(
    tmp_path: Path, sound: tuple[Path, list[History]]
) -> None:
    folder, histories = sound
    data = (folder / "journal.sqlite").read_bytes()
    (tmp_path / "journal.sqlite").write_bytes(data[:-20_000])
    with pytest.MonkeyPatch.context() as patch:
        replace = Path.replace

        def crash_at_the_last(self: Path, target: Path) -> Path:
            if target.name == "journal.sqlite":
                raise KeyboardInterrupt
            return replace(self, target)

        patch.setattr(Path, "replace", crash_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            Journal.open(tmp_path)
    assert not (tmp_path / "journal.sqlite").exists()
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.state(1) == histories[0].state
    assert (tmp_path / "journal.damaged-1.sqlite").read_bytes() == data[:-20_000]


def test_damage_found_while_running_is_salvaged_at_the_next_start(
    tmp_path: Path, sound: tuple[Path, list[History]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_recovery, "CHECKED_WHOLE", 0)  # as if the file were large
    folder, histories = sound
    data = bytearray((folder / "journal.sqlite").read_bytes())
    page = number(
        folder / "journal.sqlite",
        "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_blob_1'",
    )
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    (tmp_path / "journal.sqlite").write_bytes(data)
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        with pytest.raises(JournalError, match="Stop Oneiros and start it again"):
            journal.load("0" * 64)
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is not None
        assert [journal.state(pid) for pid in journal.pids()] == [h.state for h in histories]
        for history in histories:
            assert all(journal.load(blob) == data for blob, data in history.blobs.items())
    Journal.open(tmp_path).close()


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_nothing_is_half_written_and_later_appends_work(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        journal.append(pid, [STARTED])
        large = [message(journal, f"{number}" * 40_000) for number in range(5)]
        written = (tmp_path / "journal.sqlite-wal").stat().st_size
        for durable in (False, True):
            with files_at_most(written + 50_000):
                with pytest.raises(JournalError, match="free space"):
                    journal.append(pid, large, durable=durable)
                assert journal.state(pid) == folded(journal, pid)
                assert journal.state(pid).seq == 1
        journal.append(pid, large)
        assert [journal.load(event.text)[:3] for event in large][1] == b"111"
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        assert journal.state(pid).seq == 6


def test_closing_on_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    pid = journal.new_pid()
    journal.append(pid, [STARTED, e.Reniced(priority=4)])
    with files_at_most((tmp_path / "journal.sqlite-wal").stat().st_size):
        journal.close()
    with closing(Journal.open(tmp_path)) as journal:
        assert (journal.recovered, journal.state(pid).priority) == (None, 4)


def test_a_locked_file_is_said_and_written_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_database, "WAIT", 0.01)
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        journal.append(pid, [STARTED])
        event = message(journal, "kept")
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            for action in (lambda: journal.append(pid, [event]), journal.new_pid):
                with pytest.raises(JournalError, match="locked by another program"):
                    action()
            assert journal.state(pid).inbox == ()
            other.rollback()
        journal.append(pid, [event])
        assert journal.load(event.text) == b"kept"


def number(file: Path, statement: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute(statement).fetchone()[0])
