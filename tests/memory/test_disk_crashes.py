"""A disk whose process is killed: each change happened as a whole, or not at all."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from oneiros.kernel.label import Label
from oneiros.memory import contents, disk, file_changes, tree, versions
from oneiros.memory.disk import Disk

LABEL = Label.of("web:example.org")
MODULES = {module.__file__ for module in (contents, disk, file_changes, tree, versions)}

# What a tool does, and what the files are then.
BEFORE = {"a": b"old", "b": b"other"}
CHANGES: dict[str, tuple[Callable[[Disk], object], dict[str, bytes]]] = {
    "write": (
        lambda d: d.write("a", b"new", call_id="c", label=LABEL),
        {"a": b"new", "b": b"other"},
    ),
    "create": (
        lambda d: d.write("x/y/c", b"new", call_id="c", label=LABEL),
        {**BEFORE, "x/y/c": b"new"},
    ),
    "move": (lambda d: d.move("a", "x/a", call_id="c"), {"x/a": b"old", "b": b"other"}),
    "delete": (lambda d: d.delete("a", call_id="c"), {"b": b"other"}),
    "undo": (lambda d: d.undo(d.history("a")[-1].id, call_id="c"), {"b": b"other"}),
}


def kill_at_line(
    number: int, opening: Callable[[], Disk], function: Callable[[Disk], object]
) -> bool:
    """Run a function in a child that dies when it has run some lines of the disk's modules.

    Returns:
        Whether it died; false: it had ended before.
    """
    child = os.fork()
    if child == 0:
        left = number

        def trace(frame: FrameType, event: str, _: object) -> object:
            nonlocal left
            if frame.f_code.co_filename not in MODULES:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            opened = opening()
            sys.settrace(trace)
            function(opened)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check(base: Path, name: str) -> bool:
    """Open the disk again: the change happened as a whole, and can be undone, or it did not."""
    after = Disk(base / "files", base / "store", "eva")
    files, changes = files_in(base / "files"), after.changes("c")
    if changes:
        assert files == CHANGES[name][1]
        assert len(changes) == 1
        after.undo(changes[0].id)
    assert files_in(base / "files") == BEFORE
    assert after.label("b") == LABEL
    after.close()
    return bool(changes)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The folder of a disk with the files that are changed."""
    base = tmp_path / "prepared"
    first = Disk(base / "files", base / "store", "eva")
    for path, data in BEFORE.items():
        first.write(path, data, call_id="before", label=LABEL)
    first.close()
    return base


def crash(prepared: Path, name: str, line: int) -> tuple[bool, bool]:
    """Whether the process died at this line, and whether the change happened."""
    base = prepared.parent / f"{line}"
    shutil.copytree(prepared, base)
    change = CHANGES[name][0]
    died = kill_at_line(line, lambda: Disk(base / "files", base / "store", "eva"), change)
    happened = check(base, name)
    shutil.rmtree(base)
    return died, happened


@pytest.mark.parametrize("name", CHANGES)
def test_a_kill_at_any_line_leaves_a_change_done_or_not_done(name: str, prepared: Path) -> None:
    """At lines spread over the whole change; the long test takes every one."""
    seen = set()
    for line in range(random.Random(name).randrange(40), 2000, 80):
        died, happened = crash(prepared, name, line)
        seen.add(happened)
        if not died:
            break
    assert seen == {False, True}


@pytest.mark.long
@pytest.mark.parametrize("name", CHANGES)
def test_a_kill_at_every_line_leaves_a_change_done_or_not_done(name: str, prepared: Path) -> None:
    line, died = 0, True
    while died:
        died, _ = crash(prepared, name, line)
        line += 1
    assert line > 100


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(s, marks=pytest.mark.long) for s in range(2, 20))]
)
def test_a_kill_at_any_time_loses_no_call(seed: int, tmp_path: Path) -> None:
    """A child writes call after call; the signal comes whenever it comes."""
    base, chance = tmp_path, random.Random(seed)
    done = 0
    for _ in range(5):
        child = os.fork()
        if child == 0:
            try:
                writer = Disk(base / "files", base / "store", "eva")
                for number in range(done, 10_000):
                    text = f"{number}".encode()
                    writer.write(f"f{number % 3}", text, call_id=f"c{number}", label=LABEL)
            finally:
                os._exit(1)
        time.sleep(0.1 + 0.2 * chance.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        after = Disk(base / "files", base / "store", "eva")
        while changes := after.changes(f"c{done}"):
            assert [change.after and after.content(change.after) for change in changes] == [
                f"{done}".encode()
            ]
            done += 1
        latest = {f"f{number % 3}": f"{number}".encode() for number in range(done)}
        assert files_in(base / "files") == latest
        after.close()
    assert done > 0
