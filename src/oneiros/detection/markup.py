"""Text that a page holds and does not show: comments, and elements that are hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from oneiros.detection.payload import Payload

_HIDING: Final = (
    r"display\s{0,3}:\s{0,3}none|visibility\s{0,3}:\s{0,3}hidden|opacity\s{0,3}:\s{0,3}0(?![.\d])|"
    r"(?:font-size|max-height|max-width|height|width)\s{0,3}:\s{0,3}0(?:\.0{1,4})?(?:px|pt|em|rem|%)?(?![.\d])|"
    r"(?:text-indent|left|top)\s{0,3}:\s{0,3}-\d{3,6}(?:px|em)|"
    r"(?<![-\w])color\s{0,3}:\s{0,3}(?:white|transparent|#fff(?:fff)?|rgba?\(255,\s?255,\s?255)\b"
)
_HIDDEN: Final = re.compile(
    rf"<(?P<name>[A-Za-z][A-Za-z0-9]{{0,12}})\s(?:[^<>]{{0,500}}?\s)?"
    rf"(?:style\s?=\s?[\"'][^\"'<>]{{0,300}}?(?:{_HIDING})|hidden(?=[\s>=/])|"
    rf"aria-hidden\s?=\s?[\"']true)[^<>]{{0,500}}>",
    re.IGNORECASE,
)
_TAG: Final = re.compile(r"<[^<>]{0,1000}>")
_MARKDOWN: Final = re.compile(r"^\[(?://|comment)\]:\s?#\s?[(\"'](?P<text>.{1,2000})[)\"']", re.M)
_LETTERS: Final = re.compile(r"[^\W\d_]{3}")
_LONGEST: Final = 4_000  # characters of an element


def hidden_markup(text: str) -> Iterator[Payload]:
    """Comments and hidden elements with words in them."""
    place = 0
    while (start := text.find("<!--", place)) >= 0:
        end = text.find("-->", start + 4)
        if end < 0:
            # A browser takes all that follows for the comment.
            end = min(len(text), start + _LONGEST)
            yield from _if_words("comment", start, end, text[start + 4 : end])
            break
        yield from _if_words("comment", start, end + 3, text[start + 4 : end])
        place = end + 3
    for match in _MARKDOWN.finditer(text):
        yield from _if_words("comment", *match.span(), match["text"])
    for match in _HIDDEN.finditer(text):
        close = text.find(f"</{match['name']}", match.end(), match.end() + _LONGEST)
        if close < 0:
            continue
        inner = _TAG.sub(" ", text[match.end() : close])
        end = text.find(">", close) + 1 or len(text)
        yield from _if_words("hidden-element", match.start(), end, inner)


def _if_words(kind: str, start: int, end: int, inner: str) -> Iterator[Payload]:
    if _LETTERS.search(inner):
        yield Payload(kind, start, end, inner.strip())
