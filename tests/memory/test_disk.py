"""A principal's files: versions, labels and undo, and changes that somebody else makes."""

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from oneiros.errors import DiskError
from oneiros.kernel.label import Label
from oneiros.memory.disk import Disk

WEB = Label.of("web:example.org", "user", readers=["eva", "tom"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def disk(tmp_path: Path, folder: Path) -> Iterator[Disk]:
    disk = Disk(folder, tmp_path / "store", "eva")
    yield disk
    disk.close()


def test_files_are_real_files_and_keep_their_labels(
    disk: Disk, folder: Path, tmp_path: Path
) -> None:
    change = disk.write("notes/a.txt", b"one", call_id="c1", label=WEB, tool="write", pid=7)
    assert (folder / "notes/a.txt").read_bytes() == b"one"
    disk.close()
    again = Disk(folder, tmp_path / "store", "eva")
    assert again.read("./notes//a.txt") == b"one"
    assert again.label("notes/a.txt") == WEB
    assert again.changes("c1") == [change]
    assert (change.tool, change.pid, change.path) == ("write", 7, "notes/a.txt")
    again.close()


def test_files_that_nobody_wrote_through_it_are_the_owners(disk: Disk, folder: Path) -> None:
    (folder / "mine.txt").write_text("mine")
    assert disk.label("mine.txt") == Label.of("file:mine.txt", readers=["eva"])
    assert disk.history("mine.txt") == []


def test_undo_goes_back_step_by_step_and_can_be_undone(disk: Disk, folder: Path) -> None:
    first = disk.write("deep/er/a.txt", b"one", call_id="c1", label=WEB)
    second = disk.write("deep/er/a.txt", b"two", call_id="c2", label=Label.of("user"))
    with pytest.raises(DiskError, match="changed after change"):
        disk.undo(first.id)
    undo = disk.undo(second.id)
    assert (disk.read("deep/er/a.txt"), disk.label("deep/er/a.txt")) == (b"one", WEB)
    with pytest.raises(DiskError, match=f"taken back by change {undo.id}"):
        disk.undo(second.id)
    redo = disk.undo(undo.id)
    assert disk.read("deep/er/a.txt") == b"two"
    disk.undo(redo.id)
    disk.undo(first.id)
    assert list(folder.iterdir()) == []  # the folders were made for the file


def test_all_changes_of_a_call_are_undone_or_none(disk: Disk, folder: Path) -> None:
    disk.write("a.txt", b"a", call_id="before", label=WEB)
    disk.write("a.txt", b"a2", call_id="c", label=WEB)
    disk.write("a.txt", b"a3", call_id="c", label=WEB)
    disk.write("b/b.txt", b"b", call_id="c", label=WEB)
    disk.move("b/b.txt", "c/c.txt", call_id="c")
    disk.delete("a.txt", call_id="c")
    (folder / "c/c.txt").write_text("the user's")
    with pytest.raises(DiskError, match="c/c"):
        disk.undo_call("c")
    assert [entry.path for entry in disk.walk()] == ["c/c.txt"]
    (folder / "c/c.txt").write_text("b")
    undone = disk.undo_call("c")
    assert [entry.path for entry in disk.walk()] == ["a.txt"]
    assert disk.read("a.txt") == b"a"
    assert disk.undo_call("c") == []
    disk.undo_call(undone[0].call_id)
    assert [entry.path for entry in disk.walk()] == ["c/c.txt"]


def test_what_the_user_changes_is_noticed_and_kept(disk: Disk, folder: Path) -> None:
    disk.write("a.txt", b"tool", call_id="c1", label=WEB)
    (folder / "a.txt").write_text("user")
    # The page that it was made of may still be in it.
    assert disk.label("a.txt").origins == WEB.origins | {"file:a.txt"}
    disk.write("a.txt", b"tool again", call_id="c2", label=WEB)
    history = disk.history("a.txt")
    assert [(change.kind, change.tool) for change in history] == [
        ("write", ""),
        ("outside", ""),
        ("write", ""),
    ]
    assert [change.after and disk.content(change.after) for change in history] == [
        b"tool",
        b"user",
        b"tool again",
    ]
    disk.undo(history[-1].id)
    assert disk.read("a.txt") == b"user"
    (folder / "a.txt").unlink()
    assert disk.history("a.txt")[-1].after is None
    disk.undo(disk.history("a.txt")[-1].id)
    assert disk.read("a.txt") == b"user"


def test_a_file_found_is_kept_before_a_tool_replaces_or_deletes_it(
    disk: Disk, folder: Path
) -> None:
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("found")
    disk.write("a.txt", b"new", call_id="c", label=WEB)
    disk.delete("b.txt", call_id="c")
    disk.undo_call("c")
    found = disk.history("a.txt")[0]
    with pytest.raises(DiskError, match="as it was found"):
        disk.undo(found.id)
    assert (disk.read("a.txt"), disk.read("b.txt")) == (b"found", b"found")


def test_a_last_moment_change_by_the_user_is_not_lost(
    disk: Disk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody saves between the disk's look at the file and its own change."""
    from oneiros.memory import tree

    disk.write("a.txt", b"one", call_id="c1", label=WEB)
    put, rename = tree.put_in_place, tree.rename_to_free

    def put_late(*args: object, **options: object) -> None:
        (folder / "a.txt").write_text("saved late")
        put(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tree, "put_in_place", put_late)
    disk.write("a.txt", b"two", call_id="c2", label=WEB)
    assert disk.read("a.txt") == b"two"
    monkeypatch.setattr(tree, "put_in_place", put)

    def rename_late(*args: object) -> None:
        (folder / "a.txt").write_text("saved later")
        rename(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(tree, "rename_to_free", rename_late)
    disk.delete("a.txt", call_id="c3")
    kept = [change.after and disk.content(change.after) for change in disk.history("a.txt")]
    assert kept == [b"one", b"saved late", b"two", b"saved later", None]


def test_moves_keep_label_history_and_mode(disk: Disk, folder: Path) -> None:
    disk.write("run.sh", b"#!/bin/sh", call_id="c1", label=WEB, mode=0o755)
    disk.write("taken", b"", call_id="c1", label=WEB)
    with pytest.raises(DiskError, match="exists already"):
        disk.move("run.sh", "taken", call_id="c2")
    move = disk.move("run.sh", "bin/run.sh", call_id="c3")
    assert (folder / "bin/run.sh").stat().st_mode & 0o777 == 0o755
    assert disk.label("bin/run.sh") == WEB
    assert [change.call_id for change in disk.history("bin/run.sh")] == ["c1", "c3"]
    disk.write("bin/run.sh", b"#!/bin/bash", call_id="c4", label=WEB)
    assert (folder / "bin/run.sh").stat().st_mode & 0o777 == 0o755
    disk.undo_call("c4")
    disk.undo(move.id)
    assert sorted(path.name for path in folder.iterdir()) == ["run.sh", "taken"]


def test_who_expects_another_content_does_not_write(disk: Disk) -> None:
    version = disk.write("a.txt", b"one", call_id="c1", label=WEB).after
    assert version is not None
    disk.write("a.txt", b"two", call_id="c2", label=WEB, replacing=version.sha256)
    with pytest.raises(DiskError, match="changed meanwhile"):
        disk.write("a.txt", b"three", call_id="c3", label=WEB, replacing=version.sha256)
    assert disk.changes("c3") == []


def test_threads_and_several_disks_take_turns(disk: Disk, folder: Path, tmp_path: Path) -> None:
    other = Disk(folder, tmp_path / "store", "eva")

    def write(who: Disk, name: str) -> None:
        for number in range(5):
            who.write("a.txt", f"{name}{number}".encode(), call_id=f"{name}{number}", label=WEB)

    threads = [
        threading.Thread(target=write, args=(who, name))
        for name, who in {"a": disk, "b": disk, "c": other}.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = disk.history("a.txt")
    assert len(history) == 15
    for before, after in itertools.pairwise(history):
        assert before.after == after.before
    other.close()


def test_damaged_versions_are_not_brought_back(disk: Disk, tmp_path: Path) -> None:
    disk.write("a.txt", b"one", call_id="c1", label=WEB)
    change = disk.write("a.txt", b"two", call_id="c2", label=WEB)
    assert change.before is not None
    sha256 = change.before.sha256
    (tmp_path / "store/contents" / sha256[:2] / sha256[2:]).write_bytes(b"0ne")
    with pytest.raises(DiskError, match="damaged"):
        disk.undo(change.id)
    assert disk.read("a.txt") == b"two"


def test_files_and_versions_may_not_lie_in_each_other(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="in each other"):
        Disk(tmp_path, tmp_path / "store", "eva")
    with pytest.raises(DiskError, match="in each other"):
        Disk(tmp_path / "store/files", tmp_path / "store", "eva")


def test_a_failed_write_leaves_nothing(
    disk: Disk, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system is full when the file is about to get its name."""

    def full(descriptor: int, mode: int) -> None:
        raise OSError(28, "No space left on device")

    disk.write("a.txt", b"one", call_id="c1", label=WEB)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fchmod", full)
        with pytest.raises(DiskError, match="full"):
            disk.write("new/b.txt", b"two", call_id="c2", label=WEB)
        with pytest.raises(DiskError, match="full"):
            disk.write("a.txt", b"two", call_id="c2", label=WEB)
    assert list(folder.iterdir()) == [folder / "a.txt"]
    assert disk.changes("c2") == []
    assert disk.read("a.txt") == b"one"


class DiskMachine(RuleBasedStateMachine):
    """Tools and the user change files in any order: nothing is ever lost, and undo is exact."""

    names = st.sampled_from(["a", "b", "d/c"])
    texts = st.binary(max_size=3)

    def __init__(self) -> None:
        import tempfile

        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        base = Path(self.temporary.name)
        self.folder = base / "files"
        self.disk = Disk(self.folder, base / "store", "eva")
        self.model: dict[str, bytes] = {}
        self.calls = 0

    def teardown(self) -> None:
        self.disk.close()
        self.temporary.cleanup()

    @rule(name=names, data=texts)
    def write(self, name: str, data: bytes) -> None:
        before = dict(self.model)
        self.calls += 1
        change = self.disk.write(name, data, call_id=f"{self.calls}", label=WEB)
        self.model[name] = data
        assert (change.before and self.disk.content(change.before)) == before.get(name)
        undo = self.disk.undo(change.id)
        assert self.files() == before
        self.disk.undo(undo.id)

    @rule(name=names, data=st.none() | texts)
    def user(self, name: str, data: bytes | None) -> None:
        path = self.folder / name
        if data is None:
            path.unlink(missing_ok=True)
            self.model.pop(name, None)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            self.model[name] = data

    @rule(name=names, goal=names)
    def move(self, name: str, goal: str) -> None:
        if name not in self.model or goal in self.model:
            with pytest.raises(DiskError):
                self.disk.move(name, goal, call_id="m")
            return
        self.disk.move(name, goal, call_id="m")
        self.model[goal] = self.model.pop(name)

    @rule(name=names)
    def delete(self, name: str) -> None:
        if name not in self.model:
            with pytest.raises(DiskError):
                self.disk.delete(name, call_id="d")
            return
        change = self.disk.delete(name, call_id="d")
        assert change.before and self.disk.content(change.before) == self.model.pop(name)

    def files(self) -> dict[str, bytes]:
        return {entry.path: (self.folder / entry.path).read_bytes() for entry in self.disk.walk()}

    @invariant()
    def files_are_as_they_should_be(self) -> None:
        assert self.files() == self.model
        leftovers = [path for path in self.folder.rglob("*") if path.name.startswith(".oneiros-")]
        assert leftovers == []


TestDiskMachine = DiskMachine.TestCase
TestDiskMachine.settings = settings(max_examples=5, stateful_step_count=8, deadline=None)
