"""Text to token ids and back.

Content is tokenised without the added vocabulary: no text, whatever it says, becomes a control
token. The tokens that merging works with do not hold the added ones, so this needs no escaping
and has no exception. Nothing is normalised, and what the vocabulary cannot express is an error:
`decode(encode(text)) == text` for every text that is accepted.

Merging is done by the `tokenizers` library, on the vocabulary as the model's file has it.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers.models import BPE

from oneiros.errors import ModelFileError, TokenizationError
from oneiros.model.parameters import Parameters
from oneiros.model.sentencepiece import sentencepiece_vocabulary
from oneiros.model.tokenizer_gguf import gguf_vocabulary
from oneiros.model.tokenizer_json import json_vocabulary, read_settings
from oneiros.model.vocabulary import (
    ADDED_KINDS,
    NORMAL,
    SPACE,
    SpacePrefix,
    TokenKind,
    Vocabulary,
    added_tokens,
)

# The library's thread pool would compete with the engine's threads, for calls that hand it one
# text each, and it warns on standard error when a process that has used it forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Tokenizer:
    """A byte-pair-encoding tokenizer.

    Attributes:
        vocabulary_size: ids run from 0 to this, the padding of the embedding included.
        bos_id: begins a text, or None.
        eos_id: ends a text, or None.
        end_ids: all ids that end a reply or a text.
        add_bos: whether a raw text starts with `bos_id`.
        added_tokens: the added vocabulary, control tokens or not: text -> id.
        vocabulary: the definition that all this comes from.
    """

    def __init__(self, vocabulary: Vocabulary, vocabulary_size: int | None = None) -> None:
        """Prepare a vocabulary; `vocabulary_size` is that of the model, which may be padded.

        Raises:
            ModelFileError: the vocabulary is inconsistent, or larger than the model's.
        """
        self.vocabulary = vocabulary
        count = len(vocabulary.pieces)
        self.vocabulary_size = count if vocabulary_size is None else vocabulary_size
        if count > self.vocabulary_size:
            raise ModelFileError(
                f"The tokenizer has {count:,} tokens and the model {self.vocabulary_size:,}."
            )
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.end_ids = vocabulary.end_ids
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        self.added_tokens: Mapping[str, int] = added_tokens(vocabulary.pieces, vocabulary.kinds)
        self._content = _content_tokens(vocabulary)
        self._merging = _merging(vocabulary, self._content)
        self._byte_ids = _byte_ids(vocabulary, self._content)
        self._covered: set[str] = set()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that opens an input; never an added token.

        Raises:
            TokenizationError: the vocabulary cannot express a character.
        """
        return self._encode(text, opens=True, follows_added=False)

    def encode_parts(self, parts: Iterable[str | int], *, opens: bool = True) -> list[int]:
        """Token ids of texts and added tokens in turn, as a chat format puts them together.

        `opens`: the first part opens an input, rather than continuing a text.

        Raises:
            TokenizationError: as `encode`; the offset is that in the part.
        """
        ids: list[int] = []
        follows_added = False
        for part in parts:
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._encode(part, opens, follows_added)
            opens, follows_added = False, isinstance(part, int)
        return ids

    def prompt_ids(self, text: str) -> list[int]:
        """How a raw text starts: `bos_id` where the model wants it, then the text."""
        start = [self.bos_id] if self.add_bos and self.bos_id is not None else []
        return start + self.encode(text)

    def expressible(self, text: str) -> str:
        """The text with U+FFFD, or else "?", in the place of what the vocabulary cannot express."""
        lacking = {one for one in set(text) - self._covered if not self._covers(one)}
        if not lacking:
            return text
        instead = next(filter(self._covers, ("\ufffd", "?")), "")
        return text.translate(dict.fromkeys(map(ord, lacking), instead))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids that open an input; invalid UTF-8 becomes U+FFFD.

        The inverse of `encode`: SentencePiece's dummy prefix is taken off. For the text that
        continues another use `TextStream`.
        """
        stream = TextStream(self, opens=True)
        return "".join(map(stream.push, ids)) + stream.flush()

    @cached_property
    def sha256(self) -> str:
        """What identifies the ids: of the pieces, their kinds, and the merges."""
        vocabulary = self.vocabulary
        definition = [[*vocabulary.pieces], [*map(int, vocabulary.kinds)], [*vocabulary.merges]]
        return hashlib.sha256(json.dumps(definition).encode()).hexdigest()

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; of an added token, its text as UTF-8.

        Unused ids and the padding of the embedding stand for nothing.

        Raises:
            IndexError: there is no such id.
        """
        if not 0 <= token_id < self.vocabulary_size:
            raise IndexError(f"token id {token_id} of {self.vocabulary_size}")
        if token_id >= len(self.vocabulary.pieces):
            return b""
        piece, kind = self.vocabulary.pieces[token_id], self.vocabulary.kinds[token_id]
        if kind in ADDED_KINDS:
            return piece.encode()
        if kind == TokenKind.BYTE:
            return bytes([_byte_value(piece)])
        if kind != TokenKind.NORMAL:
            return b""
        if self.vocabulary.byte_level:
            return b"".join(_BYTES_OF.get(character) or character.encode() for character in piece)
        return piece.replace(SPACE, " ").encode()

    def token_text(self, token_id: int) -> str:
        """A token for people: incomplete UTF-8 and control characters as escapes."""
        text = self.token_bytes(token_id).decode("utf-8", "backslashreplace")
        return "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in text
        )

    def is_added(self, token_id: int) -> bool:
        """Whether the id belongs to the added vocabulary."""
        return (
            0 <= token_id < len(self.vocabulary.kinds)
            and self.vocabulary.kinds[token_id] in ADDED_KINDS
        )

    def _takes_prefix(self, opens: bool, follows_added: bool) -> bool:
        """Whether a text at this place gets a space before it (SentencePiece's dummy prefix)."""
        prefix = self.vocabulary.space_prefix
        return (opens and prefix is not SpacePrefix.NEVER) or (
            follows_added and prefix is SpacePrefix.ALWAYS
        )

    def _encode(self, text: str, opens: bool, follows_added: bool) -> list[int]:
        if not text:
            return []
        self._check_covered(text)
        if self.vocabulary.byte_level:
            return self._merge(text)
        if self._takes_prefix(opens, follows_added):
            text = " " + text
        # A U+2581 of the text itself would come back as a space; its bytes come back as it.
        literal = [self._byte_ids[byte] for byte in SPACE.encode()] if SPACE in text else []
        ids: list[int] = []
        for index, part in enumerate(text.split(SPACE)):
            escaped = part.replace(" ", SPACE)
            ids += literal if index else []
            ids += self._merge(escaped)
        return ids

    def _merge(self, text: str) -> list[int]:
        # The batch call is the one without offsets, which take a third of the time.
        return self._merging.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def _check_covered(self, text: str) -> None:
        characters = set(text)
        if characters <= self._covered:
            return
        for character in characters - self._covered:
            if not self._covers(character):
                offset = min(text.index(other) for other in characters if not self._covers(other))
                raise _not_covered(text[offset], offset)
        self._covered |= characters

    def _covers(self, character: str) -> bool:
        if "\ud800" <= character <= "\udfff":
            return False
        plain = not self.vocabulary.byte_level and character != SPACE
        if plain and (character == " " or character in self._content):
            return True
        return all(byte in self._byte_ids for byte in character.encode())


