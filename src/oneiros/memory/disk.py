"""A principal's files: real files in a folder that the user chose, with versions and labels.

Every change that a tool makes can be undone. A change is first recorded as begun, then made by
renaming one file, then recorded as done; the file's inode tells after a crash whether the renaming
happened. What the user changes outside is noticed by its hash, and kept as a version of its own
before anything takes its place, also when it was written in the very last moment: the file that was
replaced is looked at once more.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from oneiros.errors import DiskError, quoted
from oneiros.kernel.label import Label
from oneiros.memory import tree
from oneiros.memory.contents import ContentStore, sync_folder
from oneiros.memory.tree import Entry, split_path
from oneiros.memory.versions import Change, ChangeKind, Unfinished, Version, VersionLog

__all__ = ["Change", "Disk", "Entry", "File", "Version"]

LARGEST = 256 << 20  # bytes of a file that is read into memory

# How often a change is tried where somebody else changes the same file at the same time.
_ATTEMPTS = 5
_PIECE = 1 << 20

Parts = tuple[str, ...]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """Why a change is made."""

    call_id: str
    tool: str
    pid: int | None
    undoes: int | None = None


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
        with self._turn():
            pass

    def close(self) -> None:
        """Close the database; the disk cannot be used afterwards."""
        with self._lock:
            self._log.close()
            os.close(self._lock_file)

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
        with self._turn() as root, tree.opened_file(root, parts) as file:
            status = os.fstat(file)
            if status.st_size > LARGEST:
                raise DiskError(
                    f"{path}: has {status.st_size:,} bytes, and at most {LARGEST:,} are read."
                )
            data = _read(file)
            sha256 = hashlib.sha256(data).hexdigest()
            name = "/".join(parts)
            known = self._log.current(name)
            if known is not None and known.sha256 != sha256:
                self._contents.put(data)
            version = self._seen(name, known, sha256, len(data), status.st_mode & 0o777)
        return File(name, data, version)

    def version(self, path: str) -> Version:
        """The version of a file that is there now.

        Raises:
            DiskError: there is no such file.
        """
        parts = split_path(path)
        with self._turn() as root:
            found = self._observe(root, parts)
            if found is None:
                raise _missing(path)
            return found

    def list(self, path: str = "") -> Entries:
        """What is in a folder, by name. Raises DiskError where there is no such folder."""
        with tree.opened_root(self.root) as root:
            return tree.entries(root, split_path(path))

    def walk(self, path: str = "") -> Iterator[Entry]:
        """All files in a folder and those in it; no links are followed, none is an entry."""
        for entry in self.list(path):
            if entry.kind == "folder":
                yield from self.walk(entry.path)
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
        cause = _Cause(call_id=call_id, tool=tool, pid=pid)
        with self._turn() as root:
            sha256 = self._contents.put(data)

            def after(before: Version | None) -> Version:
                if replacing is not None and _sha256(before) != replacing:
                    raise DiskError(f"{path}: was changed meanwhile. Read it again.")
                bits = mode if mode is not None else before.mode if before else _new_mode()
                return Version(sha256, len(data), bits & 0o777, label)

            for _ in range(_ATTEMPTS):
                before = self._observe(root, parts, keep=True)
                if change := self._put(root, parts, before, after(before), cause):
                    return change
        raise _busy(path)

    def delete(self, path: str, *, call_id: str, tool: str = "", pid: int | None = None) -> Change:
        """Delete a file; it can be brought back by undoing the change.

        Raises:
            DiskError: there is no such file, or it cannot be deleted.
        """
        parts = _file_parts(path)
        with self._turn() as root:
            return self._delete(root, parts, _Cause(call_id=call_id, tool=tool, pid=pid))

    def move(
        self, path: str, target: str, *, call_id: str, tool: str = "", pid: int | None = None
    ) -> Change:
        """Give a file another path; its label goes with it, and folders above it are made.

        Raises:
            DiskError: there is no such file, or the new path is taken.
        """
        parts, goal = _file_parts(path), _file_parts(target)
        with self._turn() as root:
            return self._move(root, parts, goal, _Cause(call_id=call_id, tool=tool, pid=pid))

    # What happened

    def changes(self, call_id: str) -> Changes:
        """The changes that a call made, in their order; of a call that made none: []."""
        with self._turn():
            return self._log.of_call(call_id)

    def history(self, path: str) -> Changes:
        """The changes of a file, the oldest first, those before it was moved here included."""
        parts = _file_parts(path)
        with self._turn() as root:
            self._observe(root, parts, only_known=True)
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
        cause = _Cause(call_id=call_id or _undo_id(), tool=tool, pid=pid)
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
        cause = _Cause(call_id=by or _undo_id(), tool=tool, pid=pid)
        with self._turn() as root:
            standing = [c for c in self._log.of_call(call_id) if not self._log.undone_by(c.id)]
            return self._undo(root, standing[::-1], cause)

    # Turns: one change at a time, by whichever thread or process

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
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
                    self._recover(root)
                    yield root
            except FileNotFoundError as error:
                raise _missing(str(error.filename)) from error
            except OSError as error:
                what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
                raise DiskError(
                    f"{error.filename or self.root}: cannot be read or written ({what})."
                ) from error

    def _recover(self, root: int) -> None:
        """Finish or drop what somebody who is no more had begun."""
        for unfinished in self._log.unfinished():
            self._settle(root, unfinished)
        for untidy in self._log.untidy():
            self._tidy(root, untidy)

    # Observing

    def _observe(
        self, root: int, parts: Parts, *, keep: bool = False, only_known: bool = False
    ) -> Version | None:
        """The version that is there; None: no file. A change from outside is recorded.

        Args:
            root: descriptor of the root.
            parts: the path.
            keep: have the content kept as a version, also of a file that was never changed here.
            only_known: do not even read files that were never changed here.
        """
        path = "/".join(parts)
        known = self._log.current(path)
        if only_known and known is None:
            return None
        try:
            with tree.opened_file(root, parts) as file:
                sha256, size = self._contents.put_file(file) if keep else _hash(file)
                if known is not None and known.sha256 != sha256 and not keep:
                    os.lseek(file, 0, os.SEEK_SET)
                    sha256, size = self._contents.put_file(file)
                mode = os.fstat(file).st_mode & 0o777
        except FileNotFoundError:
            if known is not None:
                self._log.noticed(path, known, None)
            return None
        found = self._seen(path, known, sha256, size, mode)
        if keep and known is None:
            self._log.noticed(path, None, found)
        return found

    def _seen(self, path: str, known: Version | None, sha256: str, size: int, mode: int) -> Version:
        """The version that some content is; recorded where it differs from what was known."""
        if known is None:
            return Version(sha256, size, mode, self._own_label(path))
        if known.sha256 == sha256:
            return replace(known, mode=mode)
        # Somebody edited it: what influenced it before may still be in it.
        found = Version(sha256, size, mode, known.label.join(self._own_label(path)))
        self._log.noticed(path, known, found)
        return found

    def _own_label(self, path: str) -> Label:
        return Label.of(f"file:{path}", readers=[self.owner])

    # Changing: each of these finishes by `_settle`, as a crash would have it finished

    def _put(
        self, root: int, parts: Parts, before: Version | None, after: Version, cause: _Cause
    ) -> Change | None:
        """Put a version in place; None: somebody made or deleted the file in this moment."""
        made = tree.make_folders(root, parts[:-1])
        change = _planned("write", parts, before, after, cause, folders=made)
        temporary = _temporary()
        with tree.opened_folder(root, parts[:-1]) as folder:
            change = replace(change, id=self._log.begin(change, temporary))
            unfinished = Unfinished(change, temporary, None)
            try:
                inode = self._stage(folder, temporary, after)
                unfinished = replace(unfinished, inode=inode)
                self._log.staged(change.id, inode)
                tree.put_in_place(folder, temporary, parts[-1], exchange=before is not None)
                sync_folder(folder)
            except (FileExistsError, FileNotFoundError):
                return self._settle(root, unfinished)
            except OSError:
                self._settle(root, unfinished)
                raise
        return self._settle(root, unfinished)

    def _stage(self, folder: int, temporary: str, version: Version) -> int:
        """Write a version under a temporary name; says the inode."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._contents.load(version.sha256))
            file.flush()
            os.fchmod(descriptor, version.mode)
            os.fsync(descriptor)
            return os.fstat(descriptor).st_ino

    def _delete(self, root: int, parts: Parts, cause: _Cause) -> Change:
        path = "/".join(parts)
        for _ in range(_ATTEMPTS):
            before = self._observe(root, parts, keep=True)
            if before is None:
                raise _missing(path)
            change = _planned("delete", parts, before, None, cause)
            temporary = _temporary()
            with tree.opened_folder(root, parts[:-1]) as folder:
                change = replace(change, id=self._log.begin(change, temporary))
                try:
                    tree.rename_to_free(folder, parts[-1], folder, temporary)
                    sync_folder(folder)
                finally:
                    done = self._settle(root, Unfinished(change, temporary, None))
            if done:
                return done
        raise _busy(path)

    def _move(self, root: int, parts: Parts, goal: Parts, cause: _Cause) -> Change:
        path, target = "/".join(parts), "/".join(goal)
        before = self._observe(root, parts, keep=True)
        if before is None:
            raise _missing(path)
        self._observe(root, goal, only_known=True)  # its deletion outside, say
        made = tree.make_folders(root, goal[:-1])
        change = _planned("move", parts, before, before, cause, folders=made)
        change = replace(change, target=target)
        with (
            tree.opened_folder(root, parts[:-1]) as old_folder,
            tree.opened_folder(root, goal[:-1]) as new_folder,
        ):
            inode = os.stat(parts[-1], dir_fd=old_folder, follow_symlinks=False).st_ino
            temporary = _temporary()
            change = replace(change, id=self._log.begin(change, temporary, inode))
            try:
                tree.rename_to_free(old_folder, parts[-1], new_folder, goal[-1])
                sync_folder(new_folder)
                sync_folder(old_folder)
            except FileExistsError as error:
                raise DiskError(
                    f"{target}: exists already. Choose another path, or delete it first."
                ) from error
            finally:
                done = self._settle(root, Unfinished(change, temporary, inode))
        if done is None:
            raise _busy(path)
        return done

    def _settle(self, root: int, unfinished: Unfinished) -> Change | None:
        """Find out whether a change happened, and record that; None: it did not."""
        change, name = unfinished.change, unfinished.temporary
        parts = split_path(change.path)
        with _folder_if_there(root, parts[:-1]) as folder:
            self._give_back(folder, unfinished, parts[-1])
            if not self._happened(root, folder, unfinished):
                if change.kind == "write":
                    _unlink(folder, name)
                self._log.drop(change.id)
                made = split_path(change.target) if change.target else parts
                tree.remove_empty_folders(root, made[:-1], change.folders)
                return None
            displaced = self._displaced(folder, unfinished)
        done = self._log.finish(change.id, displaced)
        self._tidy(root, replace(unfinished, change=done))
        return done

    def _happened(self, root: int, folder: int | None, unfinished: Unfinished) -> bool:
        change, inode = unfinished.change, unfinished.inode
        parts = split_path(change.path)
        if change.kind == "move":
            goal = split_path(change.target or "")
            with _folder_if_there(root, goal[:-1]) as target:
                return _inode(target, goal[-1]) == inode
        staged = _inode(folder, unfinished.temporary)
        if change.kind == "delete":
            return staged is not None
        if inode is None or staged == inode:
            return False
        if staged is not None or _inode(folder, parts[-1]) == inode:
            return True
        # The file was replaced after it was put in place; or somebody removed the temporary one.
        return _hash_at(root, parts) != _sha256(change.before)

    def _give_back(self, folder: int | None, unfinished: Unfinished, name: str) -> None:
        """Put back what was displaced and is no file: somebody made a link or folder of it."""
        if folder is None or unfinished.change.kind == "move":
            return
        try:
            status = os.stat(unfinished.temporary, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISREG(status.st_mode):
            return
        if unfinished.change.kind == "write":
            tree.put_in_place(folder, unfinished.temporary, name, exchange=True)
        else:
            tree.rename_to_free(folder, unfinished.temporary, folder, name)

    def _displaced(self, folder: int | None, unfinished: Unfinished) -> Version | None:
        """What was replaced or deleted, if it is not what had been looked at before."""
        change = unfinished.change
        if folder is None or change.kind == "move":
            return None
        try:
            with tree.opened_file(folder, (unfinished.temporary,)) as file:
                if _hash(file)[0] == _sha256(change.before):
                    return None
                os.lseek(file, 0, os.SEEK_SET)
                sha256, size = self._contents.put_file(file)
                mode = os.fstat(file).st_mode & 0o777
        except FileNotFoundError:
            return None
        label = self._own_label(change.path)
        return Version(
            sha256, size, mode, label.join(change.before.label) if change.before else label
        )

    def _tidy(self, root: int, untidy: Unfinished) -> None:
        with _folder_if_there(root, split_path(untidy.change.path)[:-1]) as folder:
            _unlink(folder, untidy.temporary)
        self._log.tidied(untidy.change.id)

    # Undoing

    def _undo(self, root: int, changes: Sequence[Change], cause: _Cause) -> Changes:
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
                there[place] = _sha256(self._observe(root, split_path(place), keep=True))
            if there[place] != _sha256(change.after):
                raise DiskError(self._changed_since(change, place))
            if change.kind == "outside" and change.before is None:
                raise DiskError(
                    f"{place}: change {change.id} is the user's own file as it was found. Delete "
                    "the file if it shall go."
                )
            there[place] = None
            there[change.path] = _sha256(change.before)

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

    def _undo_one(self, root: int, change: Change, cause: _Cause) -> Change:
        parts = split_path(change.path)
        if change.target is not None:
            goal = split_path(change.target)
            undone = self._move(root, goal, parts, cause)
            tree.remove_empty_folders(root, goal[:-1], change.folders)
            return undone
        if change.before is None:
            undone = self._delete(root, parts, cause)
            tree.remove_empty_folders(root, parts[:-1], change.folders)
            return undone
        for _ in range(_ATTEMPTS):
            now = self._observe(root, parts, keep=True)
            if done := self._put(root, parts, now, change.before, cause):
                return done
        raise _busy(change.path)

    def _change(self, number: int) -> Change:
        found = self._log.change(number)
        if found is None:
            raise DiskError(
                f"There is no change {number}. The history of a file lists its changes."
            )
        return found


def _planned(
    kind: ChangeKind,
    parts: Parts,
    before: Version | None,
    after: Version | None,
    cause: _Cause,
    folders: int = 0,
) -> Change:
    return Change(
        id=0,
        time=time.time(),
        kind=kind,
        path="/".join(parts),
        before=before,
        after=after,
        call_id=cause.call_id,
        tool=cause.tool,
        pid=cause.pid,
        undoes=cause.undoes,
        folders=folders,
    )


@contextmanager
def _folder_if_there(root: int, parts: Parts) -> Iterator[int | None]:
    """A folder's descriptor; None where it is gone, or something else is in its place."""
    try:
        opened = tree.opened_folder(root, parts)
        folder = opened.__enter__()
    except DiskError:
        yield None
        return
    try:
        yield folder
    finally:
        opened.__exit__(None, None, None)


def _file_parts(path: str) -> Parts:
    parts = split_path(path)
    if not parts:
        raise DiskError("A file's path is needed, and this is the folder itself.")
    return parts


def _inode(folder: int | None, name: str) -> int | None:
    if folder is None:
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _unlink(folder: int | None, name: str) -> None:
    if folder is not None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _read(file: int) -> bytes:
    pieces = []
    while piece := os.read(file, _PIECE):
        pieces.append(piece)
    return b"".join(pieces)


def _hash(file: int) -> tuple[str, int]:
    """SHA-256 and size of what can be read from a descriptor."""
    hashed, size = hashlib.sha256(), 0
    while piece := os.read(file, _PIECE):
        hashed.update(piece)
        size += len(piece)
    return hashed.hexdigest(), size


def _hash_at(root: int, parts: Parts) -> str | None:
    try:
        with tree.opened_file(root, parts) as file:
            return _hash(file)[0]
    except (FileNotFoundError, DiskError):
        return None


def _sha256(version: Version | None) -> str | None:
    return None if version is None else version.sha256


def _temporary() -> str:
    return f"{tree.TEMPORARY}{secrets.token_hex(8)}"


def _new_mode() -> int:
    """Permission bits of new files. The umask can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def _undo_id() -> str:
    return f"undo-{secrets.token_hex(8)}"


def _missing(path: str) -> DiskError:
    return DiskError(
        f"{quoted(path)}: there is no such file. List the folder to see what is there."
    )


def _busy(path: str) -> DiskError:
    return DiskError(f"{path}: somebody else changes this file all the time. Try again later.")
