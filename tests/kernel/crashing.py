"""A kernel to be killed: processes that write files and rows, in a folder that outlives it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.tools import CallContext, Json, Tool, ToolResult
from oneiros.memory.disk import Disk
from tests.kernel.running import Calls, running, tool

PROCESSES = 20
CALLS = 6
UNDONE = Contract(effects=frozenset({Effect.LOCAL}), undo=True)


def requests(number: int) -> list[tuple[str, str]]:
    """What a process does: writes a file, adds a row, and so on."""
    return [
        ("write" if n % 2 == 0 else "insert", f'{{"value": "{number}-{n}"}}') for n in range(CALLS)
    ]


def rows(folder: Path) -> sqlite3.Connection:
    """The database that calls write to; it knows nothing of the kernel."""
    connection = sqlite3.connect(folder / "rows.sqlite", timeout=30)
    connection.execute("CREATE TABLE IF NOT EXISTS row (value TEXT)")
    return connection


def tools(folder: Path, disk: Disk) -> list[Tool]:
    """A tool whose effect can be looked for, and one whose effect cannot."""
    connection = rows(folder)

    async def write(arguments: Json, context: CallContext) -> ToolResult:
        value = str(arguments["value"])
        await asyncio.to_thread(
            disk.write,
            f"{context.pid}/{value}.txt",
            value.encode(),
            call_id=context.call_id,
            label=context.label,
        )
        return ToolResult(f"wrote {value}")

    async def written(arguments: Json, context: CallContext) -> ToolResult | None:
        if disk.changes(context.call_id):
            return ToolResult(f"wrote {arguments['value']}")
        return None

    async def insert(arguments: Json, context: CallContext) -> ToolResult:
        with connection:
            connection.execute("INSERT INTO row VALUES (?)", (arguments["value"],))
        await asyncio.sleep(0.002)
        return ToolResult("inserted")

    return [
        tool("write", write, UNDONE, reconcile=written),
        tool("insert", insert, UNDONE),
    ]


async def live(folder: Path) -> None:
    """Start the processes, or let them go on; return when all have ended."""
    disk = Disk(folder / "files", folder / "store", "me")
    programs = {f"work-{n}": Calls(requests(n)) for n in range(PROCESSES)}
    async with running(folder / "journal", *tools(folder, disk), programs=programs) as kernel:
        begun = {state.program for state in kernel.processes(ended=True)}
        for name in programs:
            if name not in begun:
                await kernel.start(ProcessSpec(owner="me", program=name))
        while kernel.processes():
            await asyncio.sleep(0.005)


def run(folder: Path) -> None:
    """`live`, as the main function of a process."""
    asyncio.run(live(folder))
