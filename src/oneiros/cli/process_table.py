"""Processes as a table: for `ps`, `top` and the chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oneiros.cli import output

if TYPE_CHECKING:
    from rich.table import Table

Process = Mapping[str, Any]  # as the control socket describes it

_COLOURS = {"running": "green", "ready": "cyan", "stopped": "yellow", "ended": "dim"}
_ORIGINS = 2  # that a label's summary names


def process_table(processes: Sequence[Process], rates: Mapping[int, float] | None = None) -> Table:
    """A row for each process, children below their parents.

    Args:
        processes: in any order.
        rates: tokens per second by pid, for a column of their own.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("pid", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("pri", justify="right")
    table.add_column("tokens", justify="right", no_wrap=True)
    if rates is not None:
        table.add_column("tokens/s", justify="right", no_wrap=True)
    table.add_column("calls", justify="right", no_wrap=True)
    table.add_column("context", justify="right", no_wrap=True)
    table.add_column("read from", no_wrap=True)
    table.add_column("title", no_wrap=True, overflow="ellipsis")
    for depth, process in in_tree_order(processes):
        rate = [] if rates is None else [f"{rates.get(process['pid'], 0):,.0f}"]
        table.add_row(
            f"{'  ' * depth}{process['pid']}",
            Text(output.one_line(state_of(process)), style=_COLOURS.get(process["status"], "")),
            str(process["priority"]),
            share(process, "tokens"),
            *rate,
            share(process, "calls"),
            f"{process['context_tokens']:,}",
            Text(output.one_line(label_summary(process))),
            Text(output.one_line(process["title"] or "-")),
        )
    return table


def in_tree_order(processes: Sequence[Process]) -> list[tuple[int, Process]]:
    """Processes by pid, each followed by its children; with how deep below the first they are."""
    children: dict[int | None, list[Process]] = {}
    known = {process["pid"] for process in processes}
    for process in sorted(processes, key=lambda process: int(process["pid"])):
        parent = process["parent"] if process["parent"] in known else None
        children.setdefault(parent, []).append(process)
    rows: list[tuple[int, Process]] = []
    waiting = [(0, process) for process in reversed(children.get(None, []))]
    while waiting:
        depth, process = waiting.pop()
        rows.append((depth, process))
        below = children.get(process["pid"], [])
        waiting += [(depth + 1, child) for child in reversed(below)]
    return rows


def state_of(process: Process) -> str:
    """What a process is doing: "running", "waiting for a message", "ended (killed)"."""
    status = str(process["status"])
    if process["waiting_for"]:
        return f"{status} for {process['waiting_for']}"
    return f"{status} ({process['end']})" if process["end"] else status


def share(process: Process, part: str) -> str:
    """What was used of a part of the budget: "1,204/10,000"."""
    used, limit = process["used"][part], process["budget"][part]
    return f"{used:,}" if limit is None else f"{used:,}/{limit:,}"


def label_summary(process: Process) -> str:
    """Untrusted origins of what a process has read; its readers, if not the owner or everybody."""
    origins = process["untrusted_origins"]
    text = ", ".join(origins[:_ORIGINS]) or "-"
    if len(origins) > _ORIGINS:
        text += f" and {len(origins) - _ORIGINS} more"
    if process["readers"] not in (None, [process["owner"]]):
        text += f" · only for {', '.join(process['readers']) or 'nobody'}"
    return text
