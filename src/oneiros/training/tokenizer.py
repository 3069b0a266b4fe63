"""Training a tokenizer: byte-level byte-pair encoding (Sennrich et al. 2016, Radford et al. 2019).

Text is cut into words, numbers, symbols and spaces by Qwen2's pattern, which every engine knows
(each digit is a token of its own); the pairs of neighbours that are most frequent become tokens.
All 256 bytes are tokens, so that any text can be expressed. After them come the tokens that
structure conversations, which no text can produce.

rustbpe counts and merges, three times as fast as `tokenizers`; tiktoken encodes what is to be
trained on. Both give the ids that the engine's `Tokenizer`, `tokenizers` and llama.cpp give.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rustbpe
import tiktoken
from tokenizers.models import BPE

from oneiros.errors import TokenizationError, TrainingError
from oneiros.model.convert import write_json
from oneiros.model.pretokenizers import pre_tokenizer
from oneiros.model.replacement import refuse_existing, replacing_folder
from oneiros.model.tokenizer import Tokenizer, byte_alphabet
from oneiros.model.tokenizer_files import folder_tokenizer
from oneiros.model.vocabulary import NORMAL, TokenKind, Vocabulary
from oneiros.training.chat_markup import CHAT_TEMPLATE

END_OF_TEXT = "<|endoftext|>"
"""Opens and closes every document."""

SPECIAL_TOKENS = {
    END_OF_TEXT: TokenKind.CONTROL,
    "<|im_start|>": TokenKind.CONTROL,
    "<|im_end|>": TokenKind.CONTROL,
    # What a model writes and a reader should see: not hidden with the control tokens.
    "<tool_call>": TokenKind.USER_DEFINED,
    "</tool_call>": TokenKind.USER_DEFINED,
    "<tool_response>": TokenKind.USER_DEFINED,
    "</tool_response>": TokenKind.USER_DEFINED,
    "<think>": TokenKind.USER_DEFINED,
    "</think>": TokenKind.USER_DEFINED,
}
"""The added vocabulary, in the order of its ids: ChatML's, and those of tools and of thinking."""

SMALLEST = 256 + len(SPECIAL_TOKENS)

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""Texts -> the ids of each, without added tokens."""

_PRE_TOKENIZER = "qwen2"
_CHARACTER_OF = {data: character for character, data in byte_alphabet().items()}

# Long texts are handed over in pieces of about this many characters, which are counted on all
# cores. The pattern always cuts between a line's end and a letter, so the counts are the same.
_PIECE = 1 << 16
_CUT = re.compile(r"\n(?=[A-Za-z])")
_PIECES_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """What is to be trained."""

    vocabulary: int = 4096  # tokens in all: bytes, merges and special tokens

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            TrainingError: it leaves no room for the bytes and the special tokens.
        """
        if self.vocabulary < SMALLEST:
            raise TrainingError(
                f"A vocabulary of {self.vocabulary:,} tokens is too small: 256 bytes and "
                f"{len(SPECIAL_TOKENS)} special tokens take {SMALLEST} already."
            )


