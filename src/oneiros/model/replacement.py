"""Writing a file or folder under a temporary name, so that a half-written one is never seen."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from oneiros.errors import ModelFileError


@contextmanager
def replacing_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` when the block ends without an error.

    Raises:
        ModelFileError: the file cannot be written (no such folder, no space, no permission).
    """
    temporary = _temporary(path)
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror}).") from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends without an error.

    Raises:
        ModelFileError: the folder cannot be written, or `path` is there and is not an empty
            folder.
    """
    temporary = _temporary(path)
    try:
        try:
            temporary.mkdir()
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written ({error.strerror}).") from error


def refuse_existing(folder: Path) -> None:
    """Check before long work that a folder can be written where it is wanted.

    Raises:
        ModelFileError: something other than an empty folder is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelFileError(f"{folder}: exists already. Choose another name or remove it.")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")