class TextStream:
    """Token ids to text, one at a time, only ever whole characters.

    What `push` and `flush` return, put together, is the text of all the ids: bytes that are no
    UTF-8 come out as U+FFFD, and none are lost.
    """

    def __init__(self, tokenizer: Tokenizer, *, opens: bool = False) -> None:
        """`opens`: the ids open an input, so that a dummy prefix is taken off its text."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._opens, self._follows_added = opens, False

    def push(self, token_id: int) -> str:
        """The characters that this token completes; "" while one is incomplete."""
        added = self._tokenizer.is_added(token_id)
        data = self._tokenizer.token_bytes(token_id)
        if not added and self._tokenizer._takes_prefix(self._opens, self._follows_added):
            data = data.removeprefix(b" ")
        self._opens, self._follows_added = False, added
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left of an incomplete character, as U+FFFD; the stream can go on after it."""
        return self._decoder.decode(b"", final=True)


def load_tokenizer(parameters: Parameters) -> Tokenizer:
    """The tokenizer of a GGUF file, or the tokenizer.json or tokenizer.model of a folder.

    Raises:
        ModelFileError: there is none, or it is malformed, or does not fit the model.
        UnsupportedModelError: it is of a kind that is not supported.
    """
    size = parameters.architecture.vocabulary
    if not parameters.path.is_dir():
        return tokenizer_from_gguf(parameters.metadata, size)
    for name, load in (
        ("tokenizer.json", tokenizer_from_json),
        ("tokenizer.model", tokenizer_from_sentencepiece),
    ):
        if (parameters.path / name).exists():
            return load(parameters.path / name, size)
    raise ModelFileError(
        f"{parameters.path}: has neither tokenizer.json nor tokenizer.model beside config.json."
    )


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Pause the garbage collector: it looks through each of 100,000 new tuples again and again.

    That is half of the time of loading a tokenizer, and none of them is garbage.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collections()
