"""The two files that a language model is: its parameters, and a C program that runs them.

`export` writes `model.bin` and copies `run.c` beside it. `model.bin` is little-endian; its parts
follow each other without gaps, and only what `run.c` needs is in it:

====================  ==========================================================================
header                104 bytes: "ONEIROS", zero, then the fields of `_HEADER` in their order
frequencies           float32[head_dim / 2], radians per position of each rotated pair
prefix, suffix        int32[...] each: tokens of a chat before and after the text with the user's
                      words
stops                 int32[...]: tokens that end a reply
byte tokens           int32[256]: the token of each byte, -1 where there is none
character classes     (first, last, class)[...] uint32, by code point: 1 letter, 2 number, 3 space
merges                (left, right, rank, result)[...] int32, sorted by left and right
pieces                int32[...]: tokens that text may become, in the order of their bytes
text offsets          uint32[vocabulary + 1], then the bytes of all tokens
before, after         bytes of a chat that stand next to the user's words, which are tokenised with
                      them; and zeros up to a multiple of 8
matrices              (type, rows, columns, 0) int32 and an uint64 offset into the file, for each
                      of `_MODEL_TENSORS`, and of `_LAYER_TENSORS` in every layer; all zero where
                      the model has none. A vector is one row. Types are GGUF's numbers
data                  the matrices as the model's file stores them, at multiples of 64
====================  ==========================================================================
"""

from __future__ import annotations

import struct
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import rope_frequencies
from oneiros.model.chat_format import ChatFormat, load_chat_format
from oneiros.model.parameters import Parameters, Tensor
from oneiros.model.pretokenizers import pre_tokenizer
from oneiros.model.replacement import replacing_file
from oneiros.model.tokenizer import TextStream, Tokenizer, load_tokenizer
from oneiros.model.vocabulary import SpacePrefix, TokenKind

_VERSION = 1
_ALIGNMENT = 64
# version, layers, width, heads, kv_heads, head_dim, ffn_width, vocabulary, context,
# rope_interleaved; rms_epsilon; splitter, characters, space_prefix, whole_words, bos, and the
# numbers of prefix and suffix tokens, of bytes before and after, of stops, classes, merges, pieces.
_HEADER = struct.Struct("<8s10if13i")
_MATRIX = struct.Struct("<4iQ")
_MODEL_TENSORS = ("token_embd.weight", "output_norm.weight", "output.weight")
_LAYER_TENSORS = (
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
)
_WHOLE_TEXT = 0
_SPLITTERS = {"gpt-2": 1, "smollm": 2, "llama-bpe": 3, "qwen2": 4}  # piece_end in run.c
_SPACE_PREFIXES = {SpacePrefix.NEVER: 0, SpacePrefix.FIRST: 1, SpacePrefix.ALWAYS: 2}
_LETTER, _NUMBER, _SPACE = 1, 2, 3
_SPACES = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | frozenset(
    map(chr, range(0x2000, 0x200B))
)


@dataclass(frozen=True, slots=True)
class _ChatTurn:
    """A chat of one message: tokens, text around the user's words, tokens."""

    prefix: list[int]
    before: bytes
    after: bytes
    suffix: list[int]


@dataclass(frozen=True, slots=True)
class _TextTables:
    """How text becomes tokens and back, as `run.c` reads it."""

    splitter: int  # how text is cut before merging
    byte_tokens: NDArray[np.int32]  # (256,)
    merges: NDArray[np.int32]  # (merges, 4)
    pieces: NDArray[np.int32]  # (pieces,)
    texts: list[bytes]  # of every token


@dataclass(frozen=True, slots=True)
class Exported:
    """The two files of a model."""

    model: Path  # model.bin
    program: Path  # run.c
    answers: bool  # whether the program can answer as the assistant, or only continue texts


