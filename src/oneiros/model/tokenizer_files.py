"""Writing a vocabulary as GGUF metadata, and as the tokenizer files of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.pretokenizers import pre_tokenizer
from oneiros.model.vocabulary import (
    ADDED_KINDS,
    SPACE,
    SpacePrefix,
    TokenKind,
    Vocabulary,
)

# Names under which GGUF files know a pre-tokenizer; the first that fits a tokenizer.json is taken.
_WRITTEN_NAMES = ("gpt-2", "smollm", "llama-bpe", "smaug-bpe", "qwen2", "tekken", "deepseek-v3")


def gguf_tokenizer(
    vocabulary: Vocabulary, rows: int, chat_template: str | None
) -> dict[str, object]:
    """The keys `tokenizer.*` of a GGUF file.

    Args:
        vocabulary: what to write.
        rows: of the embedding; ids that the vocabulary lacks get unused placeholders.
        chat_template: the Jinja source, if the model has one.

    Raises:
        ModelFileError: the vocabulary has more tokens than the embedding has rows.
        UnsupportedModelError: GGUF has no name for the pre-tokenizer.
    """
    if len(vocabulary.pieces) > rows:
        raise ModelFileError(
            f"The tokenizer has {len(vocabulary.pieces):,} tokens, and the embedding {rows:,} rows."
        )
    pieces = [*vocabulary.pieces, *[""] * (rows - len(vocabulary.pieces))]
    pieces = [piece or f"[PAD{token_id}]" for token_id, piece in enumerate(pieces)]
    unused = [TokenKind.UNUSED] * (rows - len(vocabulary.kinds))
    values: dict[str, object] = {
        "model": "gpt2" if vocabulary.byte_level else "llama",
        "pre": _name(vocabulary) if vocabulary.byte_level else "default",
        "tokens": pieces,
        "token_type": [int(kind) for kind in (*vocabulary.kinds, *unused)],
    }
    if vocabulary.byte_level:
        values["merges"] = [f"{left} {right}" for left, right in vocabulary.merges]
    else:
        values["scores"] = _scores(pieces, vocabulary.merges)
        values["add_space_prefix"] = vocabulary.space_prefix is not SpacePrefix.NEVER
    named = {
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "unknown_token_id": _unknown_id(vocabulary),
    }
    values |= {key: token_id for key, token_id in named.items() if token_id is not None}
    values["add_bos_token"] = vocabulary.add_bos
    metadata = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    if chat_template is not None:
        metadata["tokenizer.chat_template"] = chat_template
    return metadata


def folder_tokenizer(
    vocabulary: Vocabulary, chat_template: str | None
) -> dict[str, dict[str, object]]:
    """File name -> content of the JSON files that `tokenizers` and `transformers` load."""
    config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": vocabulary.add_bos,
    }
    generation: dict[str, object] = {}
    if vocabulary.bos_id is not None:
        config["bos_token"] = vocabulary.pieces[vocabulary.bos_id]
        generation["bos_token_id"] = vocabulary.bos_id
    if vocabulary.eos_id is not None:
        config["eos_token"] = vocabulary.pieces[vocabulary.eos_id]
        others = sorted(vocabulary.end_ids - {vocabulary.eos_id})
        generation["eos_token_id"] = [vocabulary.eos_id, *others]
    if chat_template is not None:
        config["chat_template"] = chat_template
    return {
        "tokenizer.json": _tokenizer_json(vocabulary),
        "tokenizer_config.json": config,
        "generation_config.json": generation,
    }


def _unknown_id(vocabulary: Vocabulary) -> int | None:
    return next(
        (index for index, kind in enumerate(vocabulary.kinds) if kind == TokenKind.UNKNOWN), None
    )


def _name(vocabulary: Vocabulary) -> str:
    """GGUF's name for the pre-tokenizer of a byte-level vocabulary."""
    steps = _comparable(vocabulary.pre_tokenizer)
    for name in _WRITTEN_NAMES:
        known = pre_tokenizer(name)
        same_merging = known.ignore_merges == vocabulary.ignore_merges
        if same_merging and _comparable(known.definition) == steps:
            return name
    raise UnsupportedModelError(
        "tokenizer.json: GGUF has no name for its pre-tokenizer, so that no engine could split "
        f"text as the model expects. Written are {', '.join(_WRITTEN_NAMES)}."
    )


