"""About a megabyte of text to tokenise: real text, and what real text never has."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

TOKENIZER_DATA = Path(__file__).resolve().parents[1] / "data" / "tokenizer"

# Bytes that SmolLM2's vocabulary lacks: a few control characters, and the first bytes of code
# points from U+40000 up, most of which are unassigned. No text here needs them, so that all
# tokenizers get the same.
MISSING_BYTES = frozenset(b"\x04\x06\x13\x14\x16\x1d\xf1\xf2")

# First and last code point of the scripts that the soup is made of; repeated ones come up more.
_BLOCKS = (
    *[(0x20, 0x7E)] * 3,
    (0xA0, 0x17F),  # Latin
    (0x300, 0x36F),  # combining marks
    (0x370, 0x3FF),  # Greek
    (0x400, 0x4FF),  # Cyrillic
    (0x590, 0x5FF),  # Hebrew
    (0x600, 0x6FF),  # Arabic
    (0x900, 0x97F),  # Devanagari
    (0xE00, 0xE7F),  # Thai
    (0x2000, 0x206F),  # punctuation and spaces
    (0x2190, 0x22FF),  # arrows and mathematics
    (0x2460, 0x24FF),  # enclosed letters and numbers
    (0x3040, 0x30FF),  # kana
    *[(0x4E00, 0x9FFF)] * 2,  # Han
    (0xAC00, 0xD7A3),  # Hangul
    (0xFF00, 0xFFEF),  # full width
    (0x1D400, 0x1D7FF),  # mathematical letters and digits
    (0x1F1E6, 0x1F1FF),  # regional indicators
    (0x1F300, 0x1F64F),  # emoji
    (0x20000, 0x2A6DF),  # rare Han
)
_JOINS = (*["", " ", " ", "\n"] * 3, "  ", "\n\n", " \n", "\t", "   ", "\r\n", "\u3000", ".", "'s ",
          "'LL ", "123456", " 42", "!!", "\u200d", "--", "</", "`")  # fmt: skip


def slices(data_folder: Path) -> dict[str, str]:
    """The texts by name."""
    conversations = (data_folder / "conversations" / "dolly-hhrlhf-small.jsonl").read_text()
    with gzip.open(data_folder / "code" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        problems = [json.loads(line) for line in file]
    code = "\n".join(
        item["prompt"] + item["canonical_solution"] + item["test"] for item in problems
    )
    multilingual = (TOKENIZER_DATA / "multilingual.txt").read_bytes().decode()
    return {
        "shakespeare": (data_folder / "text" / "tinyshakespeare.txt").read_text()[:300_000],
        "code": code,
        "json": conversations[:200_000],
        "math": (data_folder / "math" / "gsm8k-test.jsonl").read_text()[:100_000],
        "multilingual": multilingual,
        "soup": unicode_soup(12_000),
    }


def unicode_soup(words: int, seed: int = 7) -> str:
    """Random words in many scripts with odd whitespace between them; assigned characters only."""
    choose = random.Random(seed)
    pieces = []
    for _ in range(words):
        first, last = choose.choice(_BLOCKS)
        length = choose.choice((1, 1, 2, 3, 5, 9))
        pieces += [chr(choose.randint(first, last)) for _ in range(length)]
        pieces.append(choose.choice(_JOINS))
    # Peers know different versions of Unicode; 3.2 is known to all.
    known = unicodedata.ucd_3_2_0
    return "".join(
        character
        for character in "".join(pieces)
        if known.category(character) != "Cn" and character not in "\u2581"
    )


def digest(ids: Sequence[int]) -> str:
    """SHA-256 of token ids, as 32-bit little-endian numbers."""
    return hashlib.sha256(np.asarray(ids, "<u4").tobytes()).hexdigest()


def covered(text: str, missing: Iterable[int] = MISSING_BYTES) -> str:
    """The text without characters whose UTF-8 has one of these bytes."""
    lacking = set(missing)
    return "".join(character for character in text if not lacking & {*character.encode()})