def export(parameters: Parameters, directory: Path) -> Exported:
    """Write a model as `model.bin` and `run.c` into a directory, which is made if need be.

    Files of these names are replaced.

    Raises:
        UnsupportedModelError: `run.c` does not know how this model's tokenizer cuts text.
        ModelFileError: the tokenizer cannot be read, or the files cannot be written.
    """
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    turn = None if chat_format is None else _chat_turn(tokenizer, chat_format)
    stops = tokenizer.end_ids | (frozenset() if chat_format is None else chat_format.stop_ids)
    head = _head(parameters, tokenizer, turn or _ChatTurn([], b"", b"", []), stops)
    matrices = [parameters.tensors.get(name) for name in _matrix_names(parameters)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"{directory}: cannot be made ({error.strerror}).") from error
    program, model = directory / "run.c", directory / "model.bin"
    with replacing_file(program) as file:
        file.write(resources.files("oneiros.model").joinpath("run.c").read_bytes())
    with replacing_file(model) as file:
        file.write(head)
        _write_matrices(file, matrices)
    return Exported(model, program, turn is not None)


def _head(
    parameters: Parameters,
    tokenizer: Tokenizer,
    turn: _ChatTurn,
    stops: frozenset[int],
) -> bytes:
    """All that comes before the table of matrices."""
    architecture, vocabulary = parameters.architecture, tokenizer.vocabulary
    tables = _text_tables(tokenizer)
    classes = np.array(list(_character_classes()), dtype="<u4")
    header = _HEADER.pack(
        b"ONEIROS",
        _VERSION,
        architecture.layers,
        architecture.width,
        architecture.heads,
        architecture.kv_heads,
        architecture.head_dim,
        architecture.ffn_width,
        architecture.vocabulary,
        architecture.context,
        architecture.rope_interleaved,
        architecture.rms_epsilon,
        tables.splitter,
        not vocabulary.byte_level,
        _SPACE_PREFIXES[vocabulary.space_prefix],
        vocabulary.ignore_merges,
        tokenizer.bos_id if tokenizer.add_bos and tokenizer.bos_id is not None else -1,
        len(turn.prefix),
        len(turn.suffix),
        len(turn.before),
        len(turn.after),
        len(stops),
        len(classes),
        len(tables.merges),
        len(tables.pieces),
    )
    factors = parameters.tensors.get("rope_freqs.weight")
    frequencies = rope_frequencies(architecture, None if factors is None else factors.float32())
    offsets = np.cumsum([0, *map(len, tables.texts)], dtype=np.uint32)
    head = b"".join(
        (
            header,
            frequencies.astype("<f4").tobytes(),
            np.array([*turn.prefix, *turn.suffix, *sorted(stops)], dtype="<i4").tobytes(),
            tables.byte_tokens.astype("<i4").tobytes(),
            classes.tobytes(),
            tables.merges.astype("<i4").tobytes(),
            tables.pieces.astype("<i4").tobytes(),
            offsets.astype("<u4").tobytes(),
            *tables.texts,
            turn.before,
            turn.after,
        )
    )
    return head + bytes(-len(head) % 8)


def _matrix_names(parameters: Parameters) -> Iterator[str]:
    """The tensors' names in the order of the table of matrices."""
    yield from _MODEL_TENSORS
    for layer in range(parameters.architecture.layers):
        yield from (f"blk.{layer}.{name}" for name in _LAYER_TENSORS)


def _write_matrices(file: BinaryIO, matrices: Sequence[Tensor | None]) -> None:
    """Write the table of matrices at the file's position, and their data behind it."""
    offset = file.tell() + _MATRIX.size * len(matrices)
    places = []
    for tensor in matrices:
        if tensor is None:
            file.write(bytes(_MATRIX.size))
            continue
        offset += -offset % _ALIGNMENT
        rows, columns = tensor.shape if len(tensor.shape) == 2 else (1, *tensor.shape)
        file.write(_MATRIX.pack(tensor.type, rows, columns, 0, offset))
        places.append((offset, tensor))
        offset += tensor.data.nbytes
    for offset, tensor in places:
        file.write(bytes(offset - file.tell()))
        file.write(tensor.data.data)


