"""Texts that are longer than a context may take: documents on the disk, read in parts.

The parts of a text follow from the text alone, so that part 3 is the same for whoever asks, and
they follow its paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from oneiros.errors import DiskError

# Bytes of UTF-8 in a part. Tokens are nearer to bytes than to characters: this is about 1,000
# tokens of English, and of Chinese too.
PART = 4_000

# Where a text may be cut, the best places first; the cut is behind the match.
_CUTS = tuple(map(re.compile, (r"\n[^\S\n]*\n\s*", r"\n", r"[.!?…]['\")\]]*\s+|[。！？]", r"\s+")))
_SHOWN = 400  # characters of a long message's beginning and end that stand for it


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text."""

    number: int  # from 1
    count: int  # of all parts
    start: int  # its first character
    text: str

    def __str__(self) -> str:
        more = "" if self.number == self.count else f" Part {self.number + 1} is next."
        return f"[Part {self.number} of {self.count}.{more}]\n{self.text}"


def split_text(text: str, size: int = PART) -> list[str]:
    """Cut a text into parts; put together, they are the text.

    A part is cut behind a paragraph where one ends in the second half of what it may hold, else
    behind a line, a sentence or a word. So paragraphs up to half of `size` are never cut.

    Args:
        text: any text.
        size: bytes of UTF-8 that a part has at most, at least 8.
    """
    return list(_parts(text, size))


def read_part(text: str, number: int) -> Part:
    """A part of a text, by its number from 1.

    Raises:
        DiskError: there is no such part.
    """
    parts = split_text(text)
    if not 1 <= number <= len(parts):
        raise DiskError(f"There is no part {number}: the parts are 1 to {len(parts)}.")
    start = sum(map(len, parts[: number - 1]))
    return Part(number, len(parts), start, parts[number - 1])


def stand_in(path: str, text: str) -> str:
    """What stands in the context for a text that is a document now.

    Its beginning and end are shown: that is where people say what they want with a long text.
    """
    parts = len(split_text(text))
    return (
        f"[This message is too long for the context: {len(text):,} characters. It was kept as the "
        f"file {path}, in {parts} parts, which read_document reads. It begins and ends so:]\n"
        f"{text[:_SHOWN].rstrip()}\n[…]\n{text[-_SHOWN:].lstrip()}"
    )


def fitted(text: str, characters: int, tokens: int | None, count: Callable[[str], int]) -> str:
    """A text, or as much of its beginning and its end as fits, with what is missing said between.

    Args:
        text: any text.
        characters: of it that may be shown.
        tokens: that it may take; None: any number.
        count: tokens of a text.
    """
    shown = text if len(text) <= characters else _shortened(text, characters)
    characters = min(characters, len(text))
    while tokens is not None and characters > 0 and (taken := count(shown)) > tokens:
        characters = int(0.9 * characters * max(tokens, 0) / taken)
        shown = _shortened(text, characters)
    return shown


def _shortened(text: str, characters: int) -> str:
    head, tail = characters * 3 // 4, characters // 4
    missing = len(text) - head - tail
    return f"{text[:head]}\n[… {missing:,} characters are not shown …]\n{text[len(text) - tail :]}"


def _parts(text: str, size: int) -> Iterator[str]:
    start = 0
    while start < len(text) or start == 0:
        window = text[start : start + size]
        data = window.encode(errors="replace")
        if len(data) <= size and start + len(window) == len(text):
            yield window
            return
        longest, half = _characters(data[:size]), _characters(data[: size // 2])
        cut = _cut(window[:longest], half)
        yield window[:cut]
        start += cut


def _characters(data: bytes) -> int:
    """Whole characters at the beginning of UTF-8."""
    return len(data.decode(errors="ignore"))


def _cut(window: str, half: int) -> int:
    """Where a part ends: the last of the best places in the second half of a window."""
    for places in _CUTS:
        ends = [match.end() for match in places.finditer(window)]
        if ends and ends[-1] >= half:
            return ends[-1]
    return len(window)
