"""Encodings of bytes: base64, base32, hexadecimal, percent, HTML entities, backslash escapes."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from oneiros.detection.instructions import count_instructions
from oneiros.detection.payload import Payload
from oneiros.detection.words import is_printable, is_readable

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_BASE32: Final = re.compile(r"[A-Z2-7]{16,}={0,6}")
_HEX: Final = re.compile(r"(?:0x|\\x)?[0-9A-Fa-f]{2}(?:(?:0x|\\x|[ :,-])?[0-9A-Fa-f]{2}){7,}")
_HEX_MARKS: Final = re.compile(r"0x|\\x|[ :,-]")
_PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2}[^\s<>\"%]{0,40}){3,}")
_ENTITIES: Final = re.compile(r"(?:&#(?:\d{1,7}|x[0-9A-Fa-f]{1,6});?[^\s&]{0,3}\s?){4,}")
_ENTITY: Final = re.compile(r"&#(?:\d{1,7}|x[0-9A-Fa-f]{1,6});?")
_ESCAPES: Final = re.compile(r"(?:\\u\{?[0-9A-Fa-f]{2,6}\}?|\\x[0-9A-Fa-f]{2}|\\[0-7]{3}){6,}")
_ESCAPE: Final = re.compile(r"\\u\{?([0-9A-Fa-f]{2,6})\}?|\\x([0-9A-Fa-f]{2})|\\([0-7]{3})")
_NEEDLESS_PERCENT: Final = re.compile(r"%(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])")
_NEEDLESS: Final = 4  # letters and digits that are escaped, though no program does that
_NO_ADDRESS: Final = ' \t\r\n<>"%'
_BEFORE: Final = 64  # characters of an address before the first that is escaped
_WRAPPED: Final = 40  # characters of a line that goes on in the next one
_LEAST: Final = 8  # characters that are hidden


def encoded(text: str) -> Iterator[Payload]:
    """Encoded texts; the places of different encodings may overlap."""
    yield from _runs(text, "hex", _HEX, _from_hex)
    yield from _runs(text, "base32", _BASE32, _from_base32)
    yield from _base64(text)
    yield from _percent(text)
    for match in _ENTITIES.finditer(text):
        decoded = html.unescape(match[0])
        yield Payload("entities", *match.span(), decoded, _needless_entities(match[0]))
    for match in _ESCAPES.finditer(text):
        decoded = _ESCAPE.sub(_unescaped, match[0])
        yield Payload("escapes", *match.span(), decoded, is_readable(decoded))


def _runs(
    text: str, kind: str, pattern: re.Pattern[str], decode: Callable[[str], bytes | None]
) -> Iterator[Payload]:
    for match in pattern.finditer(text):
        decoded = _as_text(decode(match[0]))
        if decoded is not None:
            yield Payload(kind, *match.span(), decoded, is_readable(decoded))


def _base64(text: str) -> Iterator[Payload]:
    for start, end in _unwrapped(text):
        run = "".join(text[start:end].split()).rstrip("=")
        # What stands right before it may be letters too ("key/aWdub3Jl"): four places to begin at.
        texts = {skipped: _as_text(_from_base64(run[skipped:])) for skipped in range(4)}
        found = {skipped: decoded for skipped, decoded in texts.items() if decoded is not None}
        readable = [skipped for skipped, decoded in found.items() if is_readable(decoded)]
        for skipped in readable[:1] or list(found)[:1]:
            certain = bool(readable)
            yield Payload("base64", start + skipped, end, found[skipped], certain)


def _unwrapped(text: str) -> Iterator[tuple[int, int]]:
    """Runs of base64; lines of equal length that follow each other are one."""
    start = end = width = 0
    for match in _BASE64.finditer(text):
        begin = match.start()
        length = match.end() - begin
        goes_on = width >= _WRAPPED and length <= width and text[end:begin] in ("\n", "\r\n")
        if not goes_on:
            if end:
                yield start, end
            start = begin
        width = length if not goes_on or length == width else 0
        end = match.end()
    if end:
        yield start, end


def _from_base64(run: str) -> bytes | None:
    run = run.translate(_URL_SAFE)
    run = run[: len(run) - 1] if len(run) % 4 == 1 else run
    try:
        return base64.b64decode(run + "=" * (-len(run) % 4), validate=True)
    except binascii.Error:
        return None


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _from_base32(run: str) -> bytes | None:
    run = run.rstrip("=")
    run = run[: len(run) - len(run) % 8 + _WHOLE_BASE32[len(run) % 8]]
    try:
        return base64.b32decode(run + "=" * (-len(run) % 8))
    except binascii.Error:
        return None


_WHOLE_BASE32: Final = (0, 0, 2, 2, 4, 5, 5, 7)  # characters that stand for whole bytes


def _from_hex(run: str) -> bytes | None:
    digits = _HEX_MARKS.sub("", run)
    return bytes.fromhex(digits[: len(digits) & ~1])


def _percent(text: str) -> Iterator[Payload]:
    for match in _PERCENT.finditer(text):
        start = match.start()
        while start and match.start() - start < _BEFORE and text[start - 1] not in _NO_ADDRESS:
            start -= 1
        decoded = _as_text(unquote_to_bytes(text[start : match.end()]))
        if decoded is None:
            continue
        needless = len(_NEEDLESS_PERCENT.findall(match[0])) >= _NEEDLESS
        says = count_instructions(decoded.replace("+", " "))  # a space, in addresses
        yield Payload("percent", start, match.end(), decoded, needless or says > 0)


def _needless_entities(run: str) -> bool:
    letters = sum(
        decoded.isascii() and decoded.isalnum()
        for decoded in map(html.unescape, _ENTITY.findall(run))
    )
    return letters >= _NEEDLESS


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[3], 8) if match[3] else int(match[1] or match[2], 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"


def _as_text(data: bytes | None) -> str | None:
    """Printable text of bytes; None: they are none, or too few to say."""
    if data is None or len(data) < _LEAST:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if is_printable(text) else None
