"""Anchors: what stands in the words that a user wrote, by typed matches of whole values.

The text is trusted, the values are an attacker's. So a value is equal to one whole piece of the
text, or it is none of it: a part of a longer name, number, address or quoted title never matches.

- An address, a path, a file name or an identifier is one piece. E-mail addresses, hosts and
  account numbers (two letters, two digits, ten or more characters) are compared in lower case,
  everything else exactly; `http://`, `https://` and no scheme are the same, and so are an empty
  path and `/`.
- A number is compared by value. One inside a date, time, length of time, percentage, list number,
  postal address or quoted title is none, nor is one that other numbers stand beside ("10 000"),
  nor the pronoun "one". What is said with a currency matches a value with the same or without.
- A time may be one that was written, or one moved by a length of time that was written.
- A word with a capital directly beside another such word, or with "of", "van", "'s" or "&" between,
  is a part of a longer name, unless it begins a sentence (there it is taken for a verb). So is a
  number before one. A quoted passage is one piece.
- A single word matches unless it is one that requests are made of ("the", "pay", "list"), or its
  capital is missing in a text that has capitals; those match as names do: "Al", "Mark", 'list'.
- Characters are compared after NFC and in lower case, not casefolded or NFKC: letters that only
  look alike differ. Values with control characters, invisible or private ones never match.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from math import isfinite

from oneiros.kernel.anchor_dates import OTHER_WORDS, Amounts, amounts, date_time
from oneiros.kernel.anchor_phrases import COMMON, FUNCTION, forms, negated
from oneiros.kernel.anchor_words import (
    OPAQUE,
    Kind,
    Token,
    host_of,
    normal,
    number,
    quoted_passages,
    stem,
    tokens,
    visible,
    word_set,
)

LONGEST_VALUE = 20_000  # characters; longer values never match
_MOST_PLACES = 1_000  # where a value is looked at; a text that repeats itself more often has it not
_LETTERS = re.compile(r"[^\W\d_]+")
_FREE_LETTERS = OTHER_WORDS | {"http", "https", "mailto"}
_LINKS = word_set("of de del da di van von der den la le bin al 's &")
_PLACEHOLDER = re.compile(r"\{[^{}\n]{1,60}\}")
_STARTS = frozenset(("starting", "starts", "start", "beginning", "begins", "begin"))


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """Tokens as one string, in which sequences are found, with what may not be cut."""

    joined: str
    starts: list[int]  # where each token begins in `joined`
    glued: list[bool]  # whether a token and the next one are of one piece

    def find(self, keys: Sequence[str]) -> Iterator[tuple[int, int]]:
        """First token and behind the last, wherever keys stand in a row, as whole pieces."""
        needle = "\n" + "\n".join(keys) + "\n"
        at, tried = self.joined.find(needle), 0
        while at >= 0:
            first = bisect_left(self.starts, at)
            last = first + len(keys) - 1
            if not (first and self.glued[first - 1]) and not self.glued[last]:
                yield first, last + 1
            tried += 1
            at = self.joined.find(needle, at + 1) if tried < _MOST_PLACES else -1


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What a user wrote, for looking up values; `parse` makes it."""

    words: list[Token]
    amounts: Amounts
    pieces: frozenset[tuple[Kind, str]]  # addresses, paths, identifiers
    hosts: frozenset[str]
    line: _Line  # the tokens
    split: _Line  # the same, cut at hyphens and underscores
    quotes: frozenset[tuple[str, ...]]  # whole quoted passages, as keys
    templates: tuple[str, ...]  # quoted passages with {placeholders}
    plain: dict[str, set[int]]  # where words stand that are part of no title, name or address
    negated: list[bool]  # per token
    letters: frozenset[str]  # all runs of letters
    leads: frozenset[str]  # words after "starting with"
    capitals: bool  # whether the user writes capitals at all

    def has(self, value: object) -> bool:
        """Whether one scalar argument stands in the text, as one whole piece of its kind.

        Booleans never do. A date without a year matches in any year; 00:00 and 23:59 are the ends
        of a day that was written; zones other than UTC never match.
        """
        if isinstance(value, bool):
            return False
        if isinstance(value, int | float):
            finite = isinstance(value, int) or isfinite(value)
            return finite and (_decimal(value), "") in self.amounts.numbers
        return isinstance(value, str) and _fit(value) and self._has_text(normal(value))

    def _has_text(self, value: str) -> bool:
        moment = date_time(value)
        if moment:
            return self._has_date(*moment)
        if not self._lettered(value):
            return False
        cut = _cut(value)
        words = [token for token in cut if token.kind is not Kind.MARK]
        if not words:
            return False
        if len(cut) == 1:
            token = cut[0]
            if token.kind is Kind.NUMBER:
                whole = token.text == value.removeprefix("#")
                return whole and number(token.text) in self.amounts.numbers
        said = _amounts_of(value)
        if said.spans and said.spans[0] == (0, len(cut)):
            return self._has_amount(said)
        if len(cut) == 1 and cut[0].kind in OPAQUE:
            whole = cut[0].text == value.removeprefix("#")
            return whole and (cut[0].kind, cut[0].key) in self.pieces
        keys = [token.key for token in cut]
        if all(token.key in FUNCTION for token in words):
            return False
        places = self.line.find(keys)
        if len(words) > 1:
            return next(places, None) is not None
        return any(self._same_word(words[0], place[0]) for place in places)

    def _lettered(self, value: str) -> bool:
        """Whether its letters stand in the text at all; most of an attacker's values end here."""
        return all(
            letters in self.letters or letters in _FREE_LETTERS
            for letters in (match[0] for match in _LETTERS.finditer(value.lower()))
        )

    def _has_amount(self, said: Amounts) -> bool:
        return (
            said.dates <= self.amounts.dates
            and all(map(self._has_time, said.times))
            and said.lengths <= self.amounts.lengths
            and not said.numbers
            and bool(said.dates or said.times or said.lengths)
        )

    def _has_date(self, day: tuple[int | None, int, int], time: int | None, last: bool) -> bool:
        if self._has_day(day):
            return time is None or time == 0 or last or self._has_time(time)
        try:
            before = date(day[0] or 0, day[1], day[2]) - timedelta(days=1)
        except (ValueError, OverflowError):
            return False
        written = self._has_day((before.year, before.month, before.day))
        return written and time is not None and self._moved(time + 24 * 60)

    def _has_day(self, day: tuple[int | None, int, int]) -> bool:
        return day in self.amounts.dates or (None, *day[1:]) in self.amounts.dates

    def _has_time(self, time: int) -> bool:
        return time in self.amounts.times or self._moved(time)

    def _moved(self, time: int) -> bool:
        return any(time - length in self.amounts.times for length in self.amounts.lengths)

    def _same_word(self, word: Token, at: int) -> bool:
        written = next(token for token in self.words[at:] if token.kind is not Kind.MARK)
        if (written.key,) in self.quotes:
            return True
        name = word.capital and written.capital and not written.first
        if len(word.text) < 3:
            return name and word.text == written.text and word.key not in FUNCTION
        if word.key in COMMON or word.key in FUNCTION:
            return name and word.key not in FUNCTION
        return not word.capital or written.capital or not self.capitals

    def names(self, value: str) -> bool:
        """Whether the user names a record with this title, file name, address or number.

        Its words stand in the text, one of them none that requests are made of; "-" and "_" count
        as spaces and extensions may be missing. A single word has four letters or more, or is
        quoted. "starting with X" names what begins with the word X.
        """
        if not _fit(value):
            return False
        text = normal(value)
        if self._has_text(text):
            return True
        cut = _cut(text)
        if len(cut) == 1 and cut[0].kind in (Kind.EMAIL, Kind.NUMBER):
            return False
        if len(cut) == 1 and cut[0].kind is Kind.URL and ("/" in text or "@" in text):
            return False
        keys = _split_keys(stem(text))
        if keys and keys[0] in self.leads:
            return True
        if not self._lettered(stem(text)):
            return False
        telling = [key for key in keys if key not in COMMON and key not in FUNCTION]
        if not any(any(map(str.isalpha, key)) for key in telling):
            return tuple(keys) in self.quotes and bool(keys)
        if len(keys) == 1 and len(keys[0]) < 4:
            return (keys[0],) in self.quotes
        return next(self.split.find(keys), None) is not None

    def asks(self, phrases: Sequence[str]) -> bool:
        """Whether one of these phrases stands in the text in plain words, not negated.

        Words of a quoted passage, of an address, a path or a longer name are not plain. A single
        word counts in its inflected forms (`anchor_phrases.forms`), a phrase as it is.
        """
        for phrase in phrases:
            keys = [token.key for token in _cut(normal(phrase))]
            starts = forms(keys[0]) if len(keys) == 1 else keys[:1]
            for start in starts:
                for at in self.plain.get(start, ()):
                    same = all(at + n in self.plain.get(key, ()) for n, key in enumerate(keys) if n)
                    if same and not self.negated[at]:
                        return True
        return False

    def rivals(self, values: Iterable[object], *, of_any_kind: bool = False) -> bool:
        """Whether the text holds more dates, times, numbers or addresses than these values.

        Counted are the kinds that one of the values has: then which one is meant is a choice.
        `of_any_kind` counts all: where something was left out, it may have been meant, too.
        """
        days, times, numbers, pieces = set(), set(), set(), set()
        for value in values:
            if not isinstance(value, str):
                numbers.add(_decimal(value) if isinstance(value, int | float) else None)
                continue
            text = normal(value)
            moment = date_time(text)
            cut = _cut(text)
            if moment:
                days.add(moment[0][1:])
                times |= {moment[1]} - {None}
            elif len(cut) == 1 and cut[0].kind is Kind.NUMBER and (known := number(text)):
                numbers.add(known[0])
            elif len(cut) == 1 and cut[0].kind in OPAQUE:
                pieces.add((cut[0].kind, cut[0].key))
        kinds = OPAQUE if of_any_kind else {kind for kind, _ in pieces}
        return bool(
            ((days or of_any_kind) and {day[1:] for day in self.amounts.dates} - days)
            or ((times or of_any_kind) and self.amounts.times - times)
            or ((numbers or of_any_kind) and {said for said, _ in self.amounts.numbers} - numbers)
            or {piece for piece in self.pieces if piece[0] in kinds} - pieces
        )

    def fills(self, value: str, trusted: Callable[[str], bool]) -> bool:
        """Whether a value is a quoted template of the user's with trusted texts in its {places}.

        Equal placeholders stand for equal texts.
        """
        if not _fit(value):
            return False
        text = normal(value)
        return any(_fills(template, text, trusted) for template in self.templates)

    def host(self, name: str) -> bool:
        """Whether the user wrote this host or an address on it, and not only one above or below."""
        return _fit(name) and normal(name).lower() in self.hosts


