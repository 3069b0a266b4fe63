"""Running `oneiros` as users do: in a process of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from oneiros.model.folders import cache_folder

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def oneiros(default_model_path: Path) -> Run:
    """A function that runs a command line and gives its exit code, output and errors as text."""

    def run(
        *arguments: str | Path,
        stdin: str | bytes = "",
        env: dict[str, str] | None = None,
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "oneiros", *map(str, arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            env=os.environ | {"COLUMNS": "80"} | (env or {}),
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run


@pytest.fixture
def refused(oneiros: Run) -> Callable[..., str]:
    """Runs a command line that must end with a one-paragraph error; gives its text."""

    def run(*arguments: str | Path, code: int = 1, **options: object) -> str:
        done = oneiros(*arguments, **options)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert done.stderr.startswith("oneiros: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    return run


class Terminal:
    """A program on a terminal of its own, and the person in front of it."""

    def __init__(self, arguments: list[str], env: dict[str, str]) -> None:
        self.screen = ""  # all that was written so far
        self._read = 0  # what `expect` has seen of it
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.execvpe(arguments[0], arguments, env)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def pause(self) -> None:
        """As people do before Ctrl-C. Python's readline shows its prompt a little before it waits
        for keys, and a signal in between is only noticed with the next key."""
        time.sleep(1)

    def expect(self, text: str, timeout: float = 120) -> str:
        """Wait until `text` is written after what was last expected; gives what is between."""
        deadline = time.monotonic() + timeout
        while text not in self.screen[self._read :]:
            if not self._receive(deadline):
                pytest.fail(f"waited for {text!r}; the screen shows {self.screen[-2000:]!r}")
        begin, self._read = self._read, self.screen.index(text, self._read) + len(text)
        return self.screen[begin : self._read - len(text)]

    def wait(self, timeout: float = 60) -> int:
        """The exit code, once the program has ended."""
        deadline = time.monotonic() + timeout
        while self._receive(deadline):
            pass
        while (ended := os.waitpid(self._pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                pytest.fail(f"it does not end; the screen shows {self.screen[-2000:]!r}")
            time.sleep(0.01)
        return os.waitstatus_to_exitcode(ended[1])

    def close(self) -> None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._master)

    def _receive(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux's way to say that the other side is closed
            data = b""
        self.screen += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def terminal(default_model_path: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """A function that starts a command line on a terminal; its history lies in a folder apart."""
    opened = []
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(default_model_path.parents[1])
    cache_folder().mkdir(parents=True, exist_ok=True)
    (home / "cache").symlink_to(cache_folder())

    def start(*arguments: str) -> Terminal:
        env = os.environ | {"ONEIROS_HOME": str(home), "TERM": "xterm", "COLUMNS": "100"}
        opened.append(Terminal([sys.executable, "-m", "oneiros", *arguments], env))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
