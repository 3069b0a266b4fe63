"""`oneiros kill`, `stop`, `cont`, `renice`, `budget`, `fork`, `send`, `replay`, `erase`: what is
done to a process from outside, a line each.

With --json, what changes a process prints it as it is then, as `oneiros ps --json` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from oneiros.cli import inputs, kernel, options, output

Tokens = Annotated[
    int | None,
    typer.Option(min=0, show_default="no limit", help="Tokens that it may generate, or read anew."),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        min=0, show_default="no limit", help="Seconds of replies and calls, not of waiting."
    ),
]
Calls = Annotated[int | None, typer.Option(min=0, show_default="no limit", help="Calls of tools.")]
Money = Annotated[
    float | None,
    typer.Option(min=0, show_default="no limit", help="US dollars, for remote models."),
]


def kill(
    pids: Annotated[list[int], typer.Argument(metavar="PID...", show_default=False)],
    json: options.Json = False,
) -> None:
    """End processes, and their children."""
    client = kernel.client()
    for pid in pids:
        client.call("kill", pid=pid)
    if json:
        output.write_json([client.call("process", pid=pid) for pid in pids])


def stop(pid: kernel.Pid, json: options.Json = False) -> None:
    """Let a process pause: after `oneiros cont` it goes on where it was."""
    _change(json, "stop", pid=pid)


def cont(pid: kernel.Pid, json: options.Json = False) -> None:
    """Let a stopped process go on."""
    _change(json, "cont", pid=pid)


def renice(
    pid: kernel.Pid,
    priority: Annotated[
        int,
        typer.Argument(
            metavar="PRIORITY",
            min=0,
            max=19,
            show_default=False,
            help="0: somebody waits for its answers; higher numbers come later.",
        ),
    ],
    json: options.Json = False,
) -> None:
    """Change the priority of a process."""
    _change(json, "renice", pid=pid, priority=priority)


def budget(
    pid: kernel.Pid,
    tokens: Tokens = None,
    seconds: Seconds = None,
    calls: Calls = None,
    money: Money = None,
    json: options.Json = False,
) -> None:
    """Show what a process has used of its budget, or give it another budget.

    What is not named is then not limited. What was used already counts.
    """
    client = kernel.client()
    limits = {"tokens": tokens, "seconds": seconds, "calls": calls, "money": money}
    if any(limit is not None for limit in limits.values()):
        client.call("budget", pid=pid, **limits)
    process = client.call("process", pid=pid)
    if json:
        output.write_json({"budget": process["budget"], "used": process["used"]})
        return
    for part, used in process["used"].items():
        limit = process["budget"][part]
        shown = "no limit" if limit is None else f"of {limit:,}"
        output.say(f"{part:<8} {round(used, 4):>12,} {shown}")


def fork(pid: kernel.Pid, json: options.Json = False) -> None:
    """Start a copy of a process, as it is now, and print the copy's pid."""
    child = kernel.client().call("fork", pid=pid)
    if json:
        output.write_json({"pid": child})
    else:
        output.say(child)


def send(
    pid: kernel.Pid,
    text: Annotated[
        str | None, typer.Argument(help="The message.", show_default="standard input")
    ] = None,
    json: options.Json = False,
) -> None:
    """Send a message to a process."""
    _change(json, "send", pid=pid, text=inputs.prompt_or_stdin(text, "message"))


def spawn(
    text: Annotated[
        str | None, typer.Argument(help="What it is to do.", show_default="standard input")
    ] = None,
    title: Annotated[
        str, typer.Option(help="What `oneiros ps` shows.", show_default="the text's first line")
    ] = "",
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", show_default="the kernel's")
    ] = None,
    priority: Annotated[int, typer.Option(min=0, max=19, help="As for `oneiros renice`.")] = 5,
    tokens: Tokens = None,
    seconds: Seconds = None,
    calls: Calls = None,
    money: Money = None,
    quarantine: options.Quarantine = False,
    json: options.Json = False,
) -> None:
    """Start a process in the background, and print its pid. `oneiros attach PID` talks with it."""
    pid = kernel.client().call(
        "start",
        text=inputs.prompt_or_stdin(text, "task"),
        title=title,
        model=model,
        priority=priority,
        tokens=tokens,
        seconds=seconds,
        calls=calls,
        money=money,
        quarantine=quarantine,
    )
    if json:
        output.write_json({"pid": pid})
    else:
        output.say(pid)


def replay(pid: kernel.Pid, json: options.Json = False) -> None:
    """Execute a process again from its journal, with no model and no tool.

    It has to reach the same state by the same events; a difference is an error that names the
    event.
    """
    events = kernel.client().call("replay", pid=pid)
    if json:
        output.write_json({"pid": pid, "events": events})
    else:
        output.say(f"Process {pid}: {events:,} events, and the same state after them.")


def erase(
    pid: kernel.Pid,
    page: Annotated[
        int | None,
        typer.Option(min=1, show_default="all of them", help="Only this page of the context."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
    json: options.Json = False,
) -> None:
    """Erase the texts of a process for good. That it happened stays in the journal."""
    what = "All texts" if page is None else f"The text of page {page}"
    if not force:
        typer.confirm(f"{what} of process {pid} will be gone. Go on?", abort=True, err=True)
    _change(json, "erase", pid=pid, page=page)


def backup(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="The copy: a new file.", show_default=False),
    ],
    json: options.Json = False,
) -> None:
    """Copy the journal of the running kernel, while everything goes on."""
    kernel.client().call("backup", path=str(path.absolute()))
    size = path.stat().st_size
    if json:
        output.write_json({"path": str(path.absolute()), "bytes": size})
    else:
        output.say(f"{path}: {output.bytes_text(size)}.")


def shutdown(json: options.Json = False) -> None:
    """End the running kernel. Its processes go on when it is started again."""
    client = kernel.client()
    pid = client.call("info")["pid"]
    client.call("shutdown")
    if json:
        output.write_json({"pid": pid})


def _change(json: bool, method: str, *, pid: int, **params: object) -> None:
    client = kernel.client()
    client.call(method, pid=pid, **params)
    if json:
        output.write_json(client.call("process", pid=pid))


@dataclass(slots=True)
class Signal:
    """A command, as a command's module has it."""

    EXAMPLE: str
    command: Callable[..., None]


SIGNALS = {
    "kill": Signal("oneiros kill 3", kill),
    "stop": Signal("oneiros stop 3", stop),
    "cont": Signal("oneiros cont 3", cont),
    "renice": Signal("oneiros renice 3 5", renice),
    "budget": Signal("oneiros budget 3 --tokens 10000", budget),
    "fork": Signal("oneiros fork 3", fork),
    "send": Signal('oneiros send 3 "And the year after?"', send),
    "spawn": Signal('oneiros spawn "List the files and say what each is about."', spawn),
    "replay": Signal("oneiros replay 3", replay),
    "erase": Signal("oneiros erase 3 --page 7", erase),
    "backup": Signal("oneiros backup journal.sqlite", backup),
    "shutdown": Signal("oneiros shutdown", shutdown),
}
