"""`oneiros serve` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import httpx

from oneiros.model.folders import cache_folder, data_folder

MODEL = "smollm2-135m"
EMBEDDER = "all-minilm-l6-v2"


def own_home(folder: Path) -> Path:
    """A home in an empty folder: no keys, nothing cached, and the models of the real one."""
    for entry in data_folder().iterdir():
        if entry.name not in ("keys.json", "cache"):
            (folder / entry.name).symlink_to(entry)
    (folder / "cache").mkdir()
    (folder / "cache" / "packed").symlink_to(cache_folder() / "packed")
    return folder


class RunningServer:
    """A server that was started, and answers when this is entered.

    Attributes:
        address: "http://127.0.0.1:PORT".
        models: the names that it serves.
        log: what it wrote to standard error, once it has ended.
    """

    def __init__(self, *options: str, home: Path | None = None, kv_disk: str = "0") -> None:
        arguments = ["serve", "--port", "0", "--json", "--kv-memory", "400M", "--kv-disk", kv_disk]
        environment = dict(os.environ)
        if home is not None:
            environment["ONEIROS_HOME"] = str(home)
        self.log = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oneiros", *arguments, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> RunningServer:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.end()
            raise AssertionError(f"the server did not start: {self.log}")
        ready = json.loads(line)
        self.address: str = ready["address"]
        self.models: list[str] = ready["models"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unexpected = self.process.poll()
        waited_for = self.process.stderr is None or self.process.stderr.closed
        self.end()
        if unexpected is not None and not waited_for:
            raise AssertionError(f"the server ended with {unexpected}: {self.log}")

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """End the server where it still runs; its exit status."""
        if self.process.poll() is None:
            self.signal()
        return self.wait()

    def wait(self, timeout: float = 60) -> int:
        """The exit status, when it ends by itself."""
        if self.process.stderr is None or self.process.stderr.closed:
            return self.process.returncode
        try:
            _, errors = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.log += errors
        return self.process.returncode

    def metric(self, name: str) -> float:
        """The value of a metric of the language model."""
        page = httpx.get(f"{self.address}/metrics").text
        return float(page.partition(f'\noneiros_{name}{{model="{MODEL}"}} ')[2].split("\n")[0])


@contextmanager
def running_server(*options: str, home: Path | None = None) -> Iterator[RunningServer]:
    with RunningServer(*options, home=home) as server:
        yield server
