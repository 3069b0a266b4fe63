"""Tokenizers from a Hugging Face folder: tokenizer.json, and the settings beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.json_text import parse_object, read_bounded, read_object
from oneiros.model.sentencepiece import space_runs
from oneiros.model.vocabulary import (
    SPACE,
    SpacePrefix,
    TokenKind,
    Vocabulary,
    added_tokens,
    checked_id,
    end_ids,
)

# Llama 3's takes 17 MB.
_LARGEST_FILE = 64 << 20
# Unicode normal forms: never applied, so that every text comes back as it was.
_NORMAL_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
# SentencePiece's byte tokens: texts that name them must not become them.
_BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))

Settings = Mapping[str, object]


def json_vocabulary(path: Path) -> Vocabulary:
    """The BPE tokenizer in a tokenizer.json, byte-level or in SentencePiece's manner.

    The settings beside it (tokenizer_config.json, generation_config.json, config.json) name the
    tokens that begin and end texts. Unicode normal forms (Qwen names NFC) are not applied: text
    in that form gets the same ids, and all other text comes back exactly as it was.

    Raises:
        ModelFileError: a file cannot be read or is malformed.
        UnsupportedModelError: not BPE, or with a step that is not known to keep the text.
    """
    root = parse_object(read_bounded(path, _LARGEST_FILE), path.name)
    model = _settings(root.get("model"), path, '"model"')
    _refuse_unsupported(path, root, model)
    pieces, kinds = _pieces(path, root, model)
    merges = _merges(path, model)
    steps = [*_steps(path, root, "pre_tokenizer", "pretokenizers")]
    if any(step.get("type") == "ByteLevel" for step in steps):
        byte_level, prefix = True, SpacePrefix.NEVER
        definition: Settings | None = _keeps_text(path, steps)
    else:
        byte_level, prefix = False, _space_prefix(path, root, steps)
        definition = space_runs(pieces)
        if model.get("byte_fallback") is True:
            kinds = _with_bytes(pieces, kinds)
            merges = [pair for pair in merges if "".join(pair) not in _BYTE_PIECES]
    added = added_tokens(pieces, kinds)
    settings = read_settings(path.parent, "tokenizer_config.json")
    opening = _opening_token(path, root, added)
    bos_id = _named_token(settings, "bos_token", added)
    bos_id = opening if bos_id is None else bos_id
    eos_id = _named_token(settings, "eos_token", added)
    ends = [eos_id, *_configured_ends(path.parent, len(pieces))]
    says = settings.get("add_bos_token")
    return Vocabulary(
        pieces,
        kinds,
        merges,
        byte_level=byte_level,
        pre_tokenizer=definition,
        ignore_merges=model.get("ignore_merges") is True,
        space_prefix=prefix,
        bos_id=bos_id,
        eos_id=next((end for end in ends if end is not None), None),
        end_ids=end_ids(added, ends),
        add_bos=bos_id is not None and (says if isinstance(says, bool) else opening is not None),
    )


def read_settings(folder: Path, name: str) -> Settings:
    """A settings file of a model folder; empty where there is none."""
    path = folder / name
    return read_object(path) if path.exists() else {}


def _refuse_unsupported(path: Path, root: Settings, model: Settings) -> None:
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise _unsupported(path, f'model type "{kind}"')
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _unsupported(path, f'model setting "{key}"')
    for step in _steps(path, root, "normalizer", "normalizers"):
        kind = step.get("type")
        escapes = kind == "Replace" and step.get("content") == SPACE
        prefixes = kind == "Prepend" and step.get("prepend") == SPACE
        if kind not in _NORMAL_FORMS and not escapes and not prefixes:
            raise _unsupported(path, f'normalizer "{kind}"')


def _keeps_text(path: Path, steps: list[Settings]) -> Settings:
    """The pre-tokenizer, if it only cuts: its pieces, put together again, are the text."""
    for step in steps:
        kind = step.get("type")
        if (
            kind not in {"Split", "ByteLevel", "Digits", "Punctuation"}
            or step.get("behavior") == "Removed"
            or (kind == "ByteLevel" and step.get("add_prefix_space") is not False)
        ):
            raise _unsupported(path, f'pre-tokenizer "{kind}" with these settings')
    return {"type": "Sequence", "pretokenizers": steps}


def _space_prefix(path: Path, root: Settings, steps: list[Settings]) -> SpacePrefix:
    """How a tokenizer in SentencePiece's manner adds the dummy prefix.

    Older files escape spaces in normalizers (Llama 2), newer ones in a pre-tokenizer (Mistral).
    """
    normalizers = [*_steps(path, root, "normalizer", "normalizers")]
    if not steps and any(step.get("type") == "Replace" for step in normalizers):
        prefixed = any(step.get("type") == "Prepend" for step in normalizers)
        return SpacePrefix.ALWAYS if prefixed else SpacePrefix.NEVER
    if len(steps) == 1 and steps[0].get("type") == "Metaspace" and steps[0].get("split") is False:
        scheme = steps[0].get("prepend_scheme")
        for prefix in SpacePrefix:
            if prefix.value == scheme and steps[0].get("replacement") == SPACE:
                return prefix
    kinds = ", ".join(f'"{step.get("type")}"' for step in steps) or "none"
    raise _unsupported(path, f"pre-tokenizer ({kinds}) with these settings")


def _pieces(path: Path, root: Settings, model: Settings) -> tuple[list[str], list[int]]:
    """Texts and kinds of the tokens, by id; ids that the file skips are unused."""
    entries: list[tuple[object, object, TokenKind]] = [
        (piece, token_id, TokenKind.NORMAL)
        for piece, token_id in _settings(model.get("vocab"), path, '"vocab"').items()
    ]
    for token in _list(root.get("added_tokens", []), path, '"added_tokens"'):
        token = _settings(token, path, 'an entry of "added_tokens"')
        kind = TokenKind.CONTROL if token.get("special") else TokenKind.USER_DEFINED
        entries.append((token.get("content"), token.get("id"), kind))
    # Room for gaps, and none for an id that would make a list of billions.
    most = 4 * len(entries) + 1024
    pieces: list[str] = []
    kinds: list[int] = []
    for piece, token_id, kind in entries:
        if not isinstance(piece, str) or not isinstance(token_id, int) or not 0 <= token_id < most:
            raise _malformed(path, f"token {piece!r} has the id {token_id!r}")
        missing = token_id + 1 - len(pieces)
        if missing > 0:
            pieces += [""] * missing
            kinds += [int(TokenKind.UNUSED)] * missing
        pieces[token_id], kinds[token_id] = piece, kind
    return pieces, kinds


def _with_bytes(pieces: list[str], kinds: list[int]) -> list[int]:
    """The kinds, with "<0x00>" to "<0xFF>" told apart as SentencePiece's byte tokens."""
    return [
        TokenKind.BYTE if kind == TokenKind.NORMAL and piece in _BYTE_PIECES else kind
        for piece, kind in zip(pieces, kinds, strict=True)
    ]


