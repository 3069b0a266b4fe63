"""Texts as tokens: words, and what counts as one piece: addresses, paths, identifiers, numbers.

Both what a user wrote and the values that are looked up in it are cut by the same rules, so that
equal pieces have equal keys.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto

LONGEST_PIECE = 1_000  # characters; what is longer is compared as it stands


class Kind(Enum):
    WORD = auto()  # letters, with hyphens or an apostrophe inside
    NUMBER = auto()
    EMAIL = auto()
    URL = auto()  # with a scheme, or a bare host and what follows it
    OTHER = auto()  # a path, a file name, an identifier: equal to itself alone
    MARK = auto()  # a symbol, a bracket, a new line between words
    BREAK = auto()  # the end of a sentence or line, outside of quotes


def word_set(words: str) -> frozenset[str]:
    """The words of a text that names them with spaces between."""
    return frozenset(words.split())


OPAQUE = frozenset((Kind.EMAIL, Kind.URL, Kind.OTHER))


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of a text."""

    text: str  # as it stands, without the punctuation around it
    key: str  # equal for equal pieces
    kind: Kind
    after: str = ""  # the punctuation that followed it
    first: bool = False  # whether it begins a sentence
    quote: int = -1  # the number of the quoted passage that it stands in; -1: in none

    @property
    def capital(self) -> bool:
        """Whether it looks like a part of a name."""
        return self.kind is Kind.WORD and self.text[0].isupper() and self.text not in _NO_NAMES


_NO_NAMES = frozenset(("I", "I'm", "I'll", "I'd", "I've"))
_OPENING = "'\"`([<¿¡"
_CLOSING = ".,;:!?…'\"`)]>"
_PAIRS = {")": "(", "]": "[", ">": "<"}
_BRACKETS = frozenset("()[]<>;")  # no mere punctuation: a command would mean something else
_ENDS = frozenset(".!?…;")
_ABBREVIATIONS = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "no", "e.g", "i.e", "approx")
)
# One look for quotes and dashes, whatever the keyboard made of them.
_LOOKS = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "—": " — "}
)
_CHUNK = re.compile(r"\S+")
_WORD = re.compile(r"[^\W\d_]+(?:[-'·][^\W\d_]+)*")
_NUMBER = re.compile(r"-?[$€£¥]?(?:[0-9]{1,3}(?:,[0-9]{3})+|0|[1-9][0-9]*)(?:\.[0-9]+)?[%$€£¥]?")
_EMAIL = re.compile(r"(?:mailto:)?([^\s@:,;<>\"]+@[^\s@:,;<>\"/\\]+\.[^\s@:,;<>\"/\\.]+)", re.I)
_URL = re.compile(r"(?:(https?)|([a-z][a-z0-9+.-]*))://([^/?#\\]*)(.*)", re.I)
_HOST = re.compile(
    r"((?:[^\W_](?:[\w-]*)\.)+(?:[^\W\d_]{2,}|xn--[a-z0-9-]+)|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|localhost(?=[:/]))"
    r"(:[0-9]{1,5})?([/?#].*)?"
)
_ACCOUNT = re.compile(r"[a-z]{2}[0-9]{2}[a-z0-9]{10,32}", re.I)  # an IBAN, or like one
EXTENSIONS = word_set(
    "txt md rst csv tsv json xml yaml yml toml ini cfg conf log pdf doc docx odt rtf xls xlsx ods "
    "ppt pptx odp key pages numbers png jpg jpeg gif svg webp bmp tif tiff heic mp3 wav flac ogg "
    "mp4 mov avi mkv webm zip tar gz tgz bz2 xz 7z rar py js ts c h cpp hpp rs go java rb php sh "
    "bash ps1 bat exe html htm css sql db sqlite ipynb tex bib eml ics vcf gguf safetensors "
    "parquet bak tmp"
)


def normal(text: str) -> str:
    """A text in the form that is compared: NFC, with one look for quotes and dashes."""
    return unicodedata.normalize("NFC", text).translate(_LOOKS)


_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_VARIATIONS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))


def visible(text: str) -> bool:
    """Whether a reader sees every character of it; newlines, tabs and spaces may stand inside."""
    if text.isascii():
        return all(character.isprintable() or character in "\n\t" for character in text)
    return all(
        (character.isprintable() or character in "\n\t")
        and character not in _INVISIBLE
        and not any(ord(character) in variations for variations in _VARIATIONS)
        for character in text
    )


def quoted_passages(text: str) -> list[tuple[int, int]]:
    """Where quoted passages begin and end, without the quotes; they hold no empty line.

    A quote opens after a space or bracket and closes where no letter follows: the apostrophe of
    "Grandma's" is none.
    """
    closing: dict[str, list[int]] = {"'": [], '"': [], "`": []}
    opening: list[int] = []
    for at in (match.start() for match in re.finditer("['\"`]", text)):
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        if (not before or before.isspace() or before in "([{<:=,-") and after.strip():
            opening.append(at)
        if before.strip() and not (after.isalnum() or after == "_"):
            closing[text[at]].append(at)
    paragraphs = [match.start() for match in re.finditer(r"\n\s*\n", text)] + [len(text)]
    found: list[tuple[int, int]] = []
    end = -1
    for at in opening:
        if at <= end:
            continue
        ends = closing[text[at]]
        next_end = bisect_left(ends, at + 2)
        if next_end == len(ends):
            continue
        if ends[next_end] < paragraphs[bisect_left(paragraphs, at)]:
            end = ends[next_end]
            found.append((at + 1, end))
    return found


