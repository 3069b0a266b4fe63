"""Memory as `inspect` predicts it, and threads that rest when there is nothing to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from oneiros.engine import machine, memory
from oneiros.engine.engine import Engine
from oneiros.engine.memory import memory_needed
from oneiros.errors import NotEnoughMemoryError
from oneiros.model.parameters import open_parameters

FULL_CONTEXT = """
import sys
from pathlib import Path
from oneiros.engine.engine import Engine
from oneiros.model.folders import cache_folder
from oneiros.model.parameters import open_parameters

def peak():
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include the parent's
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

parameters = open_parameters(Path(sys.argv[1]))
before = peak()
engine = Engine(parameters, cache=cache_folder() / "packed")
ids = [i % 1000 + 1000 for i in range(engine.context - 1)]
sequence = engine.sequence()
sequence.extend(ids, "none")
sequence.extend([1])
print(peak() - before)
"""


def test_a_full_context_takes_the_predicted_memory(default_model_path: Path) -> None:
    predicted = memory_needed(open_parameters(default_model_path))
    assert predicted.context == 8192
    assert predicted.kv_cache == 8192 * 30 * 2 * 3 * 64 * 2
    for _ in range(2):  # the first may have to pack the weights
        run = subprocess.run(
            [sys.executable, "-c", FULL_CONTEXT, str(default_model_path)],
            check=True,
            capture_output=True,
            text=True,
        )
        used = int(run.stdout)
        if abs(used / predicted.total - 1) <= 0.05:
            return
    pytest.fail(f"predicted {predicted.total:,} bytes, used {used:,}")


def mapped_bytes(path: Path) -> int:
    """How much of a file lies in this process's memory because it is mapped."""
    held, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            counts = line.endswith(str(path))
        elif counts and first == "Rss:":
            held += int(line.split()[1]) * 1024
    return held


def test_a_loaded_engine_holds_nothing_of_the_file(default_model_path: Path) -> None:
    parameters = open_parameters(default_model_path)
    norm = parameters.tensors["output_norm.weight"]
    before = norm.float32()
    assert mapped_bytes(default_model_path) > 0
    Engine(parameters, threads=1)
    assert mapped_bytes(default_model_path) == 0
    assert np.array_equal(norm.float32(), before)  # what is read comes back


def test_too_little_memory_is_said_with_what_is_needed(
    default_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 200 << 20)
    parameters = open_parameters(default_model_path)
    with pytest.raises(NotEnoughMemoryError, match=r"needs 0\.3 GiB .* 0\.2 GiB are free"):
        Engine(parameters)
    assert Engine(parameters, context=1024).context == 1024


def test_limits_of_control_groups_and_their_parents_are_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(machine, "_OWN_GROUPS", own)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    own.write_text("0::/outer/inner\n")
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    free = machine.usable_cores()
    (tmp_path / "outer" / "cpu.max").write_text("100000 100000\n")
    assert machine.usable_cores() == 1
    (tmp_path / "outer" / "cpu.max").write_text("max 100000\n")
    assert machine.usable_cores() == free
    (inner / "memory.max").write_text("1000000\n")
    (inner / "memory.current").write_text("900000\n")
    (inner / "memory.stat").write_text("anon 400000\ninactive_file 300000\nactive_file 200000\n")
    assert machine.usable_memory() == 600000  # files in memory are given up for programs


def test_limits_of_version_1_control_groups_are_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(machine, "_OWN_GROUPS", own)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    own.write_text("4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n")
    (tmp_path / "cpu" / "box").mkdir(parents=True)
    (tmp_path / "memory" / "box").mkdir(parents=True)
    (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text("50000\n")
    (tmp_path / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")
    assert machine.usable_cores() == 1
    (tmp_path / "memory" / "box" / "memory.limit_in_bytes").write_text("3000\n")
    (tmp_path / "memory" / "box" / "memory.usage_in_bytes").write_text("1000\n")
    assert machine.usable_memory() == 2000


def test_weights_lie_in_private_memory() -> None:
    """Shared anonymous memory would get small pages, and be written by forked processes."""
    memory = machine.huge_pages(8 << 20)
    address = memory.ctypes.data
    assert address % (2 << 20) == 0
    lines = Path("/proc/self/maps").read_text().splitlines()
    areas = [(line.split()[0].split("-"), line.split()[1]) for line in lines]
    (rights,) = [r for (first, end), r in areas if int(first, 16) <= address < int(end, 16)]
    assert rights == "rw-p"


def test_affinity_is_respected() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from oneiros.engine.machine import usable_cores; print(usable_cores())"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert run.stdout == b"1\n"


def test_idle_threads_take_no_time() -> None:
    program = (
        "import time, oneiros\n"
        "model = oneiros.load('smollm2-135m', threads=4)\n"
        "model.engine.sequence().extend([1, 2, 3])\n"
        "before = time.process_time(); time.sleep(1.0)\n"
        "print(time.process_time() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert float(run.stdout) < 0.1
