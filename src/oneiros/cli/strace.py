"""`oneiros strace`: what a process does, as it does it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import kernel, options

if TYPE_CHECKING:
    from oneiros.kernel.control_client import AsyncControlClient

EXAMPLE = "oneiros strace 3 -f"


def command(
    pid: kernel.Pid,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Its children too, and theirs.")
    ] = False,
    past: Annotated[bool, typer.Option("--past", "-p", help="What it did before, too.")] = False,
    json: options.Json = False,
) -> None:
    """Show the system calls of a process as they happen, until it ends or Ctrl-C is pressed.

    A line has the time, the call and its arguments, whether a person was asked (ASK, ALLOWED,
    REFUSED) or the policy said no (DENY), the result, and how many seconds it took. With --json
    each call is a line of JSON.
    """
    asyncio.run(_trace(kernel.async_client(), pid, follow=follow, past=past, as_json=json))


async def _trace(
    client: AsyncControlClient, pid: int, *, follow: bool, past: bool, as_json: bool
) -> None:
    from oneiros.cli.event_lines import LONGEST, SystemCalls

    calls = SystemCalls()
    following: set[int] = set()

    async def look(group: asyncio.TaskGroup, pid: int, after: int | None) -> None:
        stream = client.stream("watch", pid=pid, after=after, longest=LONGEST)
        async with aclosing(stream) as events:
            async for view in events:
                for call in calls.take(view):
                    _show(call, as_json, follow)
                event = view["event"]
                if follow and event["kind"] == "child-started":
                    begin(group, event["child"], 0)
                if event["kind"] == "ended":
                    return

    def begin(group: asyncio.TaskGroup, pid: int, after: int | None) -> None:
        if pid not in following:
            following.add(pid)
            group.create_task(look(group, pid, after))

    processes = {one["pid"]: one for one in await client.call("processes", ended=True)}
    first = await client.call("process", pid=pid)
    ended = first["end"] is not None
    try:
        async with asyncio.TaskGroup() as group:
            begin(group, pid, 0 if past or ended else None)
            waiting = list(first["children"]) if follow else []
            while waiting:
                child: dict[str, Any] = processes[waiting.pop()]
                waiting += child["children"]
                if child["end"] is None or past:
                    begin(group, child["pid"], 0 if past else None)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _show(call: Any, as_json: bool, with_pid: bool) -> None:
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(call)), flush=True)
    else:
        print(call.line(with_pid), flush=True)
