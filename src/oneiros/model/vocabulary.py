"""What a tokenizer is made of, whatever file it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from oneiros.errors import ModelFileError

SPACE = "\u2581"  # SentencePiece writes a space as this character, "lower one eighth block"

# Texts by which the known model families end a reply or a document. Files name one end token as a
# rule, and chat models use two: Llama 3 ends a turn with <|eot_id|> and a document with
# <|end_of_text|>.
_END_TEXTS = (
    "</s>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
)


class TokenKind(IntEnum):
    """What a token is; the numbers are those of GGUF and of SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# An int beside the enumeration's member: comparing with it costs a third, and loading a tokenizer
# compares 50,000 to 150,000 times.
NORMAL = int(TokenKind.NORMAL)
ADDED_KINDS = frozenset({TokenKind.UNKNOWN, TokenKind.CONTROL, TokenKind.USER_DEFINED})


class SpacePrefix(Enum):
    """Where SentencePiece's dummy prefix, one space, is put before a text."""

    NEVER = "never"
    FIRST = "first"  # only where the text opens the whole input
    ALWAYS = "always"  # there, and after every added token


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The definition of a byte-pair-encoding tokenizer.

    `pieces[i]` and `kinds[i]` belong to token id i. Byte-level pieces are written in GPT-2's
    alphabet, where each of 256 printable characters stands for one byte; SentencePiece's are
    plain text with U+2581 for the space, and its byte tokens are "<0x00>" to "<0xFF>".
    """

    pieces: Sequence[str]
    kinds: Sequence[int]  # TokenKind
    merges: Sequence[tuple[str, str]]  # best first
    byte_level: bool  # GPT-2's alphabet; else SentencePiece's
    pre_tokenizer: Mapping[str, object] | None  # as in tokenizer.json; None: no splitting
    ignore_merges: bool = False  # a word that is itself a token needs no merges (Llama 3)
    space_prefix: SpacePrefix = SpacePrefix.NEVER
    bos_id: int | None = None
    eos_id: int | None = None
    end_ids: frozenset[int] = frozenset()  # tokens that end a reply or a document
    add_bos: bool = False


def added_tokens(pieces: Sequence[str], kinds: Sequence[int]) -> dict[str, int]:
    """The added vocabulary, control tokens or not: text -> id."""
    others = [token_id for token_id, kind in enumerate(kinds) if kind != NORMAL]
    return {
        pieces[token_id]: token_id
        for token_id in others
        if kinds[token_id] in ADDED_KINDS and pieces[token_id]
    }


def end_ids(added: Mapping[str, int], named: Iterable[int | None]) -> frozenset[int]:
    """Ids that end a reply: those that the file names, and the known texts that it has."""
    known = {added[text] for text in _END_TEXTS if text in added}
    return frozenset(known | {token_id for token_id in named if token_id is not None})


def checked_id(value: object, size: int, what: str) -> int | None:
    """A token id as a file gives it, or None where it gives none.

    Raises:
        ModelFileError: it is not the id of one of `size` tokens.
    """
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < size:
        raise ModelFileError(f"{what} is {value!r}, and token ids run from 0 to {size - 1:,}.")
    return value