def _merges(path: Path, model: Settings) -> list[tuple[str, str]]:
    """Merges are written as "left right", and by newer versions as [left, right]."""
    pairs = []
    for index, merge in enumerate(_list(model.get("merges"), path, '"merges"')):
        match merge.split(" ") if isinstance(merge, str) else merge:
            case [str(left), str(right)]:
                pairs.append((left, right))
            case _:
                raise _malformed(path, f'entry {index:,} of "merges" is not two tokens')
    return pairs


def _opening_token(path: Path, root: Settings, added: Mapping[str, int]) -> int | None:
    """The token that the post-processor puts before a text."""
    for step in _steps(path, root, "post_processor", "processors"):
        match step.get("single"):
            case [{"SpecialToken": {"id": str(name)}}, *_]:
                return added.get(name)
    return None


def _named_token(settings: Settings, name: str, added: Mapping[str, int]) -> int | None:
    """The id of a token that tokenizer_config.json names by its text or as an object."""
    value = settings.get(name)
    text = value.get("content") if isinstance(value, dict) else value
    return added.get(text) if isinstance(text, str) else None


def _configured_ends(folder: Path, size: int) -> Iterator[int | None]:
    for name in ("generation_config.json", "config.json"):
        ends = read_settings(folder, name).get("eos_token_id")
        for end in ends if isinstance(ends, list) else [ends]:
            yield checked_id(end, size, f'{name}: "eos_token_id"')


def _steps(path: Path, root: Settings, key: str, parts: str) -> Iterator[Settings]:
    """The steps of a normalizer, pre-tokenizer or post-processor, sequences taken apart."""
    pending = [root.get(key)]
    while pending:
        value = pending.pop()
        if value is None:
            continue
        step = _settings(value, path, f'"{key}"')
        if step.get("type") == "Sequence":
            pending += reversed(_list(step.get(parts), path, f'"{key}"'))
        else:
            yield step


def _settings(value: object, path: Path, what: str) -> Settings:
    if not isinstance(value, dict):
        raise _malformed(path, f"{what} is not an object")
    return value


def _list(value: object, path: Path, what: str) -> list[object]:
    if not isinstance(value, list):
        raise _malformed(path, f"{what} is not a list")
    return value


def _malformed(path: Path, why: str) -> ModelFileError:
    return ModelFileError(f"{path.name}: {why}. The file is damaged.")


def _unsupported(path: Path, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path.name}: {what} is not supported. Supported are byte-level BPE and SentencePiece's "
        "BPE."
    )
