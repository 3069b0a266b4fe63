"""Memory-mapped files."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


def mapping_of(view: NDArray[np.uint8]) -> mmap.mmap | None:
    """The mapped file that an array looks into; None: it does not."""
    base: object = view
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) else None
