"""`oneiros ps`: the processes."""

from __future__ import annotations

from typing import Annotated

import typer

from oneiros.cli import kernel, options, output

EXAMPLE = "oneiros ps --all"


def command(
    every: Annotated[
        bool, typer.Option("--all", "-a", help="Processes that have ended, too.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List the processes of the running kernel.

    Tokens and calls are shown with their budget behind a slash. "read from" names what a process
    has read that is not to be trusted, and who alone may read what it says.
    """
    processes = kernel.client().call("processes", ended=every)
    if json:
        output.write_json(processes)
        return
    if not processes:
        output.say("There are no processes: `oneiros chat` starts one.")
        return
    from oneiros.cli.process_table import process_table

    output.stdout().print(process_table(processes))