def tokens(text: str, breaks: bool = True) -> list[Token]:
    """The tokens of a text in its normal form; without breaks, as one sentence."""
    passages = quoted_passages(text)
    found: list[Token] = []
    passage = 0
    first = True
    last_end = 0
    for match in _CHUNK.finditer(text):
        if "\n" in text[last_end : match.start()]:
            first = True
            if breaks and not _inside(passages, match.start()):
                found.append(Token("", "\t", Kind.BREAK))
            elif found:
                found.append(Token("", "\v", Kind.MARK, quote=found[-1].quote))
        last_end = match.end()
        for start, opened, core, closed in _pieces(match.start(), match.group()):
            while passage < len(passages) and passages[passage][1] <= start:
                passage += 1
            inside = passage < len(passages) and passages[passage][0] <= start
            quote = passage if inside else -1
            for bracket in opened:
                found.append(Token(bracket, bracket, Kind.MARK, quote=quote))
            if not core:
                first = True
                continue
            kind, key = classify(core)
            if _abbreviated(core, closed):
                closed = ""
            found.append(Token(core, key, kind, closed, first, quote))
            first = kind is Kind.MARK or ":" in closed
            for bracket in closed:
                if bracket in _BRACKETS:
                    found.append(Token(bracket, bracket, Kind.MARK, quote=quote))
            if breaks and not _ENDS.isdisjoint(closed):
                within = inside and passages[passage][1] > start + len(core) + 1
                first = True
                if not within:
                    found.append(Token("", "\t", Kind.BREAK))
    return found


def _inside(passages: list[tuple[int, int]], at: int) -> bool:
    index = bisect_left(passages, (at, -1)) - 1
    return index >= 0 and at < passages[index][1]


def _abbreviated(core: str, closed: str) -> bool:
    return closed == "." and (
        (len(core) == 1 and core.isupper() and core != "I") or core.lower() in _ABBREVIATIONS
    )


def _pieces(start: int, chunk: str) -> Iterator[tuple[int, str, str, str]]:
    """What stands between two spaces: where, brackets before, the piece, punctuation after."""
    begin, end = 0, len(chunk)
    while begin < end and chunk[begin] in _OPENING:
        begin += 1
    # A bracket that was opened inside belongs to the piece: "Foo_(bar)".
    surplus = {
        close: chunk.count(close) - chunk.count(open_, begin) for close, open_ in _PAIRS.items()
    }
    while end > begin and (last := chunk[end - 1]) in _CLOSING:
        if last in surplus:
            if surplus[last] <= 0:
                break
            surplus[last] -= 1
        end -= 1
    opened = "".join(character for character in chunk[:begin] if character in _BRACKETS)
    core, closed = chunk[begin:end], chunk[end:]
    if len(core) > 1 and core[0] in "#@" and core[1].isalnum():  # #general and @ada are names
        core, begin = core[1:], begin + 1
    if len(core) > 2 and core.endswith("'s") and _WORD.fullmatch(core[:-2]):
        yield start + begin, opened, core[:-2], ""
        yield start + end - 2, "", "'s", closed
        return
    if ("," in core or ";" in core) and len(core) <= LONGEST_PIECE:
        parts = re.split("[,;]", core)
        if all(_WORD.fullmatch(part) for part in parts) or all(map(_EMAIL.fullmatch, parts)):
            at = start + begin
            for number, part in enumerate(parts):
                behind = closed if number == len(parts) - 1 else ","
                yield at, opened if number == 0 else "", part, behind
                at += len(part) + 1
            return
    if not core and closed and not opened:
        opened = "".join(character for character in closed if character in _BRACKETS)
    yield start + begin, opened, core, closed


def classify(piece: str) -> tuple[Kind, str]:
    """What a piece is, and the key that equal pieces share."""
    if len(piece) > LONGEST_PIECE:
        return Kind.OTHER, piece
    if _WORD.fullmatch(piece) or piece == "'s":
        return Kind.WORD, piece.lower()
    if _NUMBER.fullmatch(piece):
        return Kind.NUMBER, piece
    if not any(map(str.isalnum, piece)):
        return Kind.MARK, piece
    if "@" in piece and (email := _EMAIL.fullmatch(piece)):
        return Kind.EMAIL, email[1].lower()
    if key := url_key(piece):
        return Kind.URL, key
    return Kind.OTHER, piece.lower() if _ACCOUNT.fullmatch(piece) else piece


def number(text: str) -> tuple[Decimal, str] | None:
    """What a piece of the kind `NUMBER` stands for, with its currency, "" or "%"."""
    signs = [character for character in text if character in "$€£¥%"]
    if len(signs) > 1:
        return None
    return Decimal(text.translate(_NO_SIGNS)), "".join(signs)


_NO_SIGNS = str.maketrans("", "", "$€£¥%,")


def url_key(piece: str) -> str:
    """One form for addresses of the web: scheme://host/rest; "" for what is none."""
    if "://" in piece:
        if match := _URL.fullmatch(piece):
            scheme = "http" if match[1] else match[2].lower()
            user, at, host = match[3].rpartition("@")
            return f"{scheme}://{user}{at}{host.lower()}{match[4] or '/'}"
    elif match := _HOST.fullmatch(piece):
        host, port, rest = match[1], match[2] or "", match[3] or ""
        last = host.rpartition(".")[2]
        # "report.txt" is a file, and "lunch.Her" a space that was forgotten.
        if (rest or last.lower() not in EXTENSIONS) and (last.islower() or not last.istitle()):
            return f"http://{host.lower()}{port}{rest or '/'}"
    return ""


def host_of(key: str) -> str:
    """The host of an address that `url_key` made."""
    place = re.split(r"[/?#\\]", key.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    return place.rpartition(":")[0] if re.search(r":[0-9]*$", place) else place


def stem(name: str) -> str:
    """A file's name without its extension; other texts as they are."""
    before, dot, extension = name.rpartition(".")
    return before if dot and before and extension.lower() in EXTENSIONS else name
