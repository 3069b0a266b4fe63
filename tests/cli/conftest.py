"""Running `oneiros` as users do: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MODEL = "smollm2-135m"

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
