"""A private copy of a principal's files, for programs to work on.

What they change there reaches the disk only by `commit`, as changes of one call. Whatever else they
leave in the copy (links, pipes, files of others) is refused, and removed before the next program.
Nothing is read or written here by a path that a program could have bent: every component is opened
without following links, and all programs have ended, or stand still.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from oneiros.devices.sandbox.limits import Limits
from oneiros.devices.sandbox.place import Place, empty
from oneiros.errors import DiskError
from oneiros.kernel.label import PUBLIC, Label, join_all
from oneiros.kernel.tools import ToolError
from oneiros.memory import tree
from oneiros.memory.disk import Disk

_DEEPEST = 64  # folders in each other
_Signature = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Copied:
    """A file as it was copied."""

    size: int  # as the disk listed it
    modified: float
    sha256: str
    label: Label
    signature: _Signature  # of the copy


@dataclass(frozen=True, slots=True)
class Changes:
    """What programs changed in the copy, and what came of it."""

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # "PATH: why"

    def told(self) -> str:
        """The changes in words; "" where there are none."""
        parts = []
        if self.written:
            parts.append(f"Wrote {_few(self.written)}.")
        if self.deleted:
            parts.append(f"Deleted {_few(self.deleted)}.")
        if self.refused:
            parts.append(f"Not kept: {_few(self.refused, '; ')}.")
        return " ".join(parts)


def _few(names: Sequence[str], separator: str = ", ", most: int = 20) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


class PrivateCopy:
    """The copy of one process. Its methods are for a thread, and for one at a time."""

    def __init__(self, place: Place, disk: Disk, limits: Limits) -> None:
        """Begin with an empty copy."""
        self._place = place
        self._disk = disk
        self._limits = limits
        self._copied: dict[str, _Copied] = {}
        # Of all that programs could ever read here: they may have kept it anywhere.
        self.label = PUBLIC

    def refresh(self, folder: str = "") -> None:
        """Make the copy equal to a folder of the disk again, as far as it can be read.

        Raises:
            ToolError: the folder is too large, or is none.
        """
        try:
            listed = {entry.path: entry for entry in self._files(self._disk.list(folder))}
        except DiskError as error:
            raise ToolError(str(error)) from error
        size = sum(entry.size for entry in listed.values())
        most_bytes, most_files = self._limits.disk // 2, self._limits.entries // 2
        if size > most_bytes or len(listed) > most_files:
            raise ToolError(
                f'The folder "{folder}" has {size:,} bytes in {len(listed):,} files, and programs '
                f"get a copy of at most {most_bytes:,} bytes in {most_files:,} files. Name a "
                "smaller folder in `folder`."
            )
        missing = self._remove_what_differs(listed)
        try:
            for path in missing:
                self._copy(path, listed[path])
        except OSError:  # a folder is where a file belongs, or the other way round
            self._copied.clear()
            try:
                empty(self._place.files)
                for path, entry in listed.items():
                    self._copy(path, entry)
            except OSError as error:
                raise ToolError(f"The files cannot be copied for a program ({error}).") from error
        self.label = join_all([self.label, *(one.label for one in self._copied.values())])

    def commit(self, *, call_id: str, label: Label, tool: str, pid: int) -> Changes:
        """Make the same changes on the disk that were made in the copy.

        Args:
            call_id: of the call that changed it.
            label: of the call; that of all that programs could read is added.
            tool: that the call was of.
            pid: the process whose call it was.
        """
        written: list[str] = []
        deleted: list[str] = []
        refused: list[str] = []
        cause = {"call_id": call_id, "tool": tool, "pid": pid}
        found = {}
        with tree.opened_root(self._place.files) as root:
            for path, status, why in self._scan(root, refused):
                found[path] = status
                known = self._copied.get(path)
                if known is not None and known.signature == _signature(status):
                    continue
                if why:
                    refused.append(f"{_printable(path)}: {why}")
                    continue
                try:
                    with tree.opened_file(root, tuple(path.split("/"))) as file:
                        data = _read(file, status.st_size)
                    if known is not None and hashlib.sha256(data).hexdigest() == known.sha256:
                        continue
                    if known is None and self._is_there(path):
                        refused.append(f"{path}: another file of that name was not copied here")
                        continue
                    self._disk.write(
                        path,
                        data,
                        label=label.join(self.label),
                        mode=0o755 if known is None and status.st_mode & 0o100 else None,
                        replacing=None if known is None else known.sha256,
                        **cause,  # type: ignore[arg-type]
                    )
                    written.append(path)
                except (DiskError, OSError) as error:
                    refused.append(_refusal(path, error))
        for path, copied in self._copied.items():
            if path not in found:
                try:
                    if self._disk.version(path).sha256 == copied.sha256:
                        self._disk.delete(path, **cause)  # type: ignore[arg-type]
                        deleted.append(path)
                    else:
                        refused.append(f"{path}: was changed meanwhile, and is not deleted")
                except DiskError as error:
                    refused.append(_refusal(path, error))
        return Changes(tuple(sorted(written)), tuple(sorted(deleted)), tuple(refused))

    def _is_there(self, path: str) -> bool:
        try:
            self._disk.version(path)
        except DiskError:
            return False
        return True

    # Into the copy

    def _files(self, entries: Sequence[tree.Entry]) -> Iterator[tree.Entry]:
        for entry in entries:
            if entry.kind == "file":
                yield entry
            elif entry.kind == "folder" and entry.path.count("/") < _DEEPEST - 1:
                with suppress(DiskError):  # it cannot be read, or is no more
                    yield from self._files(self._disk.list(entry.path))

    def _remove_what_differs(self, listed: dict[str, tree.Entry]) -> list[str]:
        """Remove what is not as the disk has it; the paths that are missing then."""
        kept = {}
        with tree.opened_root(self._place.files) as root:
            for parts, status in _walk(root):
                path = "/".join(parts)
                known, entry = self._copied.get(path), listed.get(path)
                if (
                    known is not None
                    and entry is not None
                    and (known.size, known.modified) == (entry.size, entry.modified)
                    and known.signature == _signature(status)
                ):
                    kept[path] = known
                elif not stat.S_ISDIR(status.st_mode):
                    with tree.opened_folder(root, parts[:-1]) as folder:
                        os.unlink(parts[-1], dir_fd=folder)
        self._copied = kept
        return [path for path in listed if path not in kept]

    def _copy(self, path: str, entry: tree.Entry) -> None:
        try:
            file = self._disk.get(path)
        except DiskError:
            return
        parts = tuple(path.split("/"))
        mode = 0o700 if file.version.mode & 0o100 else 0o600
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with tree.opened_root(self._place.files) as root:
            self._make_folders(root, parts[:-1])
            with tree.opened_folder(root, parts[:-1]) as folder:
                descriptor = os.open(parts[-1], flags, mode, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as copy:
            self._place.give(descriptor)
            copy.write(file.data)
            copy.flush()
            signature = _signature(os.fstat(descriptor))
        self._copied[path] = _Copied(
            entry.size, entry.modified, file.version.sha256, file.label, signature
        )

    def _make_folders(self, root: int, parts: tuple[str, ...]) -> None:
        for depth in range(len(parts)):
            with tree.opened_folder(root, parts[:depth]) as parent:
                try:
                    os.mkdir(parts[depth], 0o700, dir_fd=parent)
                except FileExistsError:
                    continue
            with tree.opened_folder(root, parts[: depth + 1]) as made:
                self._place.give(made)

    # Out of it

    def _scan(
        self, root: int, refused: list[str]
    ) -> Iterator[tuple[str, os.stat_result, str | None]]:
        """The regular files of the copy, each with why it is refused if it was changed.

        What is no regular file is added to `refused`.
        """
        files = []
        links: Counter[int] = Counter()
        for parts, status in _walk(root):
            path = "/".join(parts)
            if stat.S_ISDIR(status.st_mode):
                if len(parts) > _DEEPEST:
                    refused.append(f"{path[:40]}…: more than {_DEEPEST} folders in each other")
            elif stat.S_ISREG(status.st_mode):
                files.append((path, status))
                links[status.st_ino] += 1
            else:
                refused.append(f"{_printable(path)}: a {_kind(status.st_mode)}, and no file")
        for path, status in files:
            why = None
            if not _is_path(path):
                why = "its name cannot be kept"
            elif links[status.st_ino] != status.st_nlink:
                why = "it has another name outside of the folder"
            elif self._place.user is not None and status.st_uid != self._place.user:
                why = "it belongs to somebody else"
            elif status.st_size > self._limits.file_size:
                why = f"it has more than {self._limits.file_size:,} bytes"
            yield path, status, why


def _walk(root: int) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """All that is below a folder, folders before what they hold; too deep ones are not opened.

    Folders that a program closed to its own user, who may be ours, are opened again.
    """
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        with tree.opened_folder(root, parts) as folder, os.scandir(folder) as scan:
            inner = [(item.name, item.stat(follow_symlinks=False)) for item in scan]
            for name, status in inner:
                if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
                    os.chmod(name, 0o700, dir_fd=folder)
        for name, status in inner:
            yield (*parts, name), status
            if stat.S_ISDIR(status.st_mode) and len(parts) < _DEEPEST:
                waiting.append((*parts, name))


def _signature(status: os.stat_result) -> _Signature:
    """What differs when a file was written to: programs cannot set its last number."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(file: int, size: int) -> bytes:
    with os.fdopen(os.dup(file), "rb") as stream:
        return stream.read(size)


def _is_path(path: str) -> bool:
    try:
        return "/".join(tree.split_path(path)) == path
    except DiskError:
        return False


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "symbolic link"
    return "pipe" if stat.S_ISFIFO(mode) else "device or socket"


def _printable(path: str) -> str:
    return repr(path)[1:-1]


def _refusal(path: str, error: Exception) -> str:
    text = str(error).removeprefix(f"{path}: ")
    return f"{path}: {text[:1].lower()}{text[1:].rstrip('.')}"
