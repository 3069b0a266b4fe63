"""Keeping the index in step with the files of a disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from oneiros.errors import DiskError
from oneiros.kernel.label import Label
from oneiros.memory.disk import Disk
from oneiros.memory.extraction import extract_text
from oneiros.memory.index import FILE, Document, Index
from oneiros.memory.tree import Entry

LARGEST = 32 << 20  # bytes of a file that is searched

_EMBEDDED = 32  # passages between two questions whether to stop
# Passages embedded before a search, at most: what was just written. A folder that was never indexed
# is found by its words, and embedded in the background.
_EMBEDDED_FIRST = 32
_SECONDS_FIRST = 5.0  # for finding what changed, likewise

# Folders of programs, not of people.
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages", "target", "dist"})


@dataclass(slots=True)
class Synced:
    """What became of the files."""

    added: int = 0  # or changed
    removed: int = 0
    unchanged: int = 0
    problems: dict[str, str] = field(default_factory=dict)  # why files cannot be searched, by path


def sync_disk(
    index: Index,
    disk: Disk,
    *,
    embed: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Synced:
    """Index the files that are new or changed since, and forget those that are gone.

    Only files whose size or time changed are read. Hidden folders and those of programs are left
    out. What was done stays done when this is interrupted.

    Args:
        index: that takes the files, as documents of kind FILE.
        disk: the files.
        embed: whether to embed what is new; it is found by its words before.
        stopped: asked before each file, and every few passages, whether to leave the rest for
            another time.

    Raises:
        DiskError: the folder or the index cannot be used.
    """
    known = index.known(disk.owner, FILE)
    synced = Synced(problems={path: old.problem for path, old in known.items() if old.problem})
    there = set()
    for entry in disk.walk():
        if stopped():
            return synced
        if not is_searched(entry.path):
            continue
        there.add(entry.path)
        old = known.get(entry.path)
        if old and (old.size, old.modified) == (entry.size, entry.modified):
            synced.unchanged += 1
            continue
        problem = index_file(index, disk, entry)
        synced.problems.pop(entry.path, None)
        if problem:
            synced.problems[entry.path] = problem
        synced.added += 1
    for path in known.keys() - there:
        index.remove(disk.owner, FILE, path)
        synced.removed += 1
        synced.problems.pop(path, None)
    while embed and not stopped() and index.embed(disk.owner, limit=_EMBEDDED):
        pass
    return synced


def sync_before_search(index: Index, disk: Disk) -> None:
    """What changed just now is found, however much there is to index. Raises DiskError."""
    end = time.monotonic() + _SECONDS_FIRST
    sync_disk(index, disk, embed=False, stopped=lambda: time.monotonic() > end)
    index.embed(disk.owner, limit=_EMBEDDED_FIRST)


def index_file(index: Index, disk: Disk, entry: Entry) -> str:
    """Index one file, without embedding it; says why it cannot be searched, or ""."""
    document = Document(
        owner=disk.owner,
        kind=FILE,
        path=entry.path,
        text="",
        label=Label.of(f"file:{entry.path}", readers=[disk.owner]),
        size=entry.size,
        modified=entry.modified,
    )
    try:
        if entry.size > LARGEST:
            raise DiskError(f"{entry.path}: is larger than {LARGEST:,} bytes.")
        file = disk.get(entry.path)
        document = replace(document, sha256=file.version.sha256, label=file.label)
        text = extract_text(entry.path, file.data)
    except DiskError as error:
        index.refuse(document, str(error))
        return str(error)
    # A file is also found by its name.
    index.add(replace(document, text=text, title=entry.path), embed=False)
    return ""


def is_searched(path: str) -> bool:
    """Whether a file is one that people look for: neither hidden nor part of a program."""
    *folders, name = path.split("/")
    return not (
        name.startswith(".")
        or any(folder.startswith(".") or folder in _SKIPPED for folder in folders)
    )
