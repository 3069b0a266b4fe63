"""The clock: what time it is, sleeping, and timers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, TypeAdapter, ValidationError

from oneiros.devices.define import device
from oneiros.errors import OneirosError, ProcessError
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult, Wake
from oneiros.model.replacement import replacing_file

_log = logging.getLogger(__name__)

LONGEST_WAIT: Final = 10 * 366 * 86_400.0  # seconds
MOST_TIMERS: Final = 100  # of one process
_LOOK: Final = 60.0  # seconds after which a timer looks at the clock again, which may be set
_RETRY: Final = 5.0  # seconds after which a message is sent again that could not be

Zone = Annotated[str, Field(description='Such as "Europe/Berlin"; default: the local one.')]
Seconds = Annotated[float | None, Field(description="From now on.", gt=0)]
Until = Annotated[
    str, Field(description='Or a time: "18:30", "2027-01-31 08:00", "2027-01-31T08:00Z".')
]


@dataclass(frozen=True, slots=True)
class Timer:
    """A message that is to come."""

    call_id: str  # of the call that set it: set twice, it is still one
    pid: int
    at: float  # seconds since the epoch
    text: str
    label: Label


# Sends a timer's message; if it came already, before a crash, not again. Raises ProcessError: the
# process has ended.
Deliver = Callable[[Timer], Awaitable[None]]
_TIMERS: TypeAdapter[list[Timer]] = TypeAdapter(list[Timer])


class Timers:
    """Timers, kept in a file, so that a restart loses none. One that ended meanwhile goes off then.

    A kill between delivery and the note of it lets a timer go off again, with the same `call_id`:
    whoever delivers knows by that that the message came.
    """

    def __init__(self, path: Path, deliver: Deliver, now: Callable[[], float] = time.time) -> None:
        """Read what timers there are; `run` waits for them.

        Args:
            path: of the file; it is made with the first timer.
            deliver: sends a timer's message to its process.
            now: the clock.

        Raises:
            OneirosError: the file is damaged.
        """
        self._path = path
        self._deliver = deliver
        self._now = now
        self._changed = asyncio.Event()
        try:
            kept = _TIMERS.validate_json(path.read_bytes()) if path.exists() else []
        except ValidationError as error:
            raise OneirosError(
                f"{path}: holds no timers. Remove it; the timers in it are lost."
            ) from error
        self._timers = {timer.call_id: timer for timer in kept}

    def of(self, pid: int) -> list[Timer]:
        """A process's timers, the next one first."""
        return sorted((t for t in self._timers.values() if t.pid == pid), key=lambda t: t.at)

    def set(self, timer: Timer) -> None:
        """Set a timer, which is on disk when this returns.

        Raises:
            ToolError: the process has too many.
            OneirosError: the file cannot be written.
        """
        if timer.call_id not in self._timers and len(self.of(timer.pid)) >= MOST_TIMERS:
            raise ToolError(f"This process has {MOST_TIMERS} timers; wait for one of them first.")
        before = dict(self._timers)
        self._timers[timer.call_id] = timer
        try:
            self._write()
        except OneirosError:
            self._timers = before
            raise
        self._changed.set()

    async def run(self) -> None:
        """Let timers go off, until cancelled."""
        while True:
            self._changed.clear()
            wait = 0.0  # at least
            for timer in sorted(self._timers.values(), key=lambda t: t.at):
                if timer.at <= self._now() and not await self._go_off(timer):
                    wait = _RETRY
            rest = min((t.at for t in self._timers.values()), default=None)
            pause = None if rest is None else min(max(rest - self._now(), wait), _LOOK)
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                continue

    async def _go_off(self, timer: Timer) -> bool:
        """Whether the timer is done with: its message cannot be journalled on a full disk, say."""
        try:
            await self._deliver(timer)
        except ProcessError as error:
            _log.info("A timer has nobody to go off for: %s", error)
        except OneirosError as error:
            _log.error("A timer goes off later: %s", error)
            return False
        self._timers.pop(timer.call_id, None)
        try:
            self._write()
        except OneirosError as error:
            _log.error("A timer that went off is still in its file: %s", error)
        return True

    def _write(self) -> None:
        with replacing_file(self._path) as file:
            file.write(_TIMERS.dump_json(list(self._timers.values())))


