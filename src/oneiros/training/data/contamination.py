"""Finding the texts of benchmarks in training text.

A document is contaminated where it has as many words in a row in common with a benchmark as
GPT-3's authors counted (13; Brown et al. 2020, appendix C), whatever case, punctuation and numbers
are. A benchmark's text of 8 to 12 words counts where it is there as a whole; what is shorter is
said by chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datatrove.utils.hashes.xxhash import xxhash64
from datatrove.utils.text import simplify_text

from oneiros.errors import TrainingError
from oneiros.training.documents import read_lines

LEAST = 8
"""Words that a text of a benchmark must have to be looked for."""

# Fewer different words than this in a row ("repeat python python python") are in many texts.
_DIFFERENT = 6

_LABEL = re.compile(r"^\s*\w{1,12}: ")


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a document shares with a benchmark."""

    benchmark: str
    words: str


class BenchmarkIndex:
    """The runs of words of benchmarks, as hashes of 64 bits, found by their first eight words."""

    def __init__(self, ngram: int) -> None:
        self._ngram = ngram
        self._begins: set[int] = set()
        self._runs: dict[int, str] = {}

    def add(self, benchmark: str, text: str) -> None:
        """Look for a text from now on."""
        words = simplify_text(text).split()
        length = min(self._ngram, len(words))
        if length < LEAST:
            return
        for begin in range(len(words) - length + 1):
            run = words[begin : begin + length]
            if len(set(run)) >= _DIFFERENT:
                self._begins.add(_hash(run[:LEAST]))
                self._runs.setdefault(_hash(run), benchmark)

    def __len__(self) -> int:
        return len(self._runs)

    def find(self, text: str) -> Overlap | None:
        """The first run of words that a text shares with a benchmark."""
        words = simplify_text(text).split()
        for begin in range(len(words) - LEAST + 1):
            if _hash(words[begin : begin + LEAST]) not in self._begins:
                continue
            for length in range(LEAST, min(self._ngram, len(words) - begin) + 1):
                run = words[begin : begin + length]
                benchmark = self._runs.get(_hash(run))
                if benchmark is not None:
                    return Overlap(benchmark, " ".join(run))
        return None


def _hash(words: list[str]) -> int:
    return int(xxhash64(" ".join(words)))


def benchmark_files(paths: tuple[Path, ...]) -> list[Path]:
    """The JSON Lines files of benchmarks; a folder stands for those in it.

    Raises:
        TrainingError: a path does not exist, or a folder holds none.
    """
    files: list[Path] = []
    for path in paths:
        below = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not below or not path.exists():
            raise TrainingError(
                f"{path}: holds no benchmark (.jsonl). Name files or folders with --benchmarks, or "
                "leave the check out with --skip contamination."
            )
        files += below
    return files


def read_benchmarks(files: list[Path], ngram: int) -> BenchmarkIndex:
    """An index of every text in benchmarks, whatever their fields are called.

    Raises:
        TrainingError: a file cannot be read or is malformed; names the line.
    """
    index = BenchmarkIndex(ngram)
    for file in files:
        for _, value in read_lines(file):
            for text in _texts(value):
                index.add(file.stem, text)
    return index


def _texts(value: object) -> Iterator[str]:
    """All texts in a value, and each line of them without a label such as "Question:"."""
    if isinstance(value, str):
        yield value
        yield from (_LABEL.sub("", line) for line in value.split("\n"))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
