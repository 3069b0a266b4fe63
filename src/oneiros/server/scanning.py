"""Detectors at work: what calls bring from outside is looked at, and what is seen is told.

Nothing waits for it and nothing is decided by it: findings are counted and logged. Whoever cannot
keep up counts what was left out.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from oneiros.detection.detect import detect
from oneiros.detection.findings import Finding, counted
from oneiros.errors import JournalError, ProcessError
from oneiros.kernel import events as e
from oneiros.kernel.journal import Recorded
from oneiros.kernel.kernel import Kernel

_log = logging.getLogger(__name__)
LONGEST: Final = 65_536  # characters of a result that are looked at
_WAITING: Final = 64  # results that may wait


@dataclass(slots=True)
class ScanCounts:
    """What the scans of a system came to, since it started."""

    findings: dict[str, int] = field(default_factory=dict)  # by kind
    instructions: int = 0  # phrases to an assistant, hidden ones with those in plain sight
    results: int = 0  # that were looked at
    left_out: int = 0  # that came faster than they could be looked at

    def add(self, findings: list[Finding]) -> None:
        """Count what a result held."""
        self.results += 1
        self.instructions += sum(one.instructions for one in findings if not one.inside)
        for kind, number in counted(findings).items():
            self.findings[kind] = self.findings.get(kind, 0) + number


@asynccontextmanager
async def scanning(kernel: Kernel, counts: ScanCounts) -> AsyncIterator[None]:
    """Look at the results of all processes' calls that have untrusted origins, as they come."""
    queue: asyncio.Queue[tuple[int, str, str]] = asyncio.Queue(_WAITING)
    tasks = [
        asyncio.create_task(_listen(kernel, counts, queue)),
        asyncio.create_task(_scan(counts, queue)),
    ]
    await asyncio.sleep(0)  # from here on it listens
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(
    kernel: Kernel, counts: ScanCounts, queue: asyncio.Queue[tuple[int, str, str]]
) -> None:
    while True:
        with suppress(ProcessError):  # events came too fast: it listens again
            async with aclosing(kernel.watch()) as events:
                async for recorded in events:
                    result = _result(kernel, recorded)
                    if result is None:
                        continue
                    if queue.full():
                        counts.left_out += 1
                    else:
                        queue.put_nowait(result)
            return  # the kernel was closed


def _result(kernel: Kernel, recorded: Recorded) -> tuple[int, str, str] | None:
    """What an event brought from outside: process, call, text."""
    event = recorded.event
    if not isinstance(event, e.CallEnded) or event.outcome not in ("done", "failed"):
        return None
    if (event.own or event.page.label).trusted:
        return None
    data: object = None
    try:
        held = event.held  # where the page has handles
        text = kernel.text(held) if held else kernel.message(event.page)["content"]
        if event.data is not None:
            data = json.loads(kernel.text(event.data))  # it may hold more than the page shows
    except (JournalError, ValueError):
        return None
    more = "\n".join(one for one in _strings(data) if one not in text)
    return recorded.pid, event.call_id, f"{text}\n{more}"[:LONGEST]


def _strings(data: object) -> Iterator[str]:
    """All texts in JSON-like data, in no particular order."""
    waiting = [data]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case list() as items:
                waiting += items
            case dict() as members:
                waiting += members.values()


async def _scan(counts: ScanCounts, queue: asyncio.Queue[tuple[int, str, str]]) -> None:
    while True:
        pid, call_id, text = await queue.get()
        findings = await asyncio.to_thread(detect, text)
        counts.add(findings)
        if findings:
            shown = ", ".join(f"{kind} {number}" for kind, number in counted(findings).items())
            fields = {"pid": pid, "call": call_id, "findings": counted(findings)}
            _log.warning(
                "Process %(pid)d, call %(call)s brought: %(shown)s",
                {**fields, "shown": shown},
                extra=fields,
            )