def _text_tables(tokenizer: Tokenizer) -> _TextTables:
    vocabulary = tokenizer.vocabulary
    texts = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocabulary_size)]
    plain = [token_id for token_id, kind in enumerate(vocabulary.kinds) if kind == TokenKind.NORMAL]
    ids = {vocabulary.pieces[token_id]: token_id for token_id in plain}
    merges = [
        (ids[left], ids[right], rank, ids[left + right])
        for rank, (left, right) in enumerate(vocabulary.merges)
        if left in ids and right in ids and left + right in ids
    ]
    byte_tokens = np.full(256, -1, dtype=np.int32)
    for token_id, kind in enumerate(vocabulary.kinds):
        if kind == TokenKind.BYTE:
            byte_tokens[texts[token_id][0]] = token_id
    if vocabulary.byte_level:
        for token_id in plain:
            if len(texts[token_id]) == 1:
                byte_tokens[texts[token_id][0]] = token_id
    return _TextTables(
        _splitter(vocabulary.pre_tokenizer) if vocabulary.byte_level else _WHOLE_TEXT,
        byte_tokens,
        np.array(sorted(merges), dtype=np.int32).reshape(-1, 4),
        np.array(sorted(plain, key=texts.__getitem__), dtype=np.int32),
        texts,
    )


def _splitter(definition: Mapping[str, object] | None) -> int:
    """The number that `run.c` gives a pre-tokenizer, which is defined as in a tokenizer.json."""
    cuts = _cuts(definition)
    for name, number in _SPLITTERS.items():
        if cuts == _cuts(pre_tokenizer(name).definition):
            return number
    raise UnsupportedModelError(
        "run.c cuts text before merging as GPT-2, SmolLM, Llama 3 and Qwen2 do, and this model's "
        "tokenizer has another pre-tokenizer: the model cannot be exported."
    )


def _cuts(step: Mapping[str, object] | None) -> list[str]:
    """What a pre-tokenizer does to the borders of words, without what makes no difference."""
    if step is None:
        return []
    steps = step.get("pretokenizers")
    if isinstance(steps, list):
        return [cut for inner in steps for cut in _cuts(inner)]
    if step["type"] == "ByteLevel":
        cuts = ["prefix"] if step.get("add_prefix_space") else []
        return [*cuts, "words"] if step.get("use_regex", True) else cuts
    keys = ("type", "pattern", "behavior", "invert", "individual_digits")
    return [" ".join(str(step.get(key)) for key in keys)]


def _chat_turn(tokenizer: Tokenizer, chat_format: ChatFormat) -> _ChatTurn | None:
    """Where the user's words go in a chat of one message.

    None where a template does more with them than to put them into its own text.
    """
    samples = ("Why is the sky blue?", "tell me 3 things")
    turns = [chat_format.render([{"role": "user", "content": text}]) for text in samples]
    parts = _parts(tokenizer, turns[0])
    places = [i for i, part in enumerate(parts) if isinstance(part, str) and samples[0] in part]
    if len(places) != 1:
        return None
    prefix, suffix = parts[: places[0]], parts[places[0] + 1 :]
    before, _, after = str(parts[places[0]]).partition(samples[0])
    for text, turn in zip(samples, turns, strict=True):
        if turn != tokenizer.encode_parts([*prefix, before + text + after, *suffix]):
            return None
    first = len(tokenizer.encode_parts(prefix))
    last = len(tokenizer.encode_parts([*prefix, before + samples[0] + after]))
    return _ChatTurn(turns[0][:first], before.encode(), after.encode(), turns[0][last:])


def _parts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str | int]:
    """Added tokens, and the texts between them."""
    stream = TextStream(tokenizer, opens=True)
    parts: list[str | int] = []
    for token_id in ids:
        text = stream.push(token_id)
        if tokenizer.is_added(token_id):
            parts.append(token_id)
        elif parts and isinstance(parts[-1], str):
            parts[-1] += text
        else:
            parts.append(text)
    return parts


def _character_classes() -> Iterator[tuple[int, int, int]]:
    """(first, last, class) of every run of letters, numbers or white space, by code point."""
    first, previous = 0, 0
    for code in range(sys.maxunicode + 2):
        this = _character_class(code) if code <= sys.maxunicode else 0
        if this != previous:
            if previous:
                yield first, code - 1, previous
            first, previous = code, this


def _character_class(code: int) -> int:
    character = chr(code)
    if character in _SPACES:
        return _SPACE
    return {"L": _LETTER, "N": _NUMBER}.get(unicodedata.category(character)[0], 0)