def tokenizer_from_gguf(
    metadata: Mapping[str, object], vocabulary_size: int | None = None
) -> Tokenizer:
    """The tokenizer that GGUF metadata defines; see `gguf_vocabulary` for the errors."""
    return Tokenizer(gguf_vocabulary(metadata), vocabulary_size)


@_without_collections()
def tokenizer_from_json(path: Path, vocabulary_size: int | None = None) -> Tokenizer:
    """The tokenizer of a tokenizer.json; see `json_vocabulary` for the errors."""
    return Tokenizer(json_vocabulary(path), vocabulary_size)


@_without_collections()
def tokenizer_from_sentencepiece(path: Path, vocabulary_size: int | None = None) -> Tokenizer:
    """The tokenizer of a tokenizer.model; see `sentencepiece_vocabulary` for the errors."""
    vocabulary = sentencepiece_vocabulary(path)
    says = read_settings(path.parent, "tokenizer_config.json").get("add_bos_token")
    if isinstance(says, bool):
        vocabulary = replace(vocabulary, add_bos=says)
    return Tokenizer(vocabulary, vocabulary_size)


def _content_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """The tokens that text can become: without the added vocabulary and unused ids."""
    content = dict(zip(vocabulary.pieces, range(len(vocabulary.pieces)), strict=True))
    for token_id, kind in enumerate(vocabulary.kinds):
        if kind == NORMAL or (kind == TokenKind.BYTE and not vocabulary.byte_level):
            continue
        content.pop(vocabulary.pieces[token_id], None)
    return content


def _merging(vocabulary: Vocabulary, content: dict[str, int]) -> tokenizers.Tokenizer:
    """The merging machine over the content tokens."""
    if not vocabulary.byte_level and SPACE not in content:
        raise ModelFileError("The vocabulary has no piece for the space (U+2581).")
    shell: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": vocabulary.pre_tokenizer,
        "model": {"type": "BPE", "vocab": {}, "merges": []},
    }
    # The library raises nothing narrower than Exception for a definition that it does not take.
    try:
        merging = tokenizers.Tokenizer.from_str(json.dumps(shell))
    except Exception as error:
        raise ModelFileError(f"The pre-tokenizer's definition is damaged: {error}.") from error
    merging.model = _model(vocabulary, content, [*vocabulary.merges])
    return merging


def _model(vocabulary: Vocabulary, content: dict[str, int], merges: list[tuple[str, str]]) -> BPE:
    try:
        return BPE(
            content,
            merges,
            # A byte token's name, "<0x0A>", is no word of its own.
            ignore_merges=vocabulary.ignore_merges and vocabulary.byte_level,
            byte_fallback=not vocabulary.byte_level,
        )
    except Exception as error:
        # A merge of or into a token that text must not become is as if it were not there. Such
        # merges are rare: it is faster to have the library find one than to look for them.
        usable = [
            (left, right)
            for left, right in merges
            if left + right in content and left in content and right in content
        ]
        if len(usable) == len(merges):
            raise ModelFileError(f"The tokenizer's vocabulary is damaged: {error}.") from error
        return _model(vocabulary, content, usable)


def byte_alphabet() -> dict[str, bytes]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, other bytes for U+0100 and up."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    own = {chr(byte): bytes([byte]) for byte in printable}
    return own | {chr(0x100 + index): bytes([byte]) for index, byte in enumerate(others)}


_BYTES_OF = byte_alphabet()


def _byte_ids(vocabulary: Vocabulary, content: Mapping[str, int]) -> dict[int, int]:
    """The tokens that stand for one byte each: byte -> id."""
    if vocabulary.byte_level:
        return {
            byte[0]: content[character]
            for character, byte in _BYTES_OF.items()
            if character in content
        }
    return {
        _byte_value(piece): token_id
        for token_id, (piece, kind) in enumerate(
            zip(vocabulary.pieces, vocabulary.kinds, strict=True)
        )
        if kind == TokenKind.BYTE
    }


_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")


def _byte_value(piece: str) -> int:
    """The byte that a piece "<0xE2>" names."""
    if _BYTE_PIECE.fullmatch(piece):
        return int(piece[3:5], 16)
    raise ModelFileError(f'The byte token {piece!r} is not of the form "<0x00>".')


def _not_covered(character: str, offset: int) -> TokenizationError:
    return TokenizationError(
        f"The model's vocabulary cannot express the character {character!r} "
        f"(U+{ord(character):04X}) at offset {offset:,} of the text. Remove or replace it."
    )
