"""What a person types: messages of one or many lines, answers, and what was typed before."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from oneiros.cli import output

PROMPT = "> "
MORE = ". "
FENCE = '"""'

_HISTORY_LINES = 1000


def read_message(ask: Callable[[str], str]) -> str:
    """One message: a line, lines that all but the last end in a backslash, or a \"\"\" block."""
    line = ask(PROMPT)
    if line.lstrip().startswith(FENCE):
        return _read_block(line.lstrip().removeprefix(FENCE), ask)
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(ask(MORE))
    return "\n".join(lines)


def _read_block(line: str, ask: Callable[[str], str]) -> str:
    lines = [line]
    while not lines[-1].rstrip().endswith(FENCE):
        lines.append(ask(MORE))
    lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
    return "\n".join(lines).strip("\n")


def read_answer(prompt: str) -> str | None:
    """A line in the middle of a reply, kept out of the history; None: Ctrl-C or Ctrl-D."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        output.say()
        return None
    finally:
        signal.signal(signal.SIGINT, previous)
    if answer:
        _forget_last_line()
    return answer


def _forget_last_line() -> None:
    with suppress(ImportError, ValueError):
        import readline

        readline.remove_history_item(readline.get_current_history_length() - 1)


def history_file() -> Path:
    """Where what was typed is kept."""
    from oneiros.model.folders import data_folder

    return data_folder() / "chat-history"


@contextmanager
def history(path: Path) -> Iterator[None]:
    """Inside the block lines can be edited and recalled, also from earlier conversations."""
    try:
        import readline
    except ImportError:  # some builds of Python lack it; then lines are plain
        yield
        return
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # what was said to a model is nobody else's business
            readline.write_history_file(path)
