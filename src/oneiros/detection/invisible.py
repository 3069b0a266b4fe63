"""Characters that are not seen: without a width, tags, variation selectors, marks of direction.

Models read what stands in tags (Goodside 2024) and variation selectors (Butler 2025). Overrides
of direction show another text than there is (Boucher and Anderson 2021, arXiv 2111.00169).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from oneiros.detection.payload import Payload, joined

_UNSEEN: Final = "\u00ad\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff"
_RUN: Final = re.compile(f"[{_UNSEEN}]+")
_TAGS: Final = re.compile("[\U000e0000-\U000e007f]+")
_SELECTORS: Final = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_DIRECTION: Final = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]+")
_OVERRIDES: Final = "\u202d\u202e"
_ENDS: Final = re.compile("[\u202c\u2069\n]")
_FLAG: Final = "\U0001f3f4"  # a black flag, whose tags name a region
_JOINERS: Final = "\u200c\u200d"
_RIGHT_TO_LEFT: Final = ("R", "AL", "AN")
_AROUND: Final = 40  # characters on each side in which letters from right to left are looked for
_BITS: Final = 16  # of a message in characters without a width
_WORD: Final = re.compile(rf"[\w{_UNSEEN}]{{1,64}}")


def invisible(text: str) -> Iterator[Payload]:
    """What is not seen, and what it says."""
    if text.isascii():
        return
    yield from joined(text, _zero_width(text))
    for match in _TAGS.finditer(text):
        if match.start() and text[match.start() - 1] == _FLAG:
            continue
        decoded = "".join(
            chr(ord(c) - 0xE0000) for c in match[0] if 0x20 <= ord(c) - 0xE0000 < 0x7F
        )
        yield Payload("tags", *match.span(), decoded)
    for match in _SELECTORS.finditer(text):
        data = bytes(map(_selected, match[0]))
        yield Payload("variation-selectors", *match.span(), data.decode(errors="replace"))
    yield from _bidi(text)


def _zero_width(text: str) -> Iterator[Payload]:
    spelt = 0
    for match in _RUN.finditer(text):
        start, end = match.span()
        if start < spelt or _has_place(text, start, end):
            continue
        message = _from_bits(match[0])
        if message is not None:
            yield Payload("zero-width", start, end, message)
            continue
        # The words around it, as they are read.
        first = start
        while (
            first
            and start - first < 64
            and (text[first - 1].isalnum() or text[first - 1] in _UNSEEN)
        ):
            first -= 1
        word = _WORD.match(text, first)
        spelt = max(end, word.end() if word else end)
        yield Payload("zero-width", first, spelt, _RUN.sub("", text[first:spelt]))


def _has_place(text: str, start: int, end: int) -> bool:
    """Whether characters without a width belong where they are."""
    if start == 0 and text[0] == "\ufeff":  # a byte order mark
        return end == 1
    if end - start > 1:
        return False
    before, after = text[start - 1 : start], text[end : end + 1]
    if text[start] == "\u00ad":  # a soft hyphen between two parts of a word
        return len(_letters_before(text, start)) > 2 and len(_letters_after(text, end)) > 2
    if text[start] in _JOINERS:  # of emoji, and of scripts whose letters join
        return bool(before) and bool(after) and not before.isascii() and not after.isascii()
    return False


def _letters_before(text: str, place: int) -> str:
    first = place
    while first and place - first < 4 and text[first - 1].isalpha():
        first -= 1
    return text[first:place]


def _letters_after(text: str, place: int) -> str:
    last = place
    while last < len(text) and last - place < 4 and text[last].isalpha():
        last += 1
    return text[place:last]


def _from_bits(run: str) -> str | None:
    """A message in which two characters stand for 0 and 1, eight for a byte."""
    signs = sorted(set(run))
    if len(run) < _BITS or len(signs) > 2:
        return None
    for zero in signs:
        bits = "".join("0" if sign == zero else "1" for sign in run)
        data = bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits) - 7, 8))
        if data.isascii() and data.decode().isprintable():
            return data.decode()
    return None


def _selected(selector: str) -> int:
    code = ord(selector)
    return code - 0xFE00 if code < 0xE0100 else code - 0xE0100 + 16


def _bidi(text: str) -> Iterator[Payload]:
    for match in _DIRECTION.finditer(text):
        start, end = match.span()
        override = any(mark in match[0] for mark in _OVERRIDES)
        if not override:
            around = text[max(0, start - _AROUND) : end + _AROUND]
            if any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in around):
                continue
        until = _ENDS.search(text, end, end + 2000)
        covered = text[end : until.start() if until else end + 200]
        if override:
            yield Payload("bidi", start, end + len(covered), covered[::-1])
        elif match[0].strip("\u200e\u2068\u2069\u202c"):
            yield Payload("bidi", start, end, "")
