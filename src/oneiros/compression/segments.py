"""Any bytes as segments: text that a vocabulary expresses, and raw bytes for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from oneiros.errors import TokenizationError

SHORTEST_TEXT = 12
"""Bytes. Leaving and re-entering text costs about 20 bits, and in random bytes a shorter run that
looks like text is chance, which the model would find hard to predict."""

LONGEST_PIECE = 1 << 16
"""Bytes that are tokenised at once."""

# UTF-8 (Unicode 15, table 3-7) without the control characters other than tab and line ends: they
# mean binary data, and what a language model knows about them is not worth its time.
_TEXT = re.compile(
    rb"""(?:
      [\t\n\r\x20-\x7e]++
    | [\xc2-\xdf][\x80-\xbf]
    | \xe0[\xa0-\xbf][\x80-\xbf]
    | [\xe1-\xec\xee\xef][\x80-\xbf]{2}
    | \xed[\x80-\x9f][\x80-\xbf]
    | \xf0[\x90-\xbf][\x80-\xbf]{2}
    | [\xf1-\xf3][\x80-\xbf]{3}
    | \xf4[\x80-\x8f][\x80-\xbf]{2}
    )++""",
    re.VERBOSE,
)


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive bytes of the input."""

    data: bytes
    token_ids: Sequence[int] | None  # None: raw; else their bytes, joined, are `data`


class Segmenter:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._expressible: dict[str, bool] = {}

    def split(self, data: bytes) -> Iterator[Segment]:
        """Segments that join to `data`; raw ones never follow each other."""
        raw_start = 0
        for start, end in self._text_spans(data):
            if end - start < SHORTEST_TEXT and end - start < len(data):
                continue
            position = start
            while position < end:
                piece = _piece(data, position, end)
                token_ids = self._tokens(piece)
                if token_ids is not None:
                    if raw_start < position:
                        yield Segment(data[raw_start:position], None)
                    yield Segment(piece, token_ids)
                    raw_start = position + len(piece)
                position += len(piece)
        if raw_start < len(data):
            yield Segment(data[raw_start:], None)

    def _text_spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Longest runs of valid characters that the vocabulary covers."""
        for match in _TEXT.finditer(data):
            start = match.start()
            text = match.group().decode("utf-8")
            strange = {character for character in set(text) if not self._covers(character)}
            if not strange:
                yield match.span()
                continue
            for run in re.split(f"([{re.escape(''.join(strange))}])", text):
                end = start + len(run.encode("utf-8"))
                if run and run not in strange:
                    yield start, end
                start = end

    def _covers(self, character: str) -> bool:
        known = self._expressible.get(character)
        if known is None:
            known = self._tokens(character.encode("utf-8")) is not None
            self._expressible[character] = known
        return known

    def _tokens(self, data: bytes) -> list[int] | None:
        """Token ids whose bytes join to exactly `data`, if there are any."""
        text = data.decode("utf-8")
        try:
            token_ids = self._vocabulary.encode(text)
            if self._join(token_ids) == data:
                return token_ids
            # SentencePiece vocabularies start every text with a space that is not there. Behind
            # a line break it is easily cut off again.
            token_ids = self._vocabulary.encode("\n" + text)
        except TokenizationError:
            return None
        lead = b""
        while token_ids and not lead.endswith(b"\n"):
            lead += self._vocabulary.token_bytes(token_ids.pop(0))
        return token_ids if self._join(token_ids) == data else None

    def _join(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(map(self._vocabulary.token_bytes, token_ids))


def _piece(data: bytes, start: int, end: int) -> bytes:
    """The next bytes to tokenise at once: they end after a line or a word if one ends there."""
    if end - start <= LONGEST_PIECE:
        return data[start:end]
    limit = start + LONGEST_PIECE
    for mark in (b"\n", b" "):
        cut = data.rfind(mark, start, limit)
        if cut > start:
            # A space belongs to the word behind it.
            return data[start : cut + (mark == b"\n")]
    while data[limit] & 0xC0 == 0x80:
        limit -= 1
    return data[start:limit]
