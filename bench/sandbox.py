"""Claim: confining a program costs milliseconds: a warm call of python stays below 20.

    python bench/sandbox.py [--quick] [--json]

Each mechanism that works here runs the devices on a disk of ten small files, a hundred times
(`--quick`: five): `python-warm` is a call in an interpreter that runs already, `python-cold` one in
a new interpreter, `terminal` a command, `terminal-write` one that changes a file, which then is on
the disk as a version that can be undone. All of it counts: bringing the private copy up to date,
running, looking for changes, ending every process. The peer starts the same program without any of
that.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from report import Row, report

from oneiros.devices.python import python
from oneiros.devices.sandbox.mechanism import Mechanism, offered
from oneiros.devices.sandbox.workspaces import Workspaces
from oneiros.devices.terminal import terminal
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Tool
from oneiros.memory.disk import Disk

TIMES, QUICK_TIMES = 100, 5
USER = Label.of("user")


async def median_ms(times: int, action: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that something takes, after one time to warm up."""
    await action()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await action()
        taken.append(time.perf_counter() - begun)
    return 1000 * statistics.median(taken)


async def devices(mechanism: Mechanism, folder: Path, times: int) -> dict[str, float]:
    """What the devices take, by case."""
    disk = Disk(folder / "files", folder / "versions", "me")
    for number in range(10):
        disk.write(f"{number}.txt", b"some text\n" * 100, call_id="put", label=USER)
    workspaces = Workspaces(lambda owner: disk, mechanism=mechanism)
    count = 0

    async def call(tool: Tool, **arguments: str) -> None:
        nonlocal count
        count += 1
        await tool.run(arguments, CallContext(1, f"1.{count}", "me", "bench", USER))

    interpreter, shell = python(workspaces), terminal(workspaces)

    async def cold() -> None:
        await workspaces.forget(1)
        await call(interpreter, code="1 + 1")

    try:
        return {
            "python-warm": await median_ms(times, lambda: call(interpreter, code="1 + 1")),
            "python-cold": await median_ms(max(5, times // 10), cold),
            "terminal": await median_ms(times, lambda: call(shell, command="true")),
            "terminal-write": await median_ms(
                times, lambda: call(shell, command="date +%N > 0.txt")
            ),
        }
    finally:
        await workspaces.close()
        disk.close()


async def unconfined(folder: Path, times: int) -> dict[str, float]:
    """What the same programs take by themselves."""

    async def run(*command: str) -> None:
        process = await asyncio.create_subprocess_exec(*command, cwd=folder)
        await process.wait()

    bash = ("bash", "-c")
    return {
        "python-cold": await median_ms(times, lambda: run(sys.executable, "-I", "-c", "1 + 1")),
        "terminal": await median_ms(times, lambda: run(*bash, "true")),
        "terminal-write": await median_ms(times, lambda: run(*bash, "date +%N > 0.txt")),
    }


async def measure(times: int) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        peer = await unconfined(Path(folder), times)
        for mechanism in offered():
            ours = await devices(mechanism, Path(folder) / mechanism, times)
            rows += [
                Row(
                    f"{case} {mechanism}",
                    "median",
                    taken,
                    peer.get(case),
                    "ms",
                    "lower",
                    target=20 if case == "python-warm" else None,
                    absolute=case == "python-warm",
                )
                for case, taken in ours.items()
            ]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(QUICK_TIMES if arguments.quick else TIMES))
    report("sandbox", rows, arguments.json)
    return 0 if all(row.holds is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
