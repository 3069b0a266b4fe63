"""garak's prompts, and what garak says about answers, from a process in its own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

FOLDER = Path(__file__).resolve().parent.parent.parent / ".peers" / "garak"
PYTHON = FOLDER / "bin" / "python"
FAMILIES = ("promptinject", "latentinjection", "web_injection", "encoding")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a probe."""

    probe: str  # "encoding.InjectBase64"
    text: str


class Garak:
    """garak, while the `with` block runs.

    Attributes:
        prompts: of the active probes.
    """

    def __init__(self, families: Sequence[str], limit: int) -> None:
        """Load the probes of some modules; at most `limit` prompts of each probe."""
        self._process = subprocess.Popen(
            [str(PYTHON), str(Path(__file__).parent / "worker.py"), str(limit), *families],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.prompts = [Prompt(one["probe"], one["prompt"]) for one in self._line()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def judge(self, answers: Sequence[str]) -> list[bool | None]:
        """Whether garak's detectors call the answers to all prompts hits; None: they cannot say."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(answers)) + "\n")
        self._process.stdin.flush()
        found: list[bool | None] = self._line()
        return found

    def _line(self) -> list:  # type: ignore[type-arg]
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"garak's worker ended: {' '.join(map(str, self._process.args))}")
        found: list = json.loads(line)  # type: ignore[type-arg]
        return found
