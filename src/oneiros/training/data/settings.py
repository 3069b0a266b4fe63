"""What is decided about a corpus: which filters, which languages, how it is cut into parts."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any

from oneiros import __version__
from oneiros.errors import TrainingError

READING = "reading"
"""Not a filter that could be skipped: what of the input is no document at all."""

FILTERS = {
    "url": "addresses on block lists, or with words of spam and pornography in them",
    "extraction": "pages without a main text",
    "language": "other languages",
    "repetition": "repeated lines, paragraphs and n-grams (Gopher)",
    "gopher": "too short, too long, or not made of words (Gopher)",
    "c4": "fewer than five sentences, lorem ipsum, code; lines of cookie notices are cut out (C4)",
    "fineweb": "lists and menus: short lines, no punctuation, repeated lines (FineWeb)",
    "contamination": "text that is also in benchmarks",
    "pii": "nothing; e-mail and IP addresses, telephone and card numbers are masked",
    "duplicates": "near-duplicates of an earlier document (MinHash)",
}
"""The filters in the order in which documents meet them, and what each removes."""

_PACKAGES = (
    "datatrove",
    "jusText",
    "lxml",
    "numpy",
    "py3langid",
    "pyarrow",
    "regex",
    "tldextract",
    "trafilatura",
    "warcio",
    "xxhash",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """All that the documents follow from, beside the inputs."""

    skip: tuple[str, ...] = ()  # filters that are left out
    languages: tuple[str, ...] = ("en",)  # ISO 639-1
    language_score: float = 0.65  # least probability of one of the languages
    ngram: int = 13  # words in a row that a document may not share with a benchmark
    field: str = "text"  # key of JSON Lines and column of Parquet files
    part_bytes: int = 4_000_000  # of raw text that is filtered at once, and done again if killed

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            TrainingError: a filter does not exist, or a number is out of range.
        """
        for name in self.skip:
            if name not in FILTERS:
                raise TrainingError(f"There is no filter {name}: {', '.join(FILTERS)}.")
        if "extraction" in self.skip:
            raise TrainingError("The filter extraction cannot be skipped: pages are not text.")
        if not self.languages and self.has("language"):
            raise TrainingError("No language is wanted: name one, or skip the filter language.")
        if not 0 <= self.language_score < 1:
            raise TrainingError(f"A language score of {self.language_score} is not in 0 .. 1.")
        if self.ngram < 8:
            raise TrainingError(
                f"Fewer than 8 words in common ({self.ngram}) happen by chance: ask for more."
            )

    def has(self, name: str) -> bool:
        """Whether a filter is used."""
        return name not in self.skip

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def versions() -> dict[str, str]:
    """Of everything that decides what is kept and how it reads."""
    return {"oneiros": __version__} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
