"""A fake kernel that listens, beside whoever runs a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros.kernel.control import ControlServer
from oneiros.kernel.control_methods import control_methods
from oneiros.kernel.tools import Tool
from tests.kernel.fakes import FakeKernel, fake_system


@dataclass(frozen=True)
class Running:
    """A kernel in a thread of its own."""

    kernel: FakeKernel
    ended: threading.Event  # set by a client's `shutdown`
    _loop: asyncio.AbstractEventLoop

    def run(self, action: Coroutine[Any, Any, Any]) -> Any:
        """Do something in the kernel's thread; gives its result."""
        return asyncio.run_coroutine_threadsafe(action, self._loop).result(30)


@contextmanager
def running_kernel(folder: Path, tools: Sequence[Tool] = ()) -> Iterator[Running]:
    """A fake kernel on a data folder."""
    started: list[Running] = []
    ready = threading.Event()
    ended = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        kernel = FakeKernel(folder)
        system = fake_system(folder, kernel, ended.set, tools)
        server = await ControlServer.open(folder, control_methods(system))
        started.append(Running(kernel, ended, asyncio.get_running_loop()))
        ready.set()
        await stop.wait()
        await server.close()
        kernel.disk.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield started[0]
    finally:
        started[0]._loop.call_soon_threadsafe(stop.set)
        thread.join()
