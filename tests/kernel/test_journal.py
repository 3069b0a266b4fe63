"""The journal: what is appended is there, folds to the same state however it is read, or is erased
for good."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest import mock
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import BlobErasedError, JournalError, ProcessError
from oneiros.kernel import events as e
from oneiros.kernel import journal as module
from oneiros.kernel.journal import Journal
from oneiros.kernel.label import Label
from oneiros.kernel.state import STATE, ProcessState, apply
from tests.kernel.histories import History, histories, make_history

STARTED = e.Started(owner="ada", app="assistant", program="agent", model="small")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal.open(tmp_path)) as opened:
        yield opened


def message(journal: Journal, text: str) -> e.Delivered:
    return e.Delivered(sender="user", text=journal.put(text.encode()), label=Label.of("user"))


def write(journal: Journal, history: History, sizes: Sequence[int] = (1,)) -> int:
    """Append a history as a new process, so many events at a time, again and again."""
    pid = journal.new_pid()
    assert pid == history.pid
    for blob in history.blobs.values():
        journal.put(blob)
    events = iter(history.events)
    for size in itertools.cycle(sizes):
        portion = list(itertools.islice(events, size))
        if not portion:
            return pid
        journal.append(pid, portion)
    raise AssertionError("not reached")


def folded(journal: Journal, pid: int) -> ProcessState | None:
    """The state from the first event on, without any checkpoint."""
    state = None
    for recorded in journal.events(pid):
        state = apply(state, pid, recorded.seq, recorded.event, journal.load)
    return state


@contextmanager
def checkpoints_every(events: int) -> Iterator[None]:
    with mock.patch.object(module, "CHECKPOINT_EVENTS", events):
        yield


@settings(max_examples=25, deadline=None)
@given(histories(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 20))
def test_a_state_is_the_fold_of_all_events_whatever_checkpoints_there_are(
    history: History, sizes: list[int], interval: int
) -> None:
    with TemporaryDirectory() as folder, checkpoints_every(interval):
        with closing(Journal.open(Path(folder))) as journal:
            pid = write(journal, history, sizes)
            assert journal.state(pid) == history.state
        with closing(Journal.open(Path(folder))) as journal:
            assert journal.recovered is None
            assert journal.state(pid) == folded(journal, pid) == history.state
            assert [recorded.event for recorded in journal.events(pid)] == list(history.events)
            assert all(journal.load(blob) == data for blob, data in history.blobs.items())


@settings(max_examples=15, deadline=None)
@given(histories(pid=1), histories(pid=2), st.randoms(use_true_random=False))
def test_each_of_two_interleaved_processes_is_as_if_alone(
    one: History, other: History, random: Random
) -> None:
    with TemporaryDirectory() as folder, closing(Journal.open(Path(folder))) as journal:
        left = {history.pid: list(history.events) for history in (one, other)}
        for history in (one, other):
            assert journal.new_pid() == history.pid
        for blob in (*one.blobs.values(), *other.blobs.values()):
            journal.put(blob)
        while any(left.values()):
            pid = random.choice([pid for pid, events in left.items() if events])
            journal.append(pid, [left[pid].pop(0)])
        for history in (one, other):
            assert journal.state(history.pid) == history.state
            assert [r.event for r in journal.events(history.pid)] == list(history.events)


@pytest.mark.parametrize("seed", range(3))
def test_long_histories_fold_alike_after_opening_again(tmp_path: Path, seed: int) -> None:
    history = make_history(Random(seed + 10), 700)
    with closing(Journal.open(tmp_path)) as journal:
        write(journal, history, (1, 7, 40))
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.state(1) == folded(journal, 1) == history.state


def test_a_fork_folds_from_its_parents_state_even_when_that_is_erased(tmp_path: Path) -> None:
    parent = make_history(Random(5), 40)
    child = make_history(Random(6), 40, pid=2, forked_from=parent)
    with closing(Journal.open(tmp_path)) as journal:
        write(journal, parent)
        write(journal, child)
        journal.erase_process(1)
        assert folded(journal, 2) == child.state
        for page in child.state.pages:
            journal.load(page.message)
        snapshot = journal.put(STATE.dump_json(parent.state))
        with pytest.raises(JournalError, match="forked"):
            journal.erase(snapshot)


def test_an_event_that_cannot_follow_is_refused_with_all_that_came_along(journal: Journal) -> None:
    pid = journal.new_pid()
    journal.append(pid, [STARTED])
    before = journal.state(pid)
    text = journal.put(b"kept")
    with pytest.raises(JournalError, match="call-answered"):
        journal.append(pid, [e.Reniced(priority=1), e.CallAnswered(call_id="1-1", allowed=True)])
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append(pid, [e.Ended(status="done", label=Label.of("web:\ud800"))])
    assert journal.state(pid) == folded(journal, pid) == before
    journal.append(pid, [e.Ended(status="done", result=text)])
    with pytest.raises(JournalError, match="cannot follow"):
        journal.append(pid, [e.Reniced(priority=2)])
    assert journal.load(text) == b"kept"


def test_times_never_decrease_when_the_clock_goes_backwards(tmp_path: Path) -> None:
    times = iter([1000.0, 1005.0, 400.0, 1004.0])
    with closing(Journal.open(tmp_path, clock=lambda: next(times))) as journal:
        pid = journal.new_pid()
        for event in (STARTED, e.Reniced(priority=1), e.Reniced(priority=2)):
            journal.append(pid, [event])
    with closing(Journal.open(tmp_path, clock=lambda: 3.0)) as journal:
        journal.append(pid, [e.Reniced(priority=3), e.Reniced(priority=4)])
        assert [r.time for r in journal.events(pid)] == [1000.0, 1005.0, 1005.0, 1005.0, 1005.0]


def test_process_numbers_are_given_once(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        given = [journal.new_pid(), journal.new_pid()]
    with closing(Journal.open(tmp_path)) as journal:
        given += [journal.new_pid(), journal.new_pid()]
        assert len(set(given)) == 4
        with pytest.raises(ProcessError, match="never given"):
            journal.append(max(given) + 1, [STARTED])
        with pytest.raises(ProcessError, match="no process"):
            journal.state(given[0])


def test_live_processes_are_those_that_have_not_ended(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        pids = [journal.new_pid() for _ in range(3)]
        for pid in pids:
            journal.append(pid, [STARTED])
        journal.append(pids[1], [e.Ended(status="done")])
        assert (journal.pids(), journal.live()) == (pids, [pids[0], pids[2]])
    with closing(Journal.open(tmp_path)) as journal:
        assert (journal.pids(), journal.live()) == (pids, [pids[0], pids[2]])
        assert journal.state(pids[1]).end == e.Ended(status="done")


def test_events_that_are_appended_while_others_are_read_are_read_too(journal: Journal) -> None:
    pid = journal.new_pid()
    journal.append(pid, [STARTED, *(e.Reniced(priority=n) for n in range(600))])
    seen = []
    for recorded in journal.events(pid, after=300):
        if recorded.seq == 302:
            journal.append(pid, [e.Reniced(priority=-1)])
        seen.append(recorded.seq)
    assert seen == list(range(301, 603))


def test_what_lies_before_a_checkpoint_is_not_read_to_know_a_state(tmp_path: Path) -> None:
    history = make_history(Random(11), 400)
    with closing(Journal.open(tmp_path)) as journal:
        write(journal, history)
    change(tmp_path, "UPDATE event SET body = x'00' WHERE seq = 3")
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        assert journal.state(1) == history.state
        with pytest.raises(JournalError, match="Event 3 of process 1 is damaged"):
            list(journal.events(1))


@pytest.mark.parametrize(
    "damage",
    [
        "state = x'00'",
        "state = 'text'",
        f"shape = 'other', state = x'7b7d', checksum = {crc32(b'{}')}",
    ],
    ids=["bytes", "type", "form"],
)
def test_a_checkpoint_that_is_damaged_or_of_another_form_is_not_needed(
    tmp_path: Path, damage: str
) -> None:
    history = make_history(Random(12), 60)
    with closing(Journal.open(tmp_path)) as journal:
        write(journal, history)
    change(tmp_path, f"UPDATE checkpoint SET {damage}")
    with closing(Journal.open(tmp_path)) as journal:
        assert journal.recovered is None
        assert journal.state(1) == history.state


def test_an_erased_text_is_in_no_file_and_the_log_stays_whole(tmp_path: Path) -> None:
    secret = "the very secret plan " * 500
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        event = message(journal, secret)
        journal.append(pid, [STARTED, event, message(journal, "other")])
        state = journal.state(pid)
        journal.erase(event.text)
        with pytest.raises(BlobErasedError, match="erased"):
            journal.load(event.text)
        with pytest.raises(BlobErasedError):
            journal.erase(event.text)
        assert journal.state(pid) == folded(journal, pid) == state
        assert not any(b"secret plan" in file.read_bytes() for file in tmp_path.iterdir())
        journal.append(pid, [message(journal, secret)])
        assert journal.load(event.text) == secret.encode()


def test_erasing_a_process_keeps_texts_that_others_use(journal: Journal) -> None:
    one, other = journal.new_pid(), journal.new_pid()
    shared, own = message(journal, "for both"), message(journal, "for one")
    tools = e.ToolsOffered(tools=journal.put(b"[]"))
    journal.append(one, [STARTED, tools, shared, own, e.Ended(status="done", result=own.text)])
    journal.append(other, [STARTED, shared])
    assert journal.erase_process(one) == 1
    with pytest.raises(BlobErasedError):
        journal.load(own.text)
    assert (journal.load(shared.text), journal.load(tools.tools)) == (b"for both", b"[]")
    assert journal.state(one) == folded(journal, one)


@settings(max_examples=10, deadline=None)
@given(histories(most=80))
def test_what_a_live_process_has_under_way_is_not_erased(history: History) -> None:
    with TemporaryDirectory() as folder, closing(Journal.open(Path(folder))) as journal:
        pid = write(journal, history, (5,))
        journal.erase_process(pid)
        state = journal.state(pid)
        assert state == folded(journal, pid) == history.state
        for mail in () if state.end is not None else state.inbox:
            journal.load(mail.text)
        for call in state.calls:
            journal.load(call.arguments)


def test_a_text_is_there_before_it_is_written_and_after_damage_it_is_lost(tmp_path: Path) -> None:
    with closing(Journal.open(tmp_path)) as journal:
        pid = journal.new_pid()
        event = message(journal, "hello")
        assert journal.load(event.text) == b"hello"
        journal.append(pid, [STARTED, event])
        change(tmp_path, "UPDATE blob SET data = x'68'")
        with pytest.raises(BlobErasedError, match="lost"):
            journal.load(event.text)
        with pytest.raises(BlobErasedError, match="lost"):
            journal.load("0" * 64)


def test_a_backup_made_while_appending_goes_on_opens_as_a_journal(tmp_path: Path) -> None:
    history = make_history(Random(3), 60)
    target = tmp_path / "copy" / "journal.sqlite"
    target.parent.mkdir()
    with closing(Journal.open(tmp_path / "data")) as journal:
        write(journal, history)
        journal.backup(target)
        second = journal.new_pid()
        journal.append(second, [STARTED])
        with pytest.raises(JournalError, match="exists already"):
            journal.backup(target)
        with pytest.raises(JournalError, match="missing"):
            journal.backup(tmp_path / "missing" / "file")
    with closing(Journal.open(target.parent)) as copy:
        assert copy.recovered is None
        assert copy.pids() == [1]
        assert copy.state(1) == history.state
        assert all(copy.load(blob) == data for blob, data in history.blobs.items())


def change(folder: Path, statement: str) -> None:
    """Change a closed journal's file behind its back."""
    with closing(sqlite3.connect(folder / "journal.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
