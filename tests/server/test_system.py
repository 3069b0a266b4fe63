"""A whole system, without a model: what it does in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from oneiros.devices.clock import Timer, Timers
from oneiros.engine.remote_model import RemoteModel
from oneiros.errors import ContextLengthError, DiskError
from oneiros.kernel.control_client import AsyncControlClient
from oneiros.kernel.control_methods import System
from oneiros.kernel.label import Label
from oneiros.memory.indexing import Synced
from oneiros.server import system as systems
from oneiros.server.system import SystemSettings, boot
from tests.kernel.running import Calls

WAITS = Calls([("sleep", '{"seconds": 1000}')])


@dataclass
class NoModel:
    """A model that nobody asks."""

    name: str = "none"
    context: int = 4096

    def count_tokens(self, text: str) -> int:
        return len(text.split())


@asynccontextmanager
async def booted(folder: Path) -> AsyncGenerator[System, None]:
    settings = SystemSettings(folder=folder, programs={"waits": WAITS}, mcp=False)
    async with boot(settings, cast(RemoteModel, NoModel()), None) as system:
        yield system


def test_a_context_that_is_too_small_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems.OpenModels, "context", lambda self, name: 64)

    async def main() -> None:
        async with booted(tmp_path):
            pass

    with pytest.raises(ContextLengthError, match=r"64 tokens is too small .*--context"):
        asyncio.run(main())


def test_a_timer_goes_off_once_however_the_kernel_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer = Timer("1.1", 1, 0.0, "Pay the rent.", Label())

    async def until_it_went_off(kernel: Any, pid: int) -> None:
        async with asyncio.timeout(10):
            while not kernel.state(pid).inbox:
                await asyncio.sleep(0.002)

    async def deliver_and_hang(self: Timers, timer: Timer) -> bool:
        await self._deliver(timer)
        await asyncio.sleep(1000)
        return True

    async def main() -> None:
        async with booted(tmp_path):
            pid = await AsyncControlClient(tmp_path).call("start", program="waits")
        Timers(tmp_path / "timers.json", lambda timer: asyncio.sleep(0)).set(timer)
        with monkeypatch.context() as killed:  # before the file says that the timer went off
            killed.setattr(Timers, "_go_off", deliver_and_hang)
            async with booted(tmp_path) as system:
                await until_it_went_off(system.kernel, pid)
        async with booted(tmp_path) as system:
            async with asyncio.timeout(10):
                while (tmp_path / "timers.json").read_text() != "[]":
                    await asyncio.sleep(0.002)
            assert len(system.kernel.state(pid).inbox) == 1

    asyncio.run(main())


def test_a_search_finds_what_was_written_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        client = AsyncControlClient(tmp_path)
        async with booted(tmp_path):
            await client.call("fs.search", query="anything")
            (tmp_path / "files" / "note.txt").write_text("The deadline is the 4th of May.")
            (hit,) = await client.call("fs.search", query="deadline")
            assert hit["path"] == "note.txt"

    # The background has its next look later.
    monkeypatch.setattr(systems, "sync_disk", lambda *arguments, **options: Synced())
    asyncio.run(main())


def test_files_are_indexed_again_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def main() -> None:
        loop, again = asyncio.get_running_loop(), asyncio.Event()

        def sync(*arguments: object, **options: object) -> Synced:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise DiskError("The index is locked.")
            loop.call_soon_threadsafe(again.set)
            return Synced()

        monkeypatch.setattr(systems, "sync_disk", sync)
        monkeypatch.setattr(systems, "_INDEX_EVERY", 0.001)
        async with booted(tmp_path):
            await asyncio.wait_for(again.wait(), 10)

    asyncio.run(main())
    assert tries >= 2
