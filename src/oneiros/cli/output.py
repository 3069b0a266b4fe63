"""Writing to terminals and pipes.

What a model or a file says is shown, but must not control the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oneiros import rendering

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_PIPE_COLUMNS = 300


def printable(text: str) -> str:
    """A whole text as it is shown (`rendering.shown`): nothing in it controls the terminal."""
    return rendering.shown(text)


def one_line(text: str) -> str:
    """A part of a line: with line ends, tabs and spaces at either end visible, and controls too."""
    shown = rendering.visible(text).replace("\n", "⏎").replace("\t", "→")
    body = shown.strip(" ")
    before = len(shown) - len(shown.lstrip(" "))
    after = len(shown) - before - len(body)
    return "␣" * before + body + "␣" * after


def say(text: object = "") -> None:
    """Print a line, or several; whatever is in it does not control the terminal."""
    print(printable(str(text)), flush=True)


def warn(text: str) -> None:
    """Print a line to standard error, as `say` does."""
    print(printable(text), file=sys.stderr)


def write(text: str) -> None:
    """A text from a model or a file to standard output: as it is, but safe on a terminal."""
    pieces = Pieces()
    pieces.write(text)
    pieces.end()


class Pieces:
    """A text that comes in pieces, to standard output at once: as it is, but safe on a terminal."""

    def __init__(self) -> None:
        self._rendering = rendering.Rendering() if sys.stdout.isatty() else None

    def write(self, piece: str) -> None:
        """Show the next piece."""
        self._put(piece if self._rendering is None else self._rendering.add(piece))

    def end(self) -> None:
        """The text has ended; another one may begin."""
        if self._rendering is not None:
            self._put(self._rendering.end())

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def write_json(value: Any) -> None:
    """Data for programs, over several lines."""
    text = json.dumps(value, indent=2, ensure_ascii=not _speaks_utf8())
    print(rendering.json_visible(text))


def write_json_line(value: Any) -> None:
    """Data for programs, on one line, at once."""
    print(json.dumps(value), flush=True)


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def stdout() -> Console:
    """For tables; in a pipe they are as wide as they need."""
    from oneiros.cli.console import SafeConsole

    return SafeConsole(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def stderr() -> Console:
    """For progress and remarks: never in the way of the output proper."""
    from oneiros.cli.console import SafeConsole

    return SafeConsole(stderr=True)


def bytes_text(count: int) -> str:
    """A number of bytes for people: "98.4 MB"."""
    for unit, size in (("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def print_facts(facts: dict[str, str]) -> None:
    """Names and values in two columns."""
    from rich.text import Text

    console = stdout()
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        line = Text(name.ljust(width), style="dim") + Text(printable(value), style="not dim")
        console.print(line, soft_wrap=True)


def progress(*columns: ProgressColumn) -> Progress:
    """Bars on standard error that vanish when done; nothing at all where nobody looks."""
    from rich.progress import Progress

    console = stderr()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def byte_progress(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error; gives the function that moves it: (bytes done, of, remark)."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
        TimeRemainingColumn(),
    )
    with progress(*columns) as bar:
        task = bar.add_task(description, total=None, remark="")

        def advance(done: int, total: int, remark: str = "") -> None:
            if done < bar.tasks[task].completed:  # another stage begins, and another time
                bar.reset(task)
            bar.update(task, completed=done, total=total, remark=remark)

        yield advance
