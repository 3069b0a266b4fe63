"""What this process may use of the machine."""

from __future__ import annotations

import math
import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CGROUP = Path("/sys/fs/cgroup")
_HUGE_PAGE = 2 << 20


def usable_cores() -> int:
    """Cores this process may run on: its CPU affinity, and the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_cores()
    return max(1, min(allowed or 1, quota if quota is not None else 1 << 16))


def usable_memory() -> int | None:
    """Bytes that could be taken without swapping; None where the system does not tell."""
    known = [bytes_ for bytes_ in (_free_memory(), _cgroup_memory()) if bytes_ is not None]
    return min(known) if known else None


def huge_pages(size: int) -> NDArray[np.uint8]:
    """`size` bytes of zeros, in huge pages where the system has them."""
    memory = mmap.mmap(-1, size + _HUGE_PAGE)
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


def _cgroup_cores() -> int | None:
    words = _read(_CGROUP / "cpu.max").split()  # control groups v2: "quota period"
    if len(words) != 2:  # v1 keeps them apart
        cpu = _CGROUP / "cpu"
        words = (_read(cpu / "cpu.cfs_quota_us") + " " + _read(cpu / "cpu.cfs_period_us")).split()
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isdecimal():
        return None
    return max(1, math.ceil(int(words[0]) / int(words[1])))


def _free_memory() -> int | None:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_memory() -> int | None:
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if not limit.isdecimal() or not used.isdecimal():
        return None
    return max(0, int(limit) - int(used))
