"""Documents from text and JSON Lines files: what a language model is trained on.

A `.txt` or `.md` file is one document; each line of a `.jsonl` file is an object whose "text" is
one. Nothing is cleaned or dropped here, and what cannot be read is an error that names the line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneiros.errors import TrainingError, quoted

TEXT_SUFFIXES = (".txt", ".md")
LINES_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Source:
    """An input file, pinned by its content."""

    name: str  # as the user gave it, or below the folder that the user gave
    bytes: int
    sha256: str


def find_files(inputs: Sequence[Path]) -> list[Path]:
    """The files that are meant: folders stand for every text or JSON Lines file below them.

    Files come in the order of the inputs, those of a folder by name: the same inputs always give
    the same order.

    Raises:
        TrainingError: an input does not exist, or a folder holds nothing to read.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            below = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix.lower() in (*TEXT_SUFFIXES, LINES_SUFFIX) and file.is_file()
            ]
            if not below:
                raise TrainingError(f"{path}: holds no .txt, .md or .jsonl file.")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise TrainingError(f"{path}: no such file or folder.")
    return found


def read_documents(path: Path) -> Iterator[str]:
    """The documents of one file, in order; those without any text are passed over.

    Raises:
        TrainingError: the file cannot be read, is not UTF-8, or a line of a `.jsonl` is not an
            object with a string under "text"; names the byte or the line.
    """
    try:
        if path.suffix.lower() == LINES_SUFFIX:
            yield from _read_texts(path)
        elif text := _decoded(path.read_bytes(), str(path)):
            yield text
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}).") from error


def source_of(path: Path) -> Source:
    """The size and SHA-256 of a file.

    Raises:
        TrainingError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Source(path.name, path.stat().st_size, digest)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}).") from error


def read_lines(path: Path) -> Iterator[tuple[str, object]]:
    """The values of a JSON Lines file, each with its place for messages; blank lines are none.

    Raises:
        TrainingError: the file cannot be read, or a line is not UTF-8 or not JSON; says which.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                where = f"{path}, line {number:,}"
                if not line.strip():
                    continue
                try:
                    yield where, json.loads(_decoded(line, where))
                except (json.JSONDecodeError, RecursionError) as error:
                    raise TrainingError(f"{where}: is not JSON ({error}).") from error
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_texts(path: Path) -> Iterator[str]:
    for where, value in read_lines(path):
        text = value.get("text") if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise TrainingError(
                f'{where}: is not an object with a string under "text"{_found(value)}.'
            )
        if text:
            yield text


def _found(value: object) -> str:
    """What stands in a line instead of a text, where that helps."""
    if not isinstance(value, dict):
        return ""
    if "text" in value:
        return f" (it is of type {type(value['text']).__name__})"
    return f" (keys {', '.join(map(quoted, value))[:200]})"


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{where}: is not UTF-8 (byte {data[error.start]:#04x} at offset {error.start:,}). "
            "Convert it first, for example with `iconv -f LATIN1 -t UTF-8`."
        ) from error
