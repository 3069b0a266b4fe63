"""What every benchmark prints: one table of ours against a peer, or the same rows as JSON."""

from __future__ import annotations

import json as jsonlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement of ours beside the peer's.

    `target` is the smallest acceptable `ratio`, or, where `absolute`, the worst acceptable `ours`;
    None where nothing is claimed. A value is None where a side cannot run the case, and then
    nothing holds and nothing fails.
    """

    case: str
    metric: str
    ours: float | None
    peer: float | None
    unit: str
    better: Literal["higher", "lower"]
    target: float | None = None
    absolute: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better ours is: above 1 we win, whichever direction is better."""
        if not self.ours or not self.peer:
            return None
        return self.ours / self.peer if self.better == "higher" else self.peer / self.ours

    @property
    def holds(self) -> bool | None:
        if self.target is None:
            return None
        if self.absolute and self.ours is not None:
            return self.ours >= self.target if self.better == "higher" else self.ours <= self.target
        return None if self.ratio is None else self.ratio >= self.target

    @property
    def wanted(self) -> str:
        """The target as people read it."""
        if self.target is None:
            return ""
        sign = "<=" if self.absolute and self.better == "lower" else ">="
        return f"{sign} {self.target:g}"


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int  # that this process may use
    memory_gib: float
    system: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {self.system}"


def this_machine() -> Machine:
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(pages * page_bytes / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}",
    )


def _cpu_name() -> str:
    """The model name; Linux hides it from `platform`, and virtual machines shorten it, so the
    family and model numbers stand beside it."""
    facts: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    for line in text.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        facts[key.strip()] = value.strip()
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts and "model" in facts:
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return name


def report(bench: str, rows: Sequence[Row], json: bool) -> None:
    """Print the rows: a table for people, or one JSON object on standard output."""
    if json:
        print(jsonlib.dumps(as_json(bench, rows), indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"[bold]{bench}[/bold]\n{this_machine()}\n", highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("case", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ours", "peer", "ratio", "target", "holds"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.case,
            f"{row.metric} ({row.unit})",
            _number(row.ours),
            _number(row.peer),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            row.wanted,
            {True: "[green]yes[/green]", False: "[red]NO[/red]", None: ""}[row.holds],
        )
    console.print(table)


def as_json(bench: str, rows: Sequence[Row]) -> dict[str, object]:
    return {
        "bench": bench,
        "machine": str(this_machine()),
        "rows": [
            {
                "case": row.case,
                "metric": row.metric,
                "ours": row.ours,
                "peer": row.peer,
                "ratio": row.ratio,
                "target": row.target,
                "holds": row.holds,
            }
            for row in rows
        ],
    }


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
