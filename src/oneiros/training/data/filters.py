"""The filters that look at one document at a time, from a raw document to a verdict.

Rules are datatrove's, in the order and with the thresholds that FineWeb was made with (Penedo et
al. 2024), but for one, below, and the language, which is told by a model that comes as a package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from loguru import logger
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from oneiros.training.data.blocklist import url_filter
from oneiros.training.data.contamination import BenchmarkIndex
from oneiros.training.data.masking import Masker
from oneiros.training.data.settings import READING, DataSettings
from oneiros.training.data.sources import RawDocument
from oneiros.training.data.words import WORDS

logger.disable("datatrove")

_LARGEST_PAGE = 5_000_000
"""Signs of HTML; what is larger is a listing or a dump, and extraction takes minutes."""

_LONGEST = 100_000
"""Words of a web page, by Gopher's rules. A file of plain text may be a book."""

_SAMPLE = 700
"""Signs of each of three samples by which the language of a long text is told."""

_LETTERS = 0.7
"""The least share of words with a letter. Gopher's is 0.8 of words between spaces; here every
eighth word of good prose is a punctuation mark."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Why a document is not kept."""

    filter: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filters made of a document."""

    text: str  # clean; of a removed document as far as it had come
    removal: Removal | None  # None: kept
    language: str | None = None  # where it was asked for
    masked: Counter[str] = field(default_factory=Counter)  # kind of personal data: how often
    lines_cut: int = 0


class Chain:
    """All filters, each made when the first document comes to it."""

    def __init__(self, settings: DataSettings, benchmarks: BenchmarkIndex | None) -> None:
        self._settings, self._benchmarks = settings, benchmarks
        self._made: dict[str, Any] = {}

    def judge(self, raw: RawDocument) -> Verdict:
        """Filter one document: the same document always gets the same verdict."""
        if raw.fault is not None:
            return Verdict(raw.text, Removal(READING, raw.fault))
        if not raw.text.strip():
            return Verdict("", Removal(READING, "empty"))
        has = self._settings.has
        if raw.url and has("url"):
            address = Document("", raw.id, metadata={"url": raw.url})
            if reason := self._dropped("url", address, raw.page):
                return Verdict(raw.text, Removal("url", reason, raw.url))
        # JSON can hold halves of characters, which no file of text can.
        text = raw.text.encode("utf-8", "replace").decode()
        if raw.html:
            text, fault = self._extracted(text)
            if fault:
                return Verdict(text, Removal("extraction", fault))
        language = None
        if has("language"):
            language, score = self._language(text)
            if language not in self._settings.languages:
                removal = Removal("language", language, f"{language} {score:.2f}")
                return Verdict(text, removal, language)
            if score < self._settings.language_score:
                removal = Removal("language", "unsure", f"{language} {score:.2f}")
                return Verdict(text, removal, language)
        lines = 0
        for name in ("repetition", "gopher", "c4", "fineweb"):
            if not has(name):
                continue
            document = Document(text, raw.id)
            if reason := self._dropped(name, document, raw.page):
                return Verdict(text, Removal(name, reason), language)
            lines += _lines(text) - _lines(document.text)
            text = document.text
        if self._benchmarks is not None and has("contamination"):
            overlap = self._benchmarks.find(text)
            if overlap is not None:
                removal = Removal("contamination", overlap.benchmark, overlap.words)
                return Verdict(text, removal, language)
        masked: Counter[str] = Counter()
        if has("pii"):
            text, masked = self._get("pii", Masker).mask(text)
        return Verdict(text, None, language, masked, lines)

    def _get(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _extracted(self, html: str) -> tuple[str, str]:
        """The main text of a page, or why there is none."""
        if len(html) > _LARGEST_PAGE:
            return html, "page_too_large"
        # Its own deduplication remembers earlier pages: what a page says would depend on them.
        extractor = self._get("extraction", lambda: Trafilatura(deduplicate=False))
        lines = (line.strip() for line in (extractor.extract(html) or "").splitlines())
        text = "\n".join(filter(None, lines))
        return (text, "") if text else (html, "no_main_text")

    def _language(self, text: str) -> tuple[str, float]:
        """The likeliest language and its probability."""
        language, score = _identifier().classify(_sampled(text))
        return str(language), float(score)

    def _dropped(self, name: str, document: Any, page: bool) -> str:
        """Why a filter of datatrove drops a document; "" where it does not."""
        found = self._get(name, lambda: _quality(name, self._settings))
        if name == "gopher":
            found.max_doc_words = _LONGEST if page else None
        result = found.filter(document)
        if isinstance(result, tuple):
            return str(result[1]).removeprefix("gopher_")
        return "" if result else name


@cache
def _identifier() -> Any:
    """The model that tells languages: a second to unpack, and never changed."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _quality(name: str, settings: DataSettings) -> Any:
    """A filter of datatrove."""
    match name:
        case "url":
            return url_filter()
        case "repetition":
            return GopherRepetitionFilter(language=WORDS)
        case "gopher":
            # The stop words are English ones.
            english = settings.has("language") and settings.languages == ("en",)
            return GopherQualityFilter(
                language=WORDS,
                min_stop_words=2 if english else 0,
                max_non_alpha_words_ratio=_LETTERS,
            )
        case "c4":
            return C4QualityFilter(filter_no_terminal_punct=False, language=WORDS)
        case "fineweb":
            return FineWebQualityFilter(language=WORDS)
    raise ValueError(name)


def _sampled(text: str) -> str:
    """Begin, middle and end of a long text: enough to tell a language, in half the time."""
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = (len(text) - _SAMPLE) // 2
    return "\n".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))


def _lines(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip())