def clock(timers: Timers | None = None, now: Callable[[], float] = time.time) -> list[Tool]:
    """The tools: the time, sleeping, and timers if there is somebody to keep them."""

    @device(contract=Contract(idempotent=True, capability="clock"), name="time")
    async def tell_time(context: CallContext, zone: Zone = "") -> ToolResult:
        """Tell what day and time it is."""
        moment = _shown(now(), zone)
        return ToolResult(
            moment.strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z), week %V"),
            {"iso": moment.isoformat(timespec="seconds"), "epoch": now()},
        )

    @device(contract=Contract(idempotent=True, capability="clock"))
    async def sleep(
        context: CallContext, seconds: Seconds = None, until: Until = "", zone: Zone = ""
    ) -> Wake:
        """Do nothing for some seconds, or until a time."""
        return Wake(at=moment_of(now(), seconds, until, zone))

    tools = [tell_time, sleep]
    if timers is None:
        return tools

    @device(
        contract=Contract(
            effects=frozenset({Effect.LOCAL}),
            requested_by=("timer", "remind", "reminder", "alarm", "wake"),
            undo=True,
            idempotent=True,
            capability="clock",
        )
    )
    async def set_timer(
        context: CallContext,
        text: Annotated[str, Field(description="Comes back as a message then.", max_length=4_000)],
        seconds: Seconds = None,
        until: Until = "",
        zone: Zone = "",
    ) -> ToolResult:
        """Set a timer that sends a message to this process, which goes on meanwhile."""
        at = moment_of(now(), seconds, until, zone)
        timers.set(Timer(context.call_id, context.pid, at, text, context.label))
        moment = _shown(at, zone)
        return ToolResult(f"The timer goes off at {moment:%Y-%m-%d %H:%M:%S %Z}.", {"epoch": at})

    return [*tools, set_timer]


def moment_of(now: float, seconds: float | None, until: str, zone: str) -> float:
    """When something is to be, in seconds since the epoch.

    Args:
        now: the time.
        seconds: from now on; or
        until: a time of day, the next of its kind, or a date and time; without an offset it is
            in the zone.
        zone: a name of the IANA database; "": the local one.

    Raises:
        ToolError: it is not said when, said twice, long past or far away.
    """
    if (seconds is None) == (not until):
        raise ToolError('Give either "seconds" or "until".')
    at = now + seconds if seconds is not None else _parsed(now, until, zone)
    if at <= now:
        raise ToolError(f"{until} is over: it is {_shown(now, zone):%Y-%m-%d %H:%M:%S %Z}.")
    if at > now + LONGEST_WAIT:
        raise ToolError("That is more than ten years away.")
    return at


def _parsed(now: float, until: str, zone: str) -> float:
    known = _zone(zone)
    text = until.strip()
    try:
        if len(text) <= 8 and ":" in text:
            hour, minute, *rest = map(int, text.split(":"))
            today = datetime.fromtimestamp(now, known)
            moment = today.replace(
                hour=hour, minute=minute, second=rest[0] if rest else 0, microsecond=0
            )
            # Tomorrow by the calendar: that is not always 24 hours away.
            moment = moment if moment.timestamp() > now else moment + timedelta(days=1)
            return moment.replace(tzinfo=known).timestamp()
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=known)).timestamp()
    except (ValueError, OverflowError, IndexError) as error:
        raise ToolError(
            f'until is "{text[:40]}", which is no time such as "18:30" or "2027-01-31 08:00".'
        ) from error


def _shown(at: float, zone: str) -> datetime:
    moment = datetime.fromtimestamp(at, _zone(zone))
    return moment if moment.tzinfo else moment.astimezone()


def _zone(zone: str) -> tzinfo | None:
    """None: the local one."""
    if not zone:
        return None
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolError(
            f'zone is "{zone[:40]}", which is no zone such as "Europe/Berlin" or "UTC".'
        ) from error
