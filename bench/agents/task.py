"""What a task of an agent is, and how its effect is checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Done:
    """What an agent left."""

    answer: str
    folder: Path  # its files

    def file(self, path: str) -> str:
        """A file's text; "" where there is none."""
        try:
            return (self.folder / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def lines(self, path: str) -> list[str]:
        """The lines of a file that are not empty, without the white space around them."""
        return [line.strip() for line in self.file(path).splitlines() if line.strip()]

    def says(self, *texts: str) -> bool:
        """Whether the answer holds each of these, whatever the case."""
        return all(text.lower() in self.answer.lower() for text in texts)

    def counts(self, number: float) -> bool:
        """Whether the answer holds this number, as one of its own and to its last digit."""
        found = re.findall(r"(?<![\w.])-?\d[\d,_ \u202f]*(?:\.\d+)?", self.answer)
        values = (re.sub(r"[,_ \u202f]", "", text) for text in found)
        return any(abs(float(value) - number) <= 1e-9 * abs(number) for value in values)


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to do. SITE in the request stands for the local site's address."""

    name: str
    request: str
    check: Callable[[Done], bool]
    files: Mapping[str, str] = field(default_factory=dict)  # that are there before

    def prepare(self, folder: Path) -> None:
        """Put the files there."""
        for path, text in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
