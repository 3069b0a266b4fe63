"""`oneiros attach`: go on with a process."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from oneiros.cli import kernel, options, output
from oneiros.errors import OneirosError

EXAMPLE = "oneiros attach 3"


def command(
    pid: kernel.Pid,
    last: Annotated[
        int, typer.Option(metavar="COUNT", min=0, help="Messages of the past to show first.")
    ] = 10,
    json: options.Json = False,
) -> None:
    """Talk with a process that is there already, as in `oneiros chat`.

    Leaving does not end it. With --json its messages are printed, and that is all.
    """
    client = kernel.client()
    pages = client.call("messages", pid=pid, evicted=json)
    if json:
        output.write_json(pages)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise OneirosError("`oneiros attach` needs a terminal: use `oneiros send`, or --json.")
    from oneiros.cli.conversation import Conversation
    from oneiros.cli.turn import WatchedProcess

    process = WatchedProcess(client, pid, client.call("info")["context"])
    if process.state.end is not None:
        raise OneirosError(f"Process {pid} has ended: `oneiros logs {pid}` shows what it did.")
    for page in pages[-last:] if last else []:
        message = page["message"]
        process.remark(f"{message['role']}: {message['content']}")
    Conversation(client, process=process).run()
