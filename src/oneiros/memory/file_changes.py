"""Changes of files, made so that a crash at any moment leaves each either done or not done.

A change is first recorded as begun, then made by renaming one file, then recorded as done. The
inode of the file tells after a crash whether the renaming happened. What somebody else writes in
the last moment is not lost: the file that was replaced is looked at once more, and kept.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from oneiros.errors import DiskError, quoted
from oneiros.kernel.label import Label
from oneiros.memory import tree
from oneiros.memory.contents import ContentStore
from oneiros.memory.tree import split_path
from oneiros.memory.versions import Change, ChangeKind, Unfinished, Version, VersionLog

LARGEST = 256 << 20  # bytes of a file that is read into memory

# How often a change is tried where somebody else changes the same file at the same time.
_ATTEMPTS = 5
_PIECE = 1 << 20

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a change is made."""

    call_id: str
    tool: str
    pid: int | None
    undoes: int | None = None


class FileChanges:
    """Makes and finds changes of an owner's files, and records them.

    All methods take a descriptor of the folder that paths start from. Whoever calls them sees to it
    that nobody else does at the same time.
    """

    def __init__(self, contents: ContentStore, log: VersionLog, owner: str) -> None:
        self._contents = contents
        self._log = log
        self._owner = owner

    def recover(self, root: int) -> None:
        """Finish or drop what somebody who is no more had begun."""
        for unfinished in self._log.unfinished():
            self._settle(root, unfinished)
        for untidy in self._log.untidy():
            self._tidy(root, untidy)

    def observe(
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

    def read(self, root: int, parts: Parts) -> tuple[bytes, Version]:
        """The content that is there, and the version that it is.

        Raises:
            DiskError: it is larger than LARGEST.
            FileNotFoundError: there is no file.
        """
        path = "/".join(parts)
        with tree.opened_file(root, parts) as file:
            status = os.fstat(file)
            if status.st_size > LARGEST:
                raise DiskError(
                    f"{path}: has {status.st_size:,} bytes, and at most {LARGEST:,} are read."
                )
            data = _read_all(file)
        sha256 = hashlib.sha256(data).hexdigest()
        known = self._log.current(path)
        if known is not None and known.sha256 != sha256:
            self._contents.put(data)
        return data, self._seen(path, known, sha256, len(data), status.st_mode & 0o777)

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
        return Label.of(f"file:{path}", readers=[self._owner])

    # Each of these finishes by `_settle`, as a crash would have it finished.

    def write(
        self,
        root: int,
        parts: Parts,
        after: Callable[[Version | None], Version],
        cause: Cause,
    ) -> Change:
        """Make or replace a file.

        Args:
            root: descriptor of the root.
            parts: the path.
            after: what it is to be, of what it is; its content is in the store.
            cause: why.
        """
        for _ in range(_ATTEMPTS):
            before = self.observe(root, parts, keep=True)
            if change := self._put(root, parts, before, after(before), cause):
                return change
        raise _busy("/".join(parts))

    def _put(
        self, root: int, parts: Parts, before: Version | None, after: Version, cause: Cause
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
                os.fsync(folder)
            except (FileExistsError, FileNotFoundError):
                return self._settle(root, unfinished)
            except (OSError, DiskError):
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

    def delete(self, root: int, parts: Parts, cause: Cause) -> Change:
        """Delete a file."""
        path = "/".join(parts)
        for _ in range(_ATTEMPTS):
            before = self.observe(root, parts, keep=True)
            if before is None:
                raise missing(path)
            change = _planned("delete", parts, before, None, cause)
            temporary = _temporary()
            with tree.opened_folder(root, parts[:-1]) as folder:
                change = replace(change, id=self._log.begin(change, temporary))
                try:
                    tree.rename_to_free(folder, parts[-1], folder, temporary)
                    os.fsync(folder)
                finally:
                    done = self._settle(root, Unfinished(change, temporary, None))
            if done:
                return done
        raise _busy(path)

    def move(self, root: int, parts: Parts, goal: Parts, cause: Cause) -> Change:
        """Give a file another path, which has to be free."""
        path, target = "/".join(parts), "/".join(goal)
        before = self.observe(root, parts, keep=True)
        if before is None:
            raise missing(path)
        self.observe(root, goal, only_known=True)  # its deletion outside, say
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
                os.fsync(new_folder)
                os.fsync(old_folder)
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
            # A temporary file is what tells that a deletion happened, so it goes afterwards.
            tidy = change.kind != "delete" and displaced is None
            if tidy:
                _unlink(folder, name)
        done = self._log.finish(change.id, tidy=tidy, displaced=displaced)
        if not tidy:
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
        return _hash_at(root, parts) != sha256_of(change.before)

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
                if _hash(file)[0] == sha256_of(change.before):
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


def _planned(
    kind: ChangeKind,
    parts: Parts,
    before: Version | None,
    after: Version | None,
    cause: Cause,
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


def _read_all(file: int) -> bytes:
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


def sha256_of(version: Version | None) -> str | None:
    return None if version is None else version.sha256


def _temporary() -> str:
    return f"{tree.TEMPORARY}{secrets.token_hex(8)}"


def new_mode() -> int:
    """Permission bits of new files. The umask can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask


def missing(path: str) -> DiskError:
    return DiskError(
        f"{quoted(path)}: there is no such file. List the folder to see what is there."
    )


def _busy(path: str) -> DiskError:
    return DiskError(f"{path}: somebody else changes this file all the time. Try again later.")