def _comparable(definition: Mapping[str, object] | None) -> list[tuple[object, ...]]:
    """What matters of a pre-tokenizer in the form of tokenizer.json."""
    steps = (definition or {}).get("pretokenizers", [definition])
    keys = ("type", "pattern", "behavior", "invert", "individual_digits", "use_regex")
    return [
        tuple(step.get(key) for key in keys)
        for step in (steps if isinstance(steps, list) else [])
        if isinstance(step, Mapping)
    ]


def _scores(pieces: Sequence[str], merges: Sequence[tuple[str, str]]) -> list[float]:
    """Scores by which SentencePiece's merging does what the ranked merges do.

    Of two neighbours the pair whose joined piece has the higher score is merged first, so a
    piece's score is the negative rank of the first merge that makes it. Others are never made.
    """
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(piece, len(merges))) for piece in pieces]


def _tokenizer_json(vocabulary: Vocabulary) -> dict[str, object]:
    written = {
        piece: token_id
        for token_id, (piece, kind) in enumerate(
            zip(vocabulary.pieces, vocabulary.kinds, strict=True)
        )
        if kind != TokenKind.UNUSED
    }
    unknown = _unknown_id(vocabulary)
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None if unknown is None else vocabulary.pieces[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": not vocabulary.byte_level,
        "byte_fallback": not vocabulary.byte_level,
        "ignore_merges": vocabulary.ignore_merges,
        "vocab": written,
        "merges": [
            f"{left} {right}"
            for left, right in vocabulary.merges
            if left in written and right in written and left + right in written
        ],
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": token_id, "content": vocabulary.pieces[token_id]}
        | flags
        | {"special": kind != TokenKind.USER_DEFINED}
        for token_id, kind in enumerate(vocabulary.kinds)
        if kind in ADDED_KINDS and vocabulary.pieces[token_id]
    ]
    text_rules = (
        _byte_level_rules(vocabulary) if vocabulary.byte_level else _space_rules(vocabulary)
    )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **text_rules,
        "post_processor": _opening(vocabulary),
        "model": model,
    }


def _byte_level_rules(vocabulary: Vocabulary) -> dict[str, object]:
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "normalizer": None,
        "pre_tokenizer": vocabulary.pre_tokenizer,
        "decoder": decoder | {"use_regex": True},
    }


def _space_rules(vocabulary: Vocabulary) -> dict[str, object]:
    """SentencePiece's treatment of spaces, in the form in which Llama 2 was converted."""
    to_mark: dict[str, object] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    to_space: dict[str, object] = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    prefix = vocabulary.space_prefix
    normalizer: dict[str, object] | None = to_mark
    metaspace: dict[str, object] | None = None
    if prefix is SpacePrefix.ALWAYS:
        prepend = {"type": "Prepend", "prepend": SPACE}
        normalizer = {"type": "Sequence", "normalizers": [prepend, to_mark]}
    elif prefix is SpacePrefix.FIRST:
        normalizer = None
        metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first"}
        metaspace["split"] = False
    decoders: list[dict[str, object]] = [to_space, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix is not SpacePrefix.NEVER:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": normalizer,
        "pre_tokenizer": metaspace,
        "decoder": {"type": "Sequence", "decoders": decoders},
    }


def _opening(vocabulary: Vocabulary) -> dict[str, object] | None:
    """The post-processor that puts the beginning-of-sequence token before a text."""
    if not vocabulary.add_bos or vocabulary.bos_id is None:
        return None
    text = vocabulary.pieces[vocabulary.bos_id]
    bos = {"SpecialToken": {"id": text, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [bos, first],
        "pair": [bos, first, bos, second],
        "special_tokens": {text: {"id": text, "ids": [vocabulary.bos_id], "tokens": [text]}},
    }
