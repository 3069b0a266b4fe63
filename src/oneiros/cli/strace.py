"""`oneiros strace`: what a process does, as it does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import kernel, options, output

if TYPE_CHECKING:
    import asyncio

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
    import asyncio

    asyncio.run(_trace(kernel.async_client(), pid, follow=follow, past=past, as_json=json))


async def _trace(
    client: AsyncControlClient, pid: int, *, follow: bool, past: bool, as_json: bool
) -> None:
    import asyncio

    from oneiros.cli.event_lines import SystemCalls

    calls = SystemCalls()
    following: set[int] = set()

    def show(view: Mapping[str, Any]) -> None:
        for call in calls.take(view):
            _show(call, as_json, follow)

    async def look(group: asyncio.TaskGroup, pid: int, after: int | None) -> None:
        following.add(pid)
        async with aclosing(_events(client, pid, after)) as events:
            async for view in events:
                show(view)
                event = view["event"]
                if follow and event["kind"] == "child-started" and event["child"] not in following:
                    group.create_task(look(group, event["child"], 0))
                if event["kind"] == "ended":
                    return

    family = await _family(client, pid) if follow else [await client.call("process", pid=pid)]
    if past or family[0]["end"] is not None:
        for view in await _past(client, family):
            show(view)
    try:
        async with asyncio.TaskGroup() as group:
            for process in family:
                if process["end"] is None:
                    group.create_task(look(group, process["pid"], process["events"]))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _family(client: AsyncControlClient, pid: int) -> list[dict[str, Any]]:
    """A process and all below it."""
    family = [await client.call("process", pid=pid)]
    processes = {one["pid"]: one for one in await client.call("processes", ended=True)}
    for process in family:
        family += [processes[child] for child in process["children"] if child in processes]
    return family


async def _past(
    client: AsyncControlClient, processes: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What processes did until they were looked at, in the order in which they did it."""
    views: list[dict[str, Any]] = []
    for process in processes:
        async with aclosing(_events(client, process["pid"], 0)) as events:
            async for view in events:
                views.append(view)
                if view["seq"] >= process["events"]:
                    break
    return sorted(views, key=lambda view: float(view["time"]))


def _events(
    client: AsyncControlClient, pid: int, after: int | None
) -> AsyncGenerator[dict[str, Any], None]:
    from oneiros.cli.event_lines import LONGEST

    return client.stream("watch", pid=pid, after=after, longest=LONGEST)


def _show(call: Any, as_json: bool, with_pid: bool) -> None:
    if as_json:
        from dataclasses import asdict

        output.write_json_line(asdict(call))
    else:
        output.say(call.line(with_pid))
