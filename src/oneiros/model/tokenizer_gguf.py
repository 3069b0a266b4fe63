"""Tokenizers from GGUF metadata (the keys tokenizer.ggml.*)."""

from __future__ import annotations

from collections.abc import Mapping

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import OTHER_ENGINE
from oneiros.model.gguf import GGUFArray
from oneiros.model.pretokenizers import pre_tokenizer
from oneiros.model.sentencepiece import scored_merges, space_runs
from oneiros.model.vocabulary import (
    SpacePrefix,
    TokenKind,
    Vocabulary,
    added_tokens,
    checked_id,
    end_ids,
)

_PREFIX = "tokenizer.ggml."
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def gguf_vocabulary(metadata: Mapping[str, object]) -> Vocabulary:
    """The tokenizer that GGUF metadata defines: "gpt2" (byte-level) or "llama" (SentencePiece).

    Raises:
        ModelFileError: keys are missing, or of the wrong type or length.
        UnsupportedModelError: another kind of tokenizer, or an unknown pre-tokenizer.
    """
    model = metadata.get(_PREFIX + "model")
    if model == "gpt2":
        return _byte_level(metadata)
    if model == "llama":
        return _sentencepiece(metadata)
    if model is None:
        raise ModelFileError(f'The file has no tokenizer (key "{_PREFIX}model").')
    raise UnsupportedModelError(
        f'The tokenizer "{model}" ({_PREFIX}model) is not supported; supported are "gpt2" '
        '(byte-level BPE) and "llama" (SentencePiece BPE). ' + OTHER_ENGINE
    )


def _byte_level(metadata: Mapping[str, object]) -> Vocabulary:
    pieces = _strings(metadata, "tokens")
    kinds = _kinds(metadata, len(pieces))
    name = metadata.get(_PREFIX + "pre", "default")
    if not isinstance(name, str):
        raise ModelFileError(f'"{_PREFIX}pre" is not a string.')
    pre = pre_tokenizer(name)
    eos_id, ends = _ends(metadata, pieces, kinds)
    return Vocabulary(
        pieces,
        kinds,
        _merges(metadata),
        byte_level=True,
        pre_tokenizer=pre.definition,
        ignore_merges=pre.ignore_merges,
        bos_id=_token_id(metadata, "bos_token_id", len(pieces)),
        eos_id=eos_id,
        end_ids=ends,
        add_bos=_flag(metadata, "add_bos_token", pre.add_bos),
    )


def _sentencepiece(metadata: Mapping[str, object]) -> Vocabulary:
    pieces = _strings(metadata, "tokens")
    kinds = _kinds(metadata, len(pieces))
    scores = _numbers(metadata, "scores", len(pieces))
    eos_id, ends = _ends(metadata, pieces, kinds)
    prefixed = _flag(metadata, "add_space_prefix", True)
    return Vocabulary(
        pieces,
        kinds,
        scored_merges(pieces, kinds, scores),
        byte_level=False,
        pre_tokenizer=space_runs(pieces),
        space_prefix=SpacePrefix.ALWAYS if prefixed else SpacePrefix.NEVER,
        bos_id=_token_id(metadata, "bos_token_id", len(pieces)),
        eos_id=eos_id,
        end_ids=ends,
        add_bos=_flag(metadata, "add_bos_token", True),
    )


def _strings(metadata: Mapping[str, object], name: str) -> list[str]:
    values = metadata.get(_PREFIX + name)
    if isinstance(values, GGUFArray):
        return values.strings()
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return values
    raise ModelFileError(f'"{_PREFIX}{name}" is missing or not an array of strings.')


def _merges(metadata: Mapping[str, object]) -> list[tuple[str, str]]:
    """Merges are written as "left right"."""
    merges = _strings(metadata, "merges")
    halves = " ".join(merges).split(" ")  # two thirds of the time of splitting each merge
    if not all(halves) or any(merge.count(" ") != 1 for merge in merges):
        raise ModelFileError(f'"{_PREFIX}merges" holds something that is not two tokens.')
    return list(zip(halves[::2], halves[1::2], strict=True))


def _kinds(metadata: Mapping[str, object], count: int) -> list[int]:
    if _PREFIX + "token_type" not in metadata:
        return [TokenKind.NORMAL] * count
    kinds = [kind for kind in _values(metadata, "token_type", count) if isinstance(kind, int)]
    if len(kinds) != count:
        raise ModelFileError(f'"{_PREFIX}token_type" holds something that is not an integer.')
    return kinds


def _numbers(metadata: Mapping[str, object], name: str, count: int) -> list[float]:
    values = _values(metadata, name, count)
    numbers = [value for value in values if isinstance(value, int | float) and value == value]
    if len(numbers) != count:
        raise ModelFileError(f'"{_PREFIX}{name}" holds something that is not a number.')
    return numbers


def _values(metadata: Mapping[str, object], name: str, count: int) -> list[object]:
    values = metadata.get(_PREFIX + name)
    if not isinstance(values, GGUFArray | list):
        raise ModelFileError(f'"{_PREFIX}{name}" is missing or not an array.')
    if len(values) != count:
        raise ModelFileError(f'"{_PREFIX}{name}" has {len(values):,} entries for {count:,} tokens.')
    return values.values() if isinstance(values, GGUFArray) else values


def _flag(metadata: Mapping[str, object], name: str, default: bool) -> bool:
    value = metadata.get(_PREFIX + name, default)
    if not isinstance(value, bool):
        raise ModelFileError(f'"{_PREFIX}{name}" is {value!r}, not a bool.')
    return value


def _token_id(metadata: Mapping[str, object], name: str, size: int) -> int | None:
    return checked_id(metadata.get(_PREFIX + name), size, f'"{_PREFIX}{name}"')


def _ends(
    metadata: Mapping[str, object], pieces: list[str], kinds: list[int]
) -> tuple[int | None, frozenset[int]]:
    """The end-of-sequence id, and all ids that end a reply."""
    named = [_token_id(metadata, key, len(pieces)) for key in _END_KEYS]
    return named[0], end_ids(added_tokens(pieces, kinds), named)
