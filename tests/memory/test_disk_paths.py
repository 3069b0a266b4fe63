"""Paths cannot lead out of a disk, whatever they look like and whatever is swapped in."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneiros.errors import DiskError
from oneiros.kernel.label import Label
from oneiros.memory.disk import Disk

LABEL = Label.of("user")
SECRET = b"secret"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk with a file outside, and links that lead there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(SECRET)
    files = tmp_path / "files"
    files.mkdir()
    (files / "in").mkdir()
    (files / "in/a.txt").write_text("inside")
    (files / "out").symlink_to(outside)
    (files / "secret").symlink_to(outside / "secret.txt")
    (files / "relative").symlink_to("../outside/secret.txt")
    (files / "dangling").symlink_to(outside / "new.txt")
    os.mkfifo(files / "pipe")
    return Disk(files, tmp_path / "store", "eva")


def outside_is_untouched(tmp_path: Path) -> bool:
    found = {path.name: path.read_bytes() for path in (tmp_path / "outside").iterdir()}
    return found == {"secret.txt": SECRET}


BAD = [
    "/etc/passwd",
    "../outside/secret.txt",
    "in/../../outside/secret.txt",
    "in/..",
    "..",
    "",
    ".",
    "in",
    "out/secret.txt",
    "out/new.txt",
    "secret",
    "relative",
    "dangling",
    "pipe",
    "a\0b",
    "a\nb",
    "x" * 256,
    "\udcff",
    ".oneiros-0123",
    "in/a.txt/b",
]


@pytest.mark.parametrize("path", BAD)
def test_bad_paths_are_refused_by_everything(disk: Disk, tmp_path: Path, path: str) -> None:
    before = sorted((tmp_path / "files").iterdir())
    with pytest.raises(DiskError):
        disk.read(path)
    with pytest.raises(DiskError):
        disk.write(path, b"bad", call_id="c", label=LABEL)
    with pytest.raises(DiskError):
        disk.delete(path, call_id="c")
    with pytest.raises(DiskError):
        disk.move(path, "in/moved", call_id="c")
    with pytest.raises(DiskError):
        disk.move("in/a.txt", path, call_id="c")
    assert outside_is_untouched(tmp_path)
    assert disk.changes("c") == []
    assert sorted((tmp_path / "files").iterdir()) == before
    assert disk.read("in/a.txt") == b"inside"


def test_links_are_listed_and_not_followed(disk: Disk) -> None:
    kinds = {entry.path: entry.kind for entry in disk.list()}
    assert kinds["out"] == kinds["secret"] == "link"
    assert [entry.path for entry in disk.walk()] == ["in/a.txt"]
    with pytest.raises(DiskError, match="symbolic link"):
        disk.list("out")


PIECES = st.sampled_from(
    ["in", "out", "secret", "..", ".", "", "a.txt", "new", "dangling", "/", "~"]
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.one_of(st.lists(PIECES, max_size=5).map("/".join), st.text(max_size=20)))
def test_no_path_reads_or_writes_outside(disk: Disk, tmp_path: Path, path: str) -> None:
    with suppress(DiskError):
        assert SECRET not in disk.read(path)
    with suppress(DiskError):
        disk.write(path, b"bad", call_id="c", label=LABEL)
    disk.undo_call("c")
    assert outside_is_untouched(tmp_path)


def test_links_swapped_in_during_an_operation_do_not_lead_out(disk: Disk, tmp_path: Path) -> None:
    """Somebody replaces a folder and a file by links and back, all the time."""
    files, stop = tmp_path / "files", threading.Event()
    (files / "real").mkdir()
    (files / "real/secret.txt").write_text("inside")
    (files / "link").symlink_to(tmp_path / "outside")
    (files / "file").write_text("inside")
    (files / "file-link").symlink_to(tmp_path / "outside/secret.txt")

    def swap() -> None:
        while not stop.is_set():
            for name, link in (("real", "link"), ("file", "file-link")):
                # What is a folder or file, and what a link, changes place. A write that comes
                # between makes a folder of its own.
                with suppress(OSError):
                    (files / name).rename(files / "other")
                    (files / link).rename(files / name)
                    (files / "other").rename(files / link)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = set()
        for number in range(40):
            for path in ("real/secret.txt", "file"):
                try:
                    outcomes.add(disk.read(path))
                    disk.write(path, b"inside", call_id=f"{number}", label=LABEL)
                    disk.delete(path, call_id=f"{number}")
                except DiskError:
                    outcomes.add(None)
    finally:
        stop.set()
        thread.join()
    assert SECRET not in outcomes
    assert outside_is_untouched(tmp_path)
