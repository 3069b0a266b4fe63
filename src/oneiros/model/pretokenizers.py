"""Pre-tokenizers: how byte-level tokenizers cut a text into words before merging.

Merges never cross the borders of these words, so the same vocabulary with another pre-tokenizer
gives other tokens. A tokenizer.json carries its pre-tokenizer; a GGUF file only names it
(tokenizer.ggml.pre). The definitions have the form that they have in a tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from oneiros.errors import UnsupportedModelError
from oneiros.model.vocabulary import SPACE

Definition = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class NamedPreTokenizer:
    """What a GGUF pre-tokenizer name stands for."""

    definition: Definition
    ignore_merges: bool = False
    add_bos: bool = False  # where the file does not say


def _split(pattern: str) -> Definition:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _sequence(*steps: Definition, gpt2_words: bool = False) -> Definition:
    """The steps, then the change to GPT-2's alphabet (after a split into GPT-2's words)."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": gpt2_words,
    }
    return {"type": "Sequence", "pretokenizers": [*steps, byte_level]}


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

_GPT2 = NamedPreTokenizer(_sequence(gpt2_words=True))
_DIGITS = NamedPreTokenizer(
    _sequence({"type": "Digits", "individual_digits": True}, gpt2_words=True)
)
_LLAMA3_WORDS = _split(rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_SYMBOLS_AND_SPACE}")
_LLAMA3 = NamedPreTokenizer(_sequence(_LLAMA3_WORDS), ignore_merges=True, add_bos=True)
_QWEN2 = NamedPreTokenizer(
    _sequence(_split(rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_SYMBOLS_AND_SPACE}"))
)
_TEKKEN = NamedPreTokenizer(
    _sequence(
        _split(
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ),
    ignore_merges=True,
    add_bos=True,
)
_DEEPSEEK3 = NamedPreTokenizer(
    _sequence(
        _split(r"\p{N}{1,3}"),
        _split("[一-龥\u3040-ゟ゠-ヿ]+"),
        _split(
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
            r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
    )
)
# What llama.cpp takes where a file names no pre-tokenizer, or "default".
_DEFAULT = NamedPreTokenizer(
    _sequence(
        _split(r"[\p{P}\$\+<=>\^~\|]+"),
        _split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
        _split(r"\p{N}+"),
        _split(r"[0-9][0-9][0-9]"),
    )
)

_NAMED = {
    "default": _DEFAULT,
    "gpt-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "codeshell": _DIGITS,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "smaug-bpe": NamedPreTokenizer(_sequence(_LLAMA3_WORDS)),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": _QWEN2,
    "tekken": _TEKKEN,
    "deepseek-v3": _DEEPSEEK3,
}


def pre_tokenizer(name: str) -> NamedPreTokenizer:
    """The pre-tokenizer that GGUF's key tokenizer.ggml.pre names.

    Raises:
        UnsupportedModelError: the name is not known. Guessing would give wrong tokens without
            any sign of it.
    """
    if name not in _NAMED:
        raise UnsupportedModelError(
            f'The pre-tokenizer "{name}" (tokenizer.ggml.pre) is not supported; supported are '
            f"{', '.join(sorted(_NAMED))}."
        )
    return _NAMED[name]


# SentencePiece merges over the whole text. Where no piece has a space after another character,
# no merge crosses such a place, and cutting there changes nothing but the speed: words repeat,
# and the merges of a word are kept.
SPACE_RUNS = _split(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
