"""Writing to terminals and pipes.

What a model or a file says is shown, but must not control the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_SHOWN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_SHOWN[0x7F] = 0x2421
_SHOWN |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
# What is not seen itself, and may change the order of what is: marks and overrides of direction,
# spaces without a width, tags. Not the joiners U+200C and U+200D, which Persian and emoji need.
_SHOWN |= dict.fromkeys([0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF], 0xFFFD)
for _unseen in ((0x2028, 0x202F), (0x2060, 0x2070), (0xFFF9, 0xFFFC), (0xE0000, 0xE0080)):
    _SHOWN |= dict.fromkeys(range(*_unseen), 0xFFFD)

_PIPE_COLUMNS = 300


def printable(text: str) -> str:
    """The text with control characters as visible signs (ESC becomes U+241B); \\n and \\t stay.

    A terminal obeys escape sequences: it can be made to change its title, to hide text and to
    answer as if the user had typed. Characters without a width can hide text too, and those that
    turn its direction around show another text than there is.
    """
    return text.translate(_SHOWN)


def one_line(text: str) -> str:
    """Printable, and with line ends, tabs and spaces at either end visible."""
    shown = printable(text).replace("\n", "⏎").replace("\t", "→")
    body = shown.strip(" ")
    before = len(shown) - len(shown.lstrip(" "))
    after = len(shown) - before - len(body)
    return "␣" * before + body + "␣" * after


def write(text: str) -> None:
    """Text from a model or a file to standard output at once: as it is, but safe on a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=not _speaks_utf8()))


def _speaks_utf8() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def stdout() -> Console:
    """For tables; in a pipe they are as wide as they need."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)


def stderr() -> Console:
    """For progress and remarks: never in the way of the output proper."""
    from rich.console import Console

    return Console(highlight=False, stderr=True)


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
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[remark]}"),
        TimeRemainingColumn(),
    )
    with progress(*columns) as bar:
        task = bar.add_task(description, total=None, remark="")

        def advance(done: int, total: int, remark: str = "") -> None:
            bar.update(task, completed=done, total=total, remark=remark)

        yield advance
