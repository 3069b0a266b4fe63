"""What this process may use of the machine."""

from __future__ import annotations

import math
import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import NotEnoughMemoryError

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_HUGE_PAGE = 2 << 20


def usable_cores() -> int:
    """Cores this process may run on: its CPU affinity, and the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [quota for folder in _groups("cpu") if (quota := _cores(folder)) is not None]
    return max(1, min([allowed or 1, *quotas]))


def usable_memory() -> int | None:
    """Bytes that could be taken without swapping; None where the system does not tell."""
    left = [bytes_ for folder in _groups("memory") if (bytes_ := _memory(folder)) is not None]
    free = _free_memory()
    return min([*left, free] if free is not None else left, default=None)


def _groups(controller: str) -> list[Path]:
    """The folders of this process's control group and its parents, versions 1 and 2."""
    folders: dict[Path, None] = {}
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In a container the path may be that of the host, and only the root is to be seen.
        for root in (_CGROUP, _CGROUP / controller) if not controllers else (_CGROUP / controller,):
            inside = root / path.lstrip("/")
            folders |= dict.fromkeys(f for f in (inside, *inside.parents) if f.is_relative_to(root))
    return list(folders)


def huge_pages(size: int) -> NDArray[np.uint8]:
    """`size` bytes of zeros, in huge pages where the system has them.

    Raises NotEnoughMemoryError.
    """
    # Private: shared anonymous memory is a file to the system, and gets small pages.
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=private)
    except OSError as error:
        raise NotEnoughMemoryError(f"No memory for {size / 2**20:,.0f} MiB.") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % _HUGE_PAGE
    return whole[start : start + size]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _cores(group: Path) -> int | None:
    words = _read(group / "cpu.max").split()  # version 2: "quota period"
    if len(words) != 2:
        words = [_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return max(1, math.ceil(int(words[0]) / int(words[1])))


def _free_memory() -> int | None:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _memory(group: Path) -> int | None:
    """What a group's limit leaves; pages of files are given up when memory is needed."""
    for limit_file, used_file, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit, used = _read(group / limit_file).strip(), _read(group / used_file).strip()
        if limit.isdecimal() and used.isdecimal():
            counts = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            files = sum(
                int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive")
            )
            return max(0, int(limit) - int(used) + files)
    return None
