"""Folders for sequences that had to make room, one for each engine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from oneiros.model.folders import cache_folder


def new_spool() -> Path:
    """A new folder that only this user can read; those of processes that are gone are removed.

    Not among the system's temporary files: these are often in the memory that is short.

    Raises:
        OSError: it cannot be made.
    """
    base = cache_folder() / "spool"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in base.iterdir():
        process = folder.name.partition("-")[0]
        if process.isdecimal() and not Path("/proc", process).exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=base, prefix=f"{os.getpid()}-"))