def title_key(name: str) -> tuple[str, ...]:
    """Equal for names of records whose spellings `Request.names` takes for the same."""
    return tuple(_split_keys(stem(normal(name))))


@lru_cache(maxsize=512)  # texts and their sentences
def parse(text: str) -> Request:
    """A request for looking values up in; `text` is all that its user wrote. Never raises."""
    written = normal(text)
    words = tokens(written)
    found = amounts(words)
    glued = _glue(words, found)
    inside = {at for first, end in found.spans for at in range(first, end)}
    pieces = {
        (token.kind, token.key)
        for at, token in enumerate(words)
        if token.kind in OPAQUE and at not in inside
    }
    accounts, more = _accounts(words)
    joined = [key for _, key in accounts]
    pieces |= accounts
    for first, end in more:
        pieces -= {(token.kind, token.key) for token in words[first:end]}
        glued[first : end - 1] = [True] * (end - 1 - first)
    quotes: dict[int, list[str]] = {}
    for token in words:
        if token.quote >= 0 and token.kind is not Kind.BREAK:
            quotes.setdefault(token.quote, []).append(token.key)
    passages = [written[start:end] for start, end in quoted_passages(written)]
    plain: dict[str, set[int]] = {}
    for at, token in enumerate(words):
        named = token.capital and not token.first and (glued[at] or (at and glued[at - 1]))
        if token.kind is Kind.WORD and token.quote < 0 and not named:
            plain.setdefault(token.key.replace("e-mail", "email"), set()).add(at)
    return Request(
        words=words,
        amounts=found,
        pieces=frozenset(pieces),
        hosts=frozenset(host_of(key) for kind, key in pieces if kind is Kind.URL),
        line=_line(((token.key,) for token in words), glued),
        split=_line((_split_keys(token.text) or [token.key] for token in words), glued),
        quotes=frozenset(map(tuple, quotes.values())),
        templates=tuple(text for text in passages if _PLACEHOLDER.search(text)),
        plain=plain,
        negated=negated(words),
        letters=frozenset(_LETTERS.findall(" ".join((written, *joined)).lower())),
        leads=_leads(words),
        capitals=any(map(str.isupper, written.replace("I", ""))),
    )


