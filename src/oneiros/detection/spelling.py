"""Words that are spelt so that people and models read them, and filters do not.

Substitution ciphers (ROT13, Atbash), leetspeak, and letters of other alphabets that look like
Latin ones (Unicode Technical Standard 39, "Unicode Security Mechanisms").
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from oneiros.detection.payload import Payload, joined
from oneiros.detection.words import COMMON, is_known, likeness, script

_LOWER, _UPPER = string.ascii_lowercase, string.ascii_uppercase
_LETTERS: Final = _LOWER + _UPPER
_CIPHERS: Final = {
    "rot13": str.maketrans(_LETTERS, _LOWER[13:] + _LOWER[:13] + _UPPER[13:] + _UPPER[:13]),
    "atbash": str.maketrans(_LETTERS, _LOWER[::-1] + _UPPER[::-1]),
}
_ENCIPHERED: Final = {
    kind: frozenset(word.translate(table) for word in COMMON) - COMMON
    for kind, table in _CIPHERS.items()
}
_LATIN_WORD: Final = re.compile(r"[A-Za-z]{2,30}")
_LEET_WORD: Final = re.compile(r"[A-Za-z0-9@$!|+]{2,30}")
_DIGIT: Final = re.compile(r"[0-9]")
_LEET_INSIDE: Final = re.compile(r"[A-Za-z][0-9@$!|+]|[0-9@$][A-Za-z]")
_LEET: Final = {ord(a): b for a, b in zip("01345789@$!|+", "oieasTbgasilt".lower(), strict=True)}
_LEET_L: Final = _LEET | {ord("1"): "l", ord("!"): "l"}
_FOREIGN_WORD: Final = re.compile(r"(?=[\x00-\x7f]*[^\x00-\x7f])\w+")
# Letters that stand for Latin ones in most typefaces, beside those that NFKC makes Latin.
_LOOKALIKES: Final = {
    ord(a): b
    for letters, latin in (
        ("аеорсухіјѕһԁԛԝӏѵЅІЈАВЕКМНОРСТУХԌҮ", "aeopcyxijshdqwlvSIJABEKMHOPCTYXGY"),
        ("οιϲϳνυΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "oicjvuABEZHIKMNOPTYX"),
        ("օհոսցզԼՏՕ", "ohnugqLSO"),
        ("ᎪᏴᏟᎠᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ", "ABCDEHJKLMPRSTVWZ"),
        ("ɡɑıɪʏꜱ", "gaiiys"),
    )
    for a, b in zip(letters, latin, strict=True)
}
_LEAST_GAIN: Final = 12.0  # nats by which decoding makes a stretch likelier
_LEAST_WORDS: Final = 3  # of them that are different: "BA" is "ON", and a postcode
_LEAST_KNOWN: Final = 2  # of them, with three letters or more
_LEAST_ENCIPHERED: Final = 2
_UNKNOWN: Final = 1.0  # nats that a word costs that stays as it is, and is not known
_LEAST_STYLED: Final = 6  # letters of another style: mathematical, circled, of full width


def respelt(text: str) -> Iterator[Payload]:
    """Words with another spelling."""
    words = set(_LATIN_WORD.findall(text.lower()))
    for kind, table in _CIPHERS.items():
        if len(words & _ENCIPHERED[kind]) < _LEAST_ENCIPHERED:
            continue  # most texts, at little cost
        yield from _segments(text, kind, _LATIN_WORD, partial(_translated, table))
    if _DIGIT.search(text):
        yield from _segments(text, "leetspeak", _LEET_WORD, _without_digits, _as_words)
    if not text.isascii():
        for payload in joined(text, _homoglyphs(text)):
            yield replace(payload, decoded=_skeleton(text[payload.start : payload.end]))


def _translated(table: dict[int, int], word: str) -> str:
    return word.translate(table)


def _segments(
    text: str,
    kind: str,
    pattern: re.Pattern[str],
    decode: Callable[[str], str],
    decode_all: Callable[[str], str] | None = None,
) -> Iterator[Payload]:
    """Stretches that are likelier English when they are decoded (Kadane's algorithm).

    `decode` says what a word by itself may be; `decode_all`, what it is in such a stretch.
    """
    final = decode_all or decode
    gain = best = 0.0
    start = end = 0
    words: set[str] = set()  # that became likelier
    for match in (*pattern.finditer(text), None):
        if match is not None:
            word = match[0]
            decoded = decode(word)
            if gain == 0.0:
                start, words = match.start(), set()
            change = _gain(word, decoded)
            gain += change
            if change > 0:
                words.add(decoded.lower())
            if gain > best:
                best, end = gain, match.end()
        if match is None or gain <= 0.0 or gain < best - _LEAST_GAIN:
            known = sum(len(word) > 2 and is_known(word) for word in words)
            if best >= _LEAST_GAIN and len(words) >= _LEAST_WORDS and known >= _LEAST_KNOWN:
                whole = pattern.sub(lambda match: final(match[0]), text[start:end])
                yield Payload(kind, start, end, whole)
            gain = best = 0.0


def _gain(word: str, decoded: str) -> float:
    if decoded != word:
        likely = likeness(decoded) if decoded.isalpha() else 0.0
        return likely - (likeness(word) if word.isalpha() else 0.0)
    return 0.0 if is_known(word) else -_UNKNOWN  # leetspeak has words without digits, too


def _without_digits(word: str) -> str:
    """A word of leetspeak; one without letters, or without signs, stays as it is."""
    if not _LEET_INSIDE.search(word):
        return word
    decoded = word.translate(_LEET)
    other = word.translate(_LEET_L)
    return other if not is_known(decoded) and is_known(other) else decoded


def _as_words(word: str) -> str:
    """A word of leetspeak, where digits alone are words too: "70" is "to"."""
    decoded = word.translate(_LEET)
    return decoded if word.isdigit() and is_known(decoded) else _without_digits(word)


def _homoglyphs(text: str) -> Iterator[Payload]:
    """Words that look Latin, and are not, or not all."""
    own = {script(character) for character in text if _is_foreign(character)}
    for match in _FOREIGN_WORD.finditer(text):
        word = match[0]
        skeleton = _skeleton(word)
        if not skeleton.isascii() or not skeleton.isalnum() or len(word) < 3:
            continue
        scripts = {script(character) for character in word if character.isalpha()}
        if scripts & {"MATHEMATICAL", "FULLWIDTH", "CIRCLED", "SQUARED", "PARENTHESIZED"}:
            certain = len(word) >= _LEAST_STYLED or is_known(skeleton)
        elif "LATIN" in scripts:
            certain = len(scripts) > 1
        else:
            # All letters look Latin. In a text of that script a word may, by chance.
            certain = not scripts & own and is_known(skeleton)
        if certain:
            yield Payload("homoglyphs", *match.span(), skeleton)


def _skeleton(text: str) -> str:
    """A text as it looks, in Latin letters."""
    return unicodedata.normalize("NFKC", text).translate(_LOOKALIKES)


def _is_foreign(character: str) -> bool:
    """Whether a letter is of another script, and looks like it."""
    return (
        not character.isascii()
        and character.isalpha()
        and ord(character) not in _LOOKALIKES
        and script(character) != "LATIN"
    )