def train_tokenizer(documents: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Learn a vocabulary from texts. The same texts always give the same tokenizer.

    Args:
        documents: texts; they are read once, and not kept.
        config: what is wanted.

    Raises:
        TrainingError: there is no text, or too little for so many tokens, or a text holds half of
            a surrogate pair.
    """
    counting = _Counting(documents)
    trained = rustbpe.Tokenizer()
    trained.train_from_iterator(
        iter(counting),
        config.vocabulary - len(SPECIAL_TOKENS),
        buffer_size=_PIECES_AT_ONCE,
        pattern=_pattern(pre_tokenizer(_PRE_TOKENIZER).definition),
    )
    ranks: dict[bytes, int] = {bytes(token): rank for token, rank in trained.get_mergeable_ranks()}
    found = len(ranks) + len(SPECIAL_TOKENS)
    if not counting.characters:
        raise TrainingError("There is no text to learn a vocabulary from.")
    if found < config.vocabulary:
        raise TrainingError(
            f"The text ({counting.characters:,} characters) gives {found:,} tokens at most, and "
            f"{config.vocabulary:,} were asked for: ask for fewer, or add text."
        )
    return Tokenizer(_vocabulary(ranks))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, its settings and the chat template; the folder appears when whole.

    The engine, `tokenizers` and `transformers` load it, and so does every stage of training.

    Raises:
        ModelFileError: the folder holds something already, or cannot be written.
    """
    refuse_existing(folder)
    files = folder_tokenizer(tokenizer.vocabulary, CHAT_TEMPLATE)
    # Padding is masked wherever it is used; transformers only wants it to have a name.
    files["tokenizer_config.json"]["pad_token"] = END_OF_TEXT
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as temporary:
        for name, content in files.items():
            write_json(temporary / name, content)


def bytes_per_token(tokenizer: Tokenizer, documents: Iterable[str], most: int) -> float:
    """How much text a token stands for: over the first `most` characters of the documents."""
    texts: list[str] = []
    for text in documents:
        texts.append(text[:most])
        most -= len(texts[-1])
        if most <= 0:
            break
    tokens = sum(map(len, fast_encoder(tokenizer)(texts)))
    return sum(len(text.encode()) for text in texts) / max(1, tokens)


def fast_encoder(tokenizer: Tokenizer) -> Encode:
    """The ids that `tokenizer.encode` gives, several times as fast, for many texts.

    tiktoken does it where that is known to be the same: byte-level vocabularies with all bytes,
    cut by one pattern, whose merges make one token each in the order of their ids. Others are
    encoded by the tokenizer itself.

    The function raises TokenizationError as `encode` does.
    """
    pattern = _pattern(tokenizer.vocabulary.pre_tokenizer)
    ranks = _ranks(tokenizer.vocabulary)
    if pattern is None or ranks is None:
        return lambda texts: [tokenizer.encode(text) for text in texts]
    # Without special tokens it has nothing to take a text for.
    encoding = tiktoken.Encoding(
        "oneiros", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    )

    def encode(texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            _check_unicode(text)
        # Threads were measured to make it slower: for texts of usual length they wait for the GIL.
        return [encoding.encode_ordinary(text) for text in texts]

    return encode


class _Counting:
    """Texts in pieces, counted as they pass."""

    def __init__(self, documents: Iterable[str]) -> None:
        self._documents = documents
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for number, text in enumerate(self._documents, 1):
            try:
                _check_unicode(text)
            except TokenizationError as error:
                raise TrainingError(f"Document {number:,}: {error}") from error
            self.characters += len(text)
            begin = 0
            while len(text) - begin > _PIECE:
                cut = _CUT.search(text, begin + _PIECE)
                if cut is None:
                    break
                yield text[begin : cut.end()]
                begin = cut.end()
            yield text[begin:]


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizationError(
            f"The text holds half of a surrogate pair (U+{ord(text[error.start]):04X}) at offset "
            f"{error.start:,}, which is no character. Remove or replace it."
        ) from error


def _vocabulary(ranks: Mapping[bytes, int]) -> Vocabulary:
    """The definition of a trained tokenizer; ranks are token ids."""
    tokens = sorted(ranks, key=lambda token: ranks[token])
    merges = [_halves(token, ranks) for token in tokens if len(token) > 1]
    pieces = [_written(token) for token in tokens]
    specials = {text: len(tokens) + index for index, text in enumerate(SPECIAL_TOKENS)}
    return Vocabulary(
        [*pieces, *specials],
        [*[NORMAL] * len(pieces), *map(int, SPECIAL_TOKENS.values())],
        [(_written(left), _written(right)) for left, right in merges],
        byte_level=True,
        pre_tokenizer=pre_tokenizer(_PRE_TOKENIZER).definition,
        bos_id=specials[END_OF_TEXT],
        eos_id=specials[END_OF_TEXT],
        end_ids=frozenset({specials[END_OF_TEXT], specials["<|im_end|>"]}),
        add_bos=True,
    )


def _written(token: bytes) -> str:
    """A token in GPT-2's alphabet."""
    return "".join(_CHARACTER_OF[bytes([byte])] for byte in token)


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge makes this one: what all the merges before it leave."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        known = [
            (ranks[left + right], index)
            for index, (left, right) in enumerate(itertools.pairwise(parts))
            if left + right in ranks
        ]
        _, index = min(known)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    left, right = parts
    return left, right


def _pattern(definition: Mapping[str, object] | None) -> str | None:
    """The pattern of a pre-tokenizer that cuts by one pattern and changes to GPT-2's alphabet."""
    match definition:
        case {
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "use_regex": False},
            ]
        }:
            return pattern
    return None


def _ranks(vocabulary: Vocabulary) -> dict[bytes, int] | None:
    """tiktoken's form of a vocabulary, or None where merging by rank could give other ids.

    tiktoken merges any neighbours that make a token, a list of merges only the pairs in it. These
    are the same where each token comes from one merge, in the order of the ids, and is what the
    merges make of its own bytes.
    """
    if not vocabulary.byte_level:
        return None
    content = {
        piece: token_id
        for token_id, (piece, kind) in enumerate(
            zip(vocabulary.pieces, vocabulary.kinds, strict=True)
        )
        if kind == NORMAL
    }
    made = [content.get(left + right, -1) for left, right in vocabulary.merges]
    if (
        not content.keys() >= set(_CHARACTER_OF.values())
        or made != sorted({*made})
        or len(content) != 256 + len(made)
    ):
        return None
    merging = BPE(content, [*vocabulary.merges])
    if any(
        [token.id for token in merging.tokenize(piece)] != [content[piece]] for piece in content
    ):
        return None
    bytes_of = byte_alphabet()
    return {b"".join(map(bytes_of.__getitem__, piece)): content[piece] for piece in content}
