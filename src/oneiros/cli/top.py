"""`oneiros top`: the processes, live."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oneiros.cli import kernel, options, output
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from rich.console import Group

EXAMPLE = "oneiros top --interval 0.5"


def command(
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Between two looks.")
    ] = 1.0,
    json: options.Json = False,
) -> None:
    """Watch the processes of the running kernel. q or Ctrl-C ends.

    With --json each look is a line of JSON, and no terminal is needed.
    """
    if json:
        _print_lines(interval)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise OneirosError("`oneiros top` needs a terminal: use `oneiros ps`, or --json.")
    from rich.live import Live

    client = kernel.client()
    info = client.call("info")
    before: list[Any] = []
    seen = time.monotonic()
    with keys() as pressed, Live(console=output.stdout(), screen=True, auto_refresh=False) as live:
        while True:
            processes = client.call("processes")
            now = time.monotonic()
            live.update(_screen(info, processes, rates(before, processes, now - seen)))
            live.refresh()
            before, seen = processes, now
            if pressed(interval) in ("q", "\x03", ""):
                return


def rates(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], seconds: float
) -> dict[int, float]:
    """Tokens per second that processes used between two looks, by pid."""
    known = {process["pid"]: process["used"]["tokens"] for process in before}
    return {
        process["pid"]: (process["used"]["tokens"] - known[process["pid"]]) / seconds
        for process in after
        if process["pid"] in known and seconds > 0
    }


@contextmanager
def keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key: the key, "" at the end, None without one."""
    descriptor = sys.stdin.fileno()
    saved = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str | None:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else None

    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)


def _screen(
    info: Mapping[str, Any], processes: Sequence[Mapping[str, Any]], rates: Mapping[int, float]
) -> Group:
    from rich.console import Group
    from rich.text import Text

    from oneiros.cli.process_table import process_table

    running = sum(process["status"] == "running" for process in processes)
    head = (
        f"oneiros {info['version']} · pid {info['pid']} · {output.one_line(info['model'])} · "
        f"{len(processes)} processes, {running} running · {sum(rates.values()):,.0f} tokens/s · "
        "q ends"
    )
    return Group(Text(head, style="dim"), Text(), process_table(processes, rates))


def _print_lines(interval: float) -> None:
    client = kernel.client()
    while True:
        output.write_json_line(client.call("processes"))
        time.sleep(interval)
