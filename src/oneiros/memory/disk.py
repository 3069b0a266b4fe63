"""A principal's files: real files in a folder that the user chose, with versions and labels.

Every change that a tool makes can be undone, and undoing is a change as well. What the user changes
outside is noticed by its hash, and kept as a version of its own before anything takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from oneiros.errors import DiskError
from oneiros.kernel.label import Label, join_all
from oneiros.memory import tree
from oneiros.memory.contents import ContentStore
from oneiros.memory.file_changes import (
    LARGEST,
    Cause,
    FileChanges,
    Parts,
    missing,
    new_mode,
    sha256_of,
)
from oneiros.memory.tree import Entry, split_path
from oneiros.memory.versions import Change, Version, VersionLog

__all__ = ["LARGEST", "Change", "Disk", "Entry", "File", "Version"]

Entries = list[Entry]  # a Disk's `list` is its method
Changes = list[Change]


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was read."""

    path: str
    data: bytes
    version: Version

    @property
    def label(self) -> Label:
        """What influenced the content, and who may read it."""
        return self.version.label


class Disk:
    """The files of one principal.

    Paths are relative to the folder, with "/" between components; they cannot lead out of it.
    Threads and processes may use one disk at the same time: they wait for each other.

    Attributes:
        root: the folder.
        owner: the principal.
    """

    def __init__(self, root: Path, store: Path, owner: str) -> None:
        """Open a disk, and finish or drop what a crash interrupted.

        Args:
            root: the folder with the files; made if it is missing.
            store: the folder with their versions and labels; made if it is missing.
            owner: the principal.

        Raises:
            DiskError: one folder is inside the other, or they cannot be opened.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            store.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root = root.resolve()
            self._lock_file = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DiskError(f"{root}: the disk cannot be opened ({error}).") from error
        inner = store.resolve()
        if inner.is_relative_to(self.root) or self.root.is_relative_to(inner):
            os.close(self._lock_file)
            raise DiskError(
                f"{root}: the files and their versions ({store}) may not lie in each other. "
                "Choose another folder."
            )
        self.owner = owner
        self._lock = threading.Lock()
        with self._locked():
            self._contents = ContentStore(inner / "contents")
            self._contents.clear_incoming()
            self._log = VersionLog(inner / "versions.sqlite")
            self._files = FileChanges(self._contents, self._log, owner)
        with self._turn():
            pass

    def close(self) -> None:
        """Close the database; the disk cannot be used afterwards."""
        with self._lock:
            if self._lock_file >= 0:
                self._log.close()
                os.close(self._lock_file)
                self._lock_file = -1

    # Reading

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            DiskError: there is no such file, or it is larger than LARGEST.
        """
        return self.get(path).data

    def label(self, path: str) -> Label:
        """The label of a file: what the one who wrote it gave, or that of the user's own file.

        Raises:
            DiskError: there is no such file.
        """
        return self.version(path).label

    def get(self, path: str) -> File:
        """The bytes of a file, and the version that they are.

        Raises:
            DiskError: there is no such file, or it is larger than LARGEST.
        """
        parts = split_path(path)
        with self._turn() as root:
            data, version = self._files.read(root, parts)
        return File("/".join(parts), data, version)

    def version(self, path: str) -> Version:
        """The version of a file that is there now.

        Raises:
            DiskError: there is no such file.
        """
        parts = split_path(path)
        with self._turn() as root:
            found = self._files.observe(root, parts)
            if found is None:
                raise missing(path)
            return found

    def list(self, path: str = "") -> Entries:
        """What is in a folder, by name. Raises DiskError where there is no such folder."""
        with tree.opened_root(self.root) as root:
            return tree.entries(root, split_path(path))

    def names_label(self, path: str = "") -> Label:
        """What influenced the names of the files in a folder.

        Of files that were changed through a disk, what influenced their content; the user's own
        files have the names that the user gave them.
        """
        with self._turn():
            return join_all(self._log.labels("/".join(split_path(path))))

    def walk(self, path: str = "") -> Iterator[Entry]:
        """All files in a folder and those in it; folders that cannot be opened are passed over."""
        pending = self.list(path)[::-1]
        while pending:
            entry = pending.pop()
            if entry.kind == "folder":
                with suppress(DiskError):
                    pending += self.list(entry.path)[::-1]
            elif entry.kind == "file":
                yield entry

    # Changing

    def write(
        self,
        path: str,
        data: bytes,
        *,
        call_id: str,
        label: Label,
        tool: str = "",
        pid: int | None = None,
        mode: int | None = None,
        replacing: str | None = None,
    ) -> Change:
        """Make a file, or replace its content; folders above it are made.

        Args:
            path: of the file.
            data: its new content.
            call_id: of the call that writes; the change is found again by it.
            label: of the content.
            tool: that writes.
            pid: of the process that calls it.
            mode: permission bits; default: as before, or as the system makes new files.
            replacing: SHA-256 of the content that has to be there; default: whatever is there.

        Raises:
            DiskError: the path cannot be a file's, the content is another one than `replacing`,
                or it cannot be written. Then nothing has changed.
        """
        parts = _file_parts(path)
        cause = Cause(call_id=call_id, tool=tool, pid=pid)
        with self._turn() as root:
            sha256 = self._contents.put(data)

            def after(before: Version | None) -> Version:
                if replacing is not None and sha256_of(before) != replacing:
                    raise DiskError(f"{path}: was changed meanwhile. Read it again.")
                bits = mode if mode is not None else before.mode if before else new_mode()
                return Version(sha256, len(data), bits & 0o777, label)

            return self._files.write(root, parts, after, cause)

    def delete(self, path: str, *, call_id: str, tool: str = "", pid: int | None = None) -> Change:
        """Delete a file; it can be brought back by undoing the change.

        Raises:
            DiskError: there is no such file, or it cannot be deleted.
        """
        parts = _file_parts(path)
        with self._turn() as root:
            return self._files.delete(root, parts, Cause(call_id=call_id, tool=tool, pid=pid))

    def move(
        self, path: str, target: str, *, call_id: str, tool: str = "", pid: int | None = None
    ) -> Change:
        """Give a file another path; its label goes with it, and folders above it are made.

        Raises:
            DiskError: there is no such file, or the new path is taken.
        """
        parts, goal = _file_parts(path), _file_parts(target)
        with self._turn() as root:
            return self._files.move(root, parts, goal, Cause(call_id=call_id, tool=tool, pid=pid))

    # What happened

    def changes(self, call_id: str) -> Changes:
        """The changes that a call made, in their order; of a call that made none: []."""
        with self._turn():
            return self._log.of_call(call_id)

    def history(self, path: str) -> Changes:
        """The changes of a file, the oldest first, those before it was moved here included."""
        parts = _file_parts(path)
        with self._turn() as root:
            self._files.observe(root, parts, only_known=True)
            return self._log.of_path("/".join(parts))

    def change(self, number: int) -> Change:
        """A change. Raises DiskError where there is none of that number."""
        with self._turn():
            return self._change(number)

    def content(self, version: Version) -> bytes:
        """The bytes of any version that a change names. Raises DiskError where they are damaged."""
        return self._contents.load(version.sha256)

    def undo(
        self, change: int, *, call_id: str = "", tool: str = "undo", pid: int | None = None
    ) -> Change:
        """Take a change back; that is a change as well, and can be undone.

        Raises:
            DiskError: the file was changed since, or the change was taken back already.
        """
        cause = Cause(call_id=call_id or _undo_id(), tool=tool, pid=pid)
        with self._turn() as root:
            found = self._change(change)
            if undo := self._log.undone_by(change):
                raise DiskError(
                    f"Change {change} ({found.path}) was taken back by change {undo.id}. Undo that "
                    "one to have it again."
                )
            return self._undo(root, [found], cause)[0]

    def undo_call(
        self, call_id: str, *, by: str = "", tool: str = "undo", pid: int | None = None
    ) -> Changes:
        """Take back all changes of a call that were not taken back yet, the last one first.

        Args:
            call_id: of the call.
            by: the call id of the new changes; default: one of their own.
            tool: that undoes.
            pid: of the process that calls it.

        Raises:
            DiskError: a file was changed since. Then nothing is undone.
        """
        cause = Cause(call_id=by or _undo_id(), tool=tool, pid=pid)
        with self._turn() as root:
            standing = [c for c in self._log.of_call(call_id) if not self._log.undone_by(c.id)]
            return self._undo(root, standing[::-1], cause)

    # Turns: one change at a time, by whichever thread or process

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            if self._lock_file < 0:
                raise DiskError(f"{self.root}: the disk was closed.")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextmanager
    def _turn(self) -> Iterator[int]:
        """A descriptor of the root, while nobody else changes files through a disk."""
        with self._locked():
            try:
                with tree.opened_root(self.root) as root:
                    self._files.recover(root)
                    yield root
            except FileNotFoundError as error:
                raise missing(str(error.filename)) from error
            except OSError as error:
                what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
                raise DiskError(
                    f"{error.filename or self.root}: cannot be read or written ({what})."
                ) from error

    # Undoing

    def _undo(self, root: int, changes: Sequence[Change], cause: Cause) -> Changes:
        self._check_undo(root, changes)
        return [
            self._undo_one(root, change, replace(cause, undoes=change.id)) for change in changes
        ]

    def _check_undo(self, root: int, changes: Sequence[Change]) -> None:
        """Refuse to undo changes, in this order, where another change came after one of them."""
        there: dict[str, str | None] = {}  # hashes once the changes before are undone
        for change in changes:
            place = change.target or change.path
            if place not in there:
                there[place] = sha256_of(self._files.observe(root, split_path(place), keep=True))
            if there[place] != sha256_of(change.after):
                raise DiskError(self._changed_since(change, place))
            if change.kind == "outside" and change.before is None:
                raise DiskError(
                    f"{place}: change {change.id} is the user's own file as it was found. Delete "
                    "the file if it shall go."
                )
            there[place] = None
            there[change.path] = sha256_of(change.before)

    def _changed_since(self, change: Change, place: str) -> str:
        later = [c for c in self._log.of_path(place) if c.id > change.id]
        by = ""
        if later:
            who = later[-1].tool or "the user"
            by = f", at last by change {later[-1].id} ({who})"
        return (
            f"{place}: was changed after change {change.id}{by}. Undo what came later first, or "
            "write the version that you want."
        )

    def _undo_one(self, root: int, change: Change, cause: Cause) -> Change:
        parts = split_path(change.path)
        if change.target is not None:
            goal = split_path(change.target)
            undone = self._files.move(root, goal, parts, cause)
            tree.remove_empty_folders(root, goal[:-1], change.folders)
            return undone
        if change.before is None:
            undone = self._files.delete(root, parts, cause)
            tree.remove_empty_folders(root, parts[:-1], change.folders)
            return undone
        before = change.before
        return self._files.write(root, parts, lambda _: before, cause)

    def _change(self, number: int) -> Change:
        found = self._log.change(number)
        if found is None:
            raise DiskError(
                f"There is no change {number}. The history of a file lists its changes."
            )
        return found


def _file_parts(path: str) -> Parts:
    parts = split_path(path)
    if not parts:
        raise DiskError("A file's path is needed, and this is the folder itself.")
    return parts


def _undo_id() -> str:
    return f"undo-{secrets.token_hex(8)}"
