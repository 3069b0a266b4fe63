"""litgpt's side, from outside: its process, and whether it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGES = HERE.parents[1] / ".peers" / "litgpt"


class LitgptPeer:
    """A worker process that makes one update when it is told to."""

    def __init__(self, settings: dict[str, Any]) -> None:
        paths = [str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "litgpt_worker.py"), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        self._answer()

    def update(self, step: int) -> float:
        """Make one update; gives its seconds. The tokens are random: the number does not matter.

        Raises:
            ChildProcessError: the process has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("update\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"litgpt ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def is_installed() -> bool:
    return (PACKAGES / "litgpt").is_dir()
