"""Reading what the user points at: models, texts, standard input; and refusing clearly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from oneiros.cli import output
from oneiros.errors import OneirosError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from oneiros.engine.language_model import LanguageModel
    from oneiros.model.download import PullProgress


def model_path(name: str) -> Path:
    """The file or folder that a model's name or path means; the default model is fetched."""
    from oneiros.model import catalog

    with pull_progress() as report:
        path = catalog.ensure(name, report)
    for known in catalog.known_models():
        if known.kind != "language" and known.installed_path == path:
            raise OneirosError(f"{known.name} is no language model: {known.summary}.")
    return path


def load_model(
    name: str,
    *,
    adapter: Path | None = None,
    threads: int | None = None,
    context: int | None = None,
) -> LanguageModel:
    """Load a model by name or path, with a remark on standard error while that takes."""
    import oneiros

    model_path(name)
    with output.stderr().status(f"Loading {output.one_line(name)}"):
        return oneiros.load(name, adapter=adapter, threads=threads, context=context)


@contextmanager
def pull_progress() -> Iterator[Callable[[PullProgress], None]]:
    """A callback that shows a pull as a bar on standard error; only failures where nobody looks."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with output.progress(*columns) as bar:
        tasks: dict[str, TaskID] = {}

        def report(now: PullProgress) -> None:
            if now.stage == "failed":
                bar.console.print(f"{now.file}: {now.source}: {now.message}", markup=False)
                return
            if now.file not in tasks:
                tasks[now.file] = bar.add_task(now.file, total=now.total)
            waiting = f" (waiting for {now.message})" if now.stage == "waiting" else ""
            bar.update(tasks[now.file], completed=now.done, description=now.file + waiting)

        yield report


def read_bytes(path: Path) -> bytes:
    """A file's content; the message of an error names the path and what is wrong with it."""
    if path.is_dir():
        raise OneirosError(f"{path} is a folder: name a file in it.")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise OneirosError(f"{path}: no such file.") from None


def read_text(path: Path) -> str:
    return as_text(read_bytes(path), str(path))


def read_stdin() -> str:
    """All of standard input, without the line end that `echo` and editors put behind it."""
    return as_text(sys.stdin.buffer.read(), "standard input").rstrip("\r\n")


def read_text_or_stdin(file: str) -> str:
    """A file's text; of "-", standard input's, as it is."""
    if file == "-":
        return as_text(sys.stdin.buffer.read(), "standard input")
    return read_text(Path(file))


def as_text(data: bytes, source: str) -> str:
    """Raises OneirosError where the bytes are not UTF-8, naming the place."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise OneirosError(
            f"{source} is not UTF-8 text: byte {data[error.start]:#04x} at offset "
            f"{error.start:,}. Convert it first, for example with "
            "`iconv -f LATIN1 -t UTF-8`."
        ) from None


def prompt_or_stdin(prompt: str | None, name: str) -> str:
    """What was given as the argument, else what is piped in."""
    if prompt is not None:
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise OneirosError(f"The {name} holds bytes that are no text in this locale.")
        return prompt
    if sys.stdin.isatty():
        raise OneirosError(f"No {name}: give it as an argument, or pipe it in.")
    return read_stdin()


def check_output(path: Path, force: bool) -> None:
    """Refuse an output that exists (unless forced), or that cannot be replaced by a file."""
    if path.is_dir():
        raise OneirosError(f"{path} is a folder: name the file to write.")
    if path.exists() and not path.is_file():
        raise OneirosError(f"{path} is not a regular file, and would be replaced by one.")
    if path.exists() and not force:
        raise OneirosError(f"{path} exists: add --force to replace it.")
    if not path.parent.is_dir():
        raise OneirosError(f"{path.parent}: no such folder.")