def _glue(words: Sequence[Token], found: Amounts) -> list[bool]:
    """For each token, whether it and the next one are parts of one longer piece."""
    glued = [False] * len(words)
    for at, (token, following) in enumerate(pairwise(words)):
        if token.quote >= 0 and token.quote == following.quote:
            glued[at] = True
        elif not token.after and not token.first and following.capital:
            glued[at] = token.capital or token.kind is Kind.NUMBER
            linked = at and token.key in _LINKS and words[at - 1].capital
            if linked and not words[at - 1].after:
                glued[at] = glued[at - 1] = True
    for first, end in found.spans:
        glued[first : end - 1] = [True] * (end - 1 - first)
    return glued


def _line(keys: Iterable[Sequence[str]], glued: Sequence[bool]) -> _Line:
    parts: list[str] = []
    starts: list[int] = []
    joints: list[bool] = []
    length = 0
    for group, joint in zip(keys, glued, strict=True):
        for key in group:
            starts.append(length)
            length += len(key) + 1
            parts.append(key)
            joints.append(True)
        joints[-1] = joint
    return _Line("\n" + "\n".join(parts) + "\n", starts, joints)


def _accounts(words: Sequence[Token]) -> tuple[set[tuple[Kind, str]], list[tuple[int, int]]]:
    """Account numbers (IBAN, ISO 13616) that were written in groups of four."""
    found: set[tuple[Kind, str]] = set()
    places: list[tuple[int, int]] = []
    for at, token in enumerate(words):
        if not re.fullmatch("[A-Z]{2}[0-9]{2}", token.text) or token.after:
            continue
        end = at + 1
        while end < len(words) and end - at < 9 and re.fullmatch("[A-Z0-9]{1,4}", words[end].text):
            end += 1
            if len(words[end - 1].text) < 4 or words[end - 1].after:
                break
        joined = "".join(word.text for word in words[at:end])
        turned = joined[4:] + joined[:4]
        if len(joined) >= 15 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1:
            found.add((Kind.OTHER, joined.lower()))
            places.append((at, end))
    return found, places


