"""SentencePiece's BPE models: the tokenizer.model file, and merges from scores.

The file is one protobuf message (sentencepiece_model.proto). The few fields that are needed are
read here, so that neither protobuf nor sentencepiece is a dependency. Unigram models and models
that normalise their text are refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.json_text import read_bounded
from oneiros.model.pretokenizers import SPACE_RUNS
from oneiros.model.vocabulary import (
    SPACE,
    SpacePrefix,
    TokenKind,
    Vocabulary,
    added_tokens,
    checked_id,
    end_ids,
)

# SentencePiece's own limit is 16 characters unless a trainer raises it; the work of finding the
# merges of a piece grows with the square of its length.
_LONGEST_PIECE = 256
_SPACE_INSIDE = re.compile(f"[^{SPACE}\n]{SPACE}")
_LARGEST_FILE = 64 << 20

# Field numbers of sentencepiece_model.proto.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_TEXT, _PIECE_SCORE, _PIECE_KIND = 1, 2, 3
_MODEL_TYPE, _SPACE_SUFFIX, _BOS_ID, _EOS_ID = 3, 24, 41, 42
_CHARACTER_MAP, _DUMMY_PREFIX, _COLLAPSE_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5
_BPE = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_Value = int | bytes


def sentencepiece_vocabulary(path: Path, add_bos: bool = True) -> Vocabulary:
    """The tokenizer in a tokenizer.model file.

    Args:
        path: the file.
        add_bos: whether texts start with the beginning-of-sequence token. The file does not say;
            models of this kind are trained with it.

    Raises:
        ModelFileError: the file cannot be read or is malformed.
        UnsupportedModelError: not BPE, or with a normalisation that changes the text.
    """
    message = _Message.parse(read_bounded(path, _LARGEST_FILE), path.name, 0)
    trainer = message.child(_TRAINER)
    normalizer = message.child(_NORMALIZER)
    _refuse_unsupported(path, trainer, normalizer)
    pieces: list[str] = []
    kinds: list[int] = []
    scores: list[float] = []
    for entry in message.children(_PIECES):
        pieces.append(entry.text(_PIECE_TEXT))
        scores.append(entry.number32(_PIECE_SCORE))
        kinds.append(entry.integer(_PIECE_KIND, TokenKind.NORMAL))
    if not pieces:
        raise ModelFileError(f"{path.name}: holds no pieces, so it is not a SentencePiece model.")
    # An id of -1, "there is none", is stored as a 64-bit two's complement.
    bos, eos = (
        None
        if number >> 63
        else checked_id(number, len(pieces), f"{path.name}: trainer field {field}")
        for field, default in ((_BOS_ID, 1), (_EOS_ID, 2))
        for number in [trainer.integer(field, default)]
    )
    prefixed = normalizer.integer(_DUMMY_PREFIX, 1) != 0
    return Vocabulary(
        pieces,
        kinds,
        scored_merges(pieces, kinds, scores),
        byte_level=False,
        pre_tokenizer=space_runs(pieces),
        space_prefix=SpacePrefix.ALWAYS if prefixed else SpacePrefix.NEVER,
        bos_id=bos,
        eos_id=eos,
        end_ids=end_ids(added_tokens(pieces, kinds), [eos]),
        add_bos=add_bos and bos is not None,
    )


def scored_merges(
    pieces: Sequence[str], kinds: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """The merges that a scored vocabulary implies, best first.

    SentencePiece joins the neighbours whose union has the highest score, the leftmost first.
    Ranked merges do the same where every pair that gives one piece follows that piece's score.
    Two pairs that give the same piece can overlap ("an" "a" "na" is "ana" twice), and the one
    that can stand further left has to rank first.

    Raises:
        ModelFileError: a piece is absurdly long.
    """
    normal = {
        piece: score
        for piece, kind, score in zip(pieces, kinds, scores, strict=True)
        if kind == TokenKind.NORMAL
    }
    merges = []
    for piece in sorted(normal, key=lambda piece: -normal[piece]):
        if len(piece) > _LONGEST_PIECE:
            raise ModelFileError(
                f"The vocabulary has a piece of {len(piece):,} characters. The file is damaged."
            )
        cuts = [
            cut
            for cut in range(len(piece) - 1, 0, -1)
            if piece[:cut] in normal and piece[cut:] in normal
        ]
        if len(cuts) > 1 and piece[0] in piece[1:]:
            cuts.sort(key=lambda cut: _stands_left(piece, cut), reverse=True)
        merges += [(piece[:cut], piece[cut:]) for cut in cuts]
    return merges


def _stands_left(piece: str, cut: int) -> bool:
    """Whether the pair at `cut` can overlap, from the left, the one that mirrors it."""
    return cut < len(piece) - cut and piece.startswith(piece[cut:])


def space_runs(pieces: Sequence[str]) -> Mapping[str, object] | None:
    """A pre-tokenizer that changes no token, or None where there is none."""
    return None if _SPACE_INSIDE.search("\n".join(pieces)) else SPACE_RUNS


def _refuse_unsupported(path: Path, trainer: _Message, normalizer: _Message) -> None:
    why = None
    if trainer.integer(_MODEL_TYPE, 1) != _BPE:
        why = "is not a BPE model (SentencePiece's unigram, word or char)"
    elif normalizer.raw(_CHARACTER_MAP) or normalizer.integer(_COLLAPSE_SPACES, 1):
        why = "normalises its text, so that texts do not come back as they were"
    elif trainer.integer(_SPACE_SUFFIX, 0) or not normalizer.integer(_ESCAPE_SPACES, 1):
        why = "does not write a space as a prefix U+2581"
    if why is not None:
        raise UnsupportedModelError(f"{path.name}: {why}. Such tokenizers are not supported.")


@dataclass(frozen=True, slots=True)
class _Message:
    """The fields of one protobuf message, by number, in the order of the file."""

    where: str
    fields: Mapping[int, list[tuple[int, _Value]]]  # number -> (byte in the file, value)

    @classmethod
    def parse(cls, data: bytes, where: str, start: int) -> _Message:
        fields: dict[int, list[tuple[int, _Value]]] = {}
        for number, position, value in _read_fields(data, where, start):
            fields.setdefault(number, []).append((position, value))
        return cls(where, fields)

    def children(self, field: int) -> Iterator[_Message]:
        for position, value in self.fields.get(field, []):
            if not isinstance(value, bytes):
                raise _malformed(self.where, position, f"field {field} is not a message")
            yield _Message.parse(value, self.where, position)

    def child(self, field: int) -> _Message:
        """The last such message, as protobuf takes it; an empty one where there is none."""
        return next(reversed([*self.children(field)]), _Message(self.where, {}))

    def integer(self, field: int, default: int) -> int:
        position, value = self.fields.get(field, [(0, default)])[-1]
        if not isinstance(value, int):
            raise _malformed(self.where, position, f"field {field} is not an integer")
        return value

    def raw(self, field: int) -> bytes:
        position, value = self.fields.get(field, [(0, b"")])[-1]
        if not isinstance(value, bytes):
            raise _malformed(self.where, position, f"field {field} is not a string")
        return value

    def text(self, field: int) -> str:
        try:
            return self.raw(field).decode()
        except UnicodeDecodeError as error:
            position = self.fields[field][-1][0]
            raise _malformed(self.where, position, f"field {field} is not UTF-8") from error

    def number32(self, field: int) -> float:
        position, value = self.fields.get(field, [(0, bytes(4))])[-1]
        if not isinstance(value, bytes) or len(value) != 4:
            raise _malformed(self.where, position, f"field {field} is not a 32-bit float")
        number: float = struct.unpack("<f", value)[0]
        if number != number:
            raise _malformed(self.where, position, f"field {field} is not a number")
        return number


def _read_fields(data: bytes, where: str, start: int) -> Iterator[tuple[int, int, _Value]]:
    """Field number, byte of the value in the file, and value; `data` starts at byte `start`."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position, where, start)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, after = _varint(data, position, where, start)
            yield number, start + position, value
            position = after
            continue
        if wire == _BYTES:
            size, position = _varint(data, position, where, start)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _malformed(where, start + position, f"field {number} has wire type {wire}")
        if size > len(data) - position:
            raise _malformed(where, start + position, f"field {number} ends after its message")
        yield number, start + position, data[position : position + size]
        position += size


def _varint(data: bytes, position: int, where: str, start: int) -> tuple[int, int]:
    number = 0
    for index, byte in enumerate(data[position : position + 10]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number & (1 << 64) - 1, position + index + 1
    raise _malformed(where, start + position, "a number does not end")


def _malformed(where: str, position: int, why: str) -> ModelFileError:
    return ModelFileError(
        f"{where}: at byte {position:,} {why}. The file is damaged or not a SentencePiece model."
    )
