"""Memory-mapped files."""

from __future__ import annotations

import mmap
from pathlib import Path

from oneiros.errors import ModelFileError


def map_file(path: Path) -> mmap.mmap:
    """Map a regular, non-empty file for reading.

    The file must not be shortened while it is mapped: the operating system then ends the process
    that reads past the new end. Files are replaced by renaming, never rewritten in place.

    Raises:
        ModelFileError: it does not exist, cannot be read, is not a file, or is empty.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelFileError(f"{path}: is not a regular file.")
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise ModelFileError(f"{path}: is empty (0 bytes).")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