def _leads(words: Sequence[Token]) -> frozenset[str]:
    return frozenset(
        words[at + 2].key
        for at in range(len(words) - 2)
        if words[at].key in _STARTS and words[at + 1].key == "with" and len(words[at + 2].key) > 2
    )


@lru_cache(maxsize=4_096)
def _cut(value: str) -> tuple[Token, ...]:
    return tuple(tokens(value, breaks=False))


@lru_cache(maxsize=4_096)
def _amounts_of(value: str) -> Amounts:
    return amounts(_cut(value))


def _split_keys(text: str) -> list[str]:
    parts = re.split("[-_ ]+", text)
    return [token.key for part in parts for token in _cut(part)]


def _fit(value: str) -> bool:
    return 0 < len(value) <= LONGEST_VALUE and value == value.strip() and visible(value)


def _decimal(value: int | float) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _fills(template: str, value: str, trusted: Callable[[str], bool]) -> bool:
    """Each placeholder takes as little as it can, the last one all that is left."""
    names = _PLACEHOLDER.findall(template)
    literals = _PLACEHOLDER.split(template)
    filled: dict[str, str] = {}
    if not value.startswith(literals[0]):
        return False
    at = len(literals[0])
    for place, (name, literal) in enumerate(zip(names, literals[1:], strict=True), 1):
        if place == len(names):
            end = len(value) - len(literal)
        elif not literal:
            return False  # two places beside each other: nobody could tell where one ends
        else:
            end = value.find(literal, at + 1)
        if end <= at or not value.startswith(literal, end):
            return False
        if filled.setdefault(name, value[at:end]) != value[at:end]:
            return False
        at = end + len(literal)
    return all(map(trusted, filled.values()))
