"""`oneiros logs`: a process's journal."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from oneiros.cli import kernel, options, output

EXAMPLE = "oneiros logs 3 --follow"


def command(
    pid: kernel.Pid,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events as they come.")
    ] = False,
    after: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Only events after this one.")
    ] = 0,
    json: options.Json = False,
) -> None:
    """Show the events of a process: all that ever happened to it.

    With --json each event is a line of JSON, with its texts.
    """
    from oneiros.cli.event_lines import LONGEST, event_line

    client = kernel.client()
    last = client.call("process", pid=pid)["events"]
    if not follow and after >= last:
        return
    longest = 1 << 20 if json else LONGEST
    with closing(client.stream("watch", pid=pid, after=after, longest=longest)) as events:
        for view in events:
            if json:
                output.write_json_line(view)
            else:
                output.say(event_line(view))
            if view["event"]["kind"] == "ended" or (not follow and view["seq"] >= last):
                return
