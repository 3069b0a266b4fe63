"""What a confined program may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one confined program and all that it starts."""

    seconds: float = 60.0  # until it is ended, by the clock
    cpu_seconds: int = 3_600  # of the processor, for each process
    address_space: int = 4 << 30  # bytes that each process may map
    memory: int = 2 << 30  # bytes in use by all of its processes
    processes: int = 64  # threads count as well
    open_files: int = 256  # for each process
    file_size: int = 128 << 20  # bytes of a file that it writes
    disk: int = 512 << 20  # bytes of all files that it has, temporary ones included
    entries: int = 20_000  # files and folders that it has
    output: int = 200_000  # bytes that are kept of what it prints: the first and the last half
