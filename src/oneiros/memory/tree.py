"""A folder whose files are reached by relative paths that cannot leave it.

Every component of a path is opened from the folder above it, and no symbolic link is followed
(openat(2) with O_NOFOLLOW), so that a path cannot be made to lead elsewhere while it is walked.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oneiros.errors import DiskError, quoted

# Names of files that are about to be put in place, or were just taken out of it.
TEMPORARY = ".oneiros-"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a pipe must not hold whoever opens it by mistake.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2(2)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder."""

    path: str
    kind: Literal["file", "folder", "link", "other"]  # links are listed, and never followed
    size: int  # bytes; of anything but files 0
    modified: float  # seconds since the epoch


def split_path(path: str) -> tuple[str, ...]:
    """The components of a relative path; () is the folder itself.

    Raises:
        DiskError: it is absolute, has "..", or names that cannot be on the disk.
    """
    shown = quoted(path)
    if path.startswith("/"):
        raise DiskError(
            f"{shown}: the path is absolute. Give it relative to the folder: "
            f"{quoted(path.lstrip('/'))}."
        )
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    for part in parts:
        if part == "..":
            raise DiskError(f'{shown}: a path may not have "..": it stays inside the folder.')
        if not _is_name(part):
            raise DiskError(
                f"{shown}: {quoted(part)} cannot be a file's name here. Names have at most 255 "
                f'bytes, no control characters, and do not begin with "{TEMPORARY}".'
            )
    return parts


def _is_name(name: str) -> bool:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return length <= 255 and not name.startswith(TEMPORARY) and not _has_controls(name)


def _has_controls(name: str) -> bool:
    return any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name)


@contextmanager
def opened_root(root: Path) -> Iterator[int]:
    """A descriptor of the folder that paths start from."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{root}: the folder cannot be opened ({error.strerror}).") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_folder(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """A descriptor of a folder below `root`.

    Raises:
        DiskError: a component is missing, or no folder.
    """
    descriptor = os.dup(root)
    try:
        for depth, name in enumerate(parts):
            try:
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                raise _refusal(parts[: depth + 1], error, descriptor) from error
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def make_folders(root: int, parts: tuple[str, ...]) -> int:
    """Make the folders of a path that are missing; says how many these were.

    Raises:
        DiskError: a component is there and no folder, or cannot be made.
    """
    made = 0
    for depth in range(1, len(parts) + 1):
        with opened_folder(root, parts[: depth - 1]) as parent:
            try:
                os.mkdir(parts[depth - 1], dir_fd=parent)
                made += 1
            except FileExistsError:
                pass
            except OSError as error:
                raise _refusal(parts[:depth], error, parent) from error
    return made


def remove_empty_folders(root: int, parts: tuple[str, ...], count: int) -> None:
    """Remove the innermost `count` folders of a path, as far as they are empty."""
    for depth in range(len(parts), len(parts) - count, -1):
        try:
            with opened_folder(root, parts[: depth - 1]) as parent:
                os.rmdir(parts[depth - 1], dir_fd=parent)
        except (OSError, DiskError):
            return


@contextmanager
def opened_file(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """A descriptor of a regular file, to read it.

    Raises:
        FileNotFoundError: nothing is there.
        DiskError: something else than a file is there.
    """
    shown = "/".join(parts)
    if not parts:
        raise DiskError("A file's path is needed, and this is the folder itself.")
    with _folder_of_file(root, parts) as folder:
        try:
            descriptor = os.open(parts[-1], _FILE, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refusal(parts, error, folder) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DiskError(f"{shown}: is not a file. List it, or name a file in it.")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder_of_file(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """As `opened_folder`; a missing folder means that the file is missing."""
    try:
        with opened_folder(root, parts[:-1]) as folder:
            yield folder
    except DiskError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "No such file", "/".join(parts)) from error
        raise


def entries(root: int, parts: tuple[str, ...]) -> list[Entry]:
    """What is in a folder, by name; names that no path can have are left out."""
    found = []
    with opened_folder(root, parts) as folder, os.scandir(folder) as scan:
        for item in scan:
            if not _is_name(item.name):
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # gone meanwhile
            found.append(_entry("/".join((*parts, item.name)), status))
    return sorted(found, key=lambda entry: entry.path)


def _entry(path: str, status: os.stat_result) -> Entry:
    if stat.S_ISREG(status.st_mode):
        return Entry(path, "file", status.st_size, status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, "folder", 0, status.st_mtime)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, "link", 0, status.st_mtime)
    return Entry(path, "other", 0, status.st_mtime)


def put_in_place(folder: int, temporary: str, name: str, *, exchange: bool) -> None:
    """Give a file its name, at once.

    Where the system can, a file that is replaced gets the temporary name, so that nothing is lost
    that somebody wrote there in the last moment.

    Args:
        folder: descriptor of the folder of both.
        temporary: the file's name now.
        name: the name it gets.
        exchange: whether a file of that name is there.

    Raises:
        FileExistsError: a file is there, and `exchange` is false.
        FileNotFoundError: none is there, and `exchange` is true.
    """
    if not _rename(folder, temporary, folder, name, _EXCHANGE if exchange else _NOREPLACE):
        if not exchange:
            _refuse_taken(folder, name)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def rename_to_free(old_folder: int, old: str, new_folder: int, new: str) -> None:
    """Rename a file to a name that is free. Raises FileExistsError where it is not."""
    if not _rename(old_folder, old, new_folder, new, _NOREPLACE):
        _refuse_taken(new_folder, new)
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)


def _refuse_taken(folder: int, name: str) -> None:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _rename(old_folder: int, old: str, new_folder: int, new: str, flag: int) -> bool:
    """renameat2(2); false where the system or the file system does not know the flag."""
    function = _renameat2()
    if function is None:
        return False
    if function(old_folder, os.fsencode(old), new_folder, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), old, None, new)


@functools.cache
def _renameat2() -> ctypes._NamedFuncPointer | None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    text, number = ctypes.c_char_p, ctypes.c_int
    function.argtypes = (number, text, number, text, ctypes.c_uint)
    found: ctypes._NamedFuncPointer = function
    return found


def _refusal(parts: tuple[str, ...], error: OSError, parent: int) -> DiskError:
    """What to say where a component cannot be opened or made."""
    shown = "/".join(parts)
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        try:
            mode = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode
        except OSError:
            mode = 0
        if stat.S_ISLNK(mode):
            return DiskError(f"{shown}: is a symbolic link, and these are not followed.")
        return DiskError(f"{shown}: is not a folder.")
    if error.errno == errno.ENOENT:
        return DiskError(f"{shown}: there is no such folder. List the folder above it.")
    return DiskError(f"{shown}: cannot be opened ({error.strerror}).")
