"""The clock: time, sleep, timers."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.devices.clock import MOST_TIMERS, Timer, Timers, clock, moment_of
from oneiros.errors import JournalError, OneirosError, ProcessError
from oneiros.kernel.label import Label
from oneiros.kernel.tools import Tool, ToolError, Wake
from tests.devices.contexts import CONTEXT, call, text_of

NOW = datetime(2026, 3, 28, 12, 0, tzinfo=UTC).timestamp()  # a day before summer time in Europe


def tools(timers: Timers | None = None) -> dict[str, Tool]:
    return {tool.name: tool for tool in clock(timers, now=lambda: NOW)}


def test_time_is_told_in_a_zone() -> None:
    assert text_of(tools()["time"], zone="Europe/Berlin") == (
        "Saturday, 2026-03-28 13:00:00 CET (UTC+0100), week 13"
    )
    assert "2026-03-28 12:00:00" in text_of(tools()["time"], zone="UTC")
    with pytest.raises(ToolError, match=r'zone is "\.\./etc/passwd"'):
        call(tools()["time"], zone="../etc/passwd")


def test_sleep_waits_for_a_duration_or_a_time() -> None:
    sleep = tools()["sleep"]
    assert call(sleep, seconds=90) == Wake(at=NOW + 90)
    assert call(sleep, until="2026-03-28T14:30+01:00") == Wake(at=NOW + 90 * 60)
    assert call(sleep, until="13:30", zone="Europe/Berlin") == Wake(at=NOW + 30 * 60)


def test_a_time_of_day_that_is_over_is_tomorrows_by_the_calendar() -> None:
    # The night has 23 hours: clocks are put forward.
    assert moment_of(NOW, None, "12:30", "Europe/Berlin") == NOW + 22.5 * 3600


@given(st.integers(0, 23), st.integers(0, 59), st.sampled_from(["UTC", "Asia/Kolkata"]))
def test_a_time_of_day_is_the_next_one(hour: int, minute: int, zone: str) -> None:
    at = moment_of(NOW, None, f"{hour}:{minute:02}", zone)
    assert NOW < at <= NOW + 86_400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, 'either "seconds" or "until"'),
        ({"seconds": 1, "until": "18:00"}, 'either "seconds" or "until"'),
        ({"seconds": -1}, "greater than 0"),
        ({"seconds": 1e12}, "more than ten years"),
        ({"until": "2020-01-01"}, "is over: it is 2026"),
        ({"until": "tomorrow"}, "no time such as"),
        ({"until": "25:00"}, "no time such as"),
        ({"until": "9999-99-99"}, "no time such as"),
    ],
)
def test_times_that_cannot_be_waited_for(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        call(tools()["sleep"], **arguments)


def test_timers_go_off_in_their_order_and_survive_a_restart(tmp_path: Path) -> None:
    said: list[tuple[int, str]] = []
    moment = [NOW]

    async def deliver(timer: Timer) -> None:
        assert timer.label == CONTEXT.label
        if timer.pid == 9:
            raise ProcessError("Process 9 has ended.")
        said.append((timer.pid, timer.text))
        if len(said) == 2:
            raise asyncio.CancelledError

    file = tmp_path / "timers.json"
    before = Timers(file, deliver, lambda: NOW)
    for name, pid, after in (("a", 1, 20), ("b", 9, 5), ("c", 2, 10), ("a", 1, 30)):
        before.set(Timer(name, pid, NOW + after, name, CONTEXT.label))

    after = Timers(file, deliver, lambda: moment[0])
    moment[0] = NOW + 60
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(after.run())
    assert said == [(2, "c"), (1, "a")]
    # What was being delivered when everything stopped is not lost.
    assert [timer.call_id for timer in Timers(file, deliver).of(1)] == ["a"]


def test_a_timer_set_while_others_wait_goes_off_first(tmp_path: Path) -> None:
    moment = [NOW]

    async def go() -> str:
        heard: asyncio.Queue[str] = asyncio.Queue()

        async def deliver(timer: Timer) -> None:
            await heard.put(timer.text)

        timers = Timers(tmp_path / "timers.json", deliver, lambda: moment[0])
        timers.set(Timer("a", 1, NOW + 1000, "later", Label()))
        running = asyncio.create_task(timers.run())
        await asyncio.sleep(0)
        set_timer = {tool.name: tool for tool in clock(timers, now=lambda: NOW)}["set_timer"]
        await set_timer.run({"text": "soon", "seconds": 1}, CONTEXT)
        moment[0] = NOW + 2
        first = await heard.get()
        running.cancel()
        return first

    assert asyncio.run(go()) == "soon"


def test_timers_go_on_after_a_message_that_could_not_be_journalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oneiros.devices.clock._RETRY", 0.001)
    said: list[str] = []

    async def go() -> None:
        heard = asyncio.Event()

        async def deliver(timer: Timer) -> None:
            said.append(timer.call_id)
            if len(said) == 1:
                raise JournalError("The disk is full.")
            heard.set()

        timers = Timers(tmp_path / "timers.json", deliver, lambda: NOW)
        timers.set(Timer("a", 1, NOW, "x", Label()))
        running = asyncio.create_task(timers.run())
        await asyncio.wait_for(heard.wait(), 10)
        running.cancel()

    asyncio.run(go())
    assert said == ["a", "a"]


def test_a_timer_that_cannot_be_kept_is_not_set(tmp_path: Path) -> None:
    async def deliver(timer: Timer) -> None: ...

    timers = Timers(tmp_path / "nowhere" / "timers.json", deliver, lambda: NOW)
    with pytest.raises(OneirosError, match="cannot be written"):
        timers.set(Timer("a", 1, NOW + 10, "x", Label()))
    assert timers.of(1) == []


def test_timers_have_a_limit_and_their_file_may_be_damaged(tmp_path: Path) -> None:
    async def deliver(timer: Timer) -> None: ...

    file = tmp_path / "timers.json"
    timers = Timers(file, deliver, lambda: NOW)
    for n in range(MOST_TIMERS):
        timers.set(Timer(str(n), 1, NOW + 10, "x", Label()))
    with pytest.raises(ToolError, match="100 timers"):
        call(tools(timers)["set_timer"], text="x", seconds=5)
    file.write_text("[{]")
    with pytest.raises(OneirosError, match="holds no timers"):
        Timers(file, deliver)
