"""Small tokenizers, trained in a moment, for tests that need a certain kind of file."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from pathlib import Path

import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE

from tests.model.tokenizer_texts import TOKENIZER_DATA

CONTROL = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
NOT_CONTROL = ("<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_response>")
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level_json(folder: Path) -> Path:
    """A tokenizer.json as Llama 3 and Qwen have them, and tokenizer_config.json beside it."""
    made = tokenizers.Tokenizer(BPE(ignore_merges=True))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(LLAMA3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    return _written(made, trainer, folder, "<|endoftext|>")


def sentencepiece_json(folder: Path, metaspace: str | None = None) -> Path:
    """A tokenizer.json as Llama 2 has it, or with a Metaspace pre-tokenizer as Mistral has."""
    made = tokenizers.Tokenizer(BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if metaspace is None:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", metaspace, split=False)
    unknown = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=unknown, show_progress=False)
    return _written(made, trainer, folder, "<|im_start|>")


def _written(
    made: tokenizers.Tokenizer, trainer: trainers.BpeTrainer, folder: Path, opening: str
) -> Path:
    text = (TOKENIZER_DATA / "multilingual.txt").read_text()
    made.train_from_iterator(text.splitlines(), trainer)
    made.add_special_tokens([*CONTROL])
    made.add_tokens([*NOT_CONTROL])
    made.post_processor = processors.TemplateProcessing(
        single=f"{opening} $A", special_tokens=[(opening, made.token_to_id(opening))]
    )
    path = folder / "tokenizer.json"
    made.save(str(path))
    if made.token_to_id("<unk>") is not None:
        _forget_bytes(path)
    settings = {"eos_token": {"content": "<|im_end|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def _forget_bytes(path: Path) -> None:
    """Take the byte tokens, which the trainer makes special, out of the added vocabulary."""
    root = json.loads(path.read_text())
    root["added_tokens"] = [
        token for token in root["added_tokens"] if not token["content"].startswith("<0x")
    ]
    path.write_text(json.dumps(root))


def edited_json(path: Path, changes: Mapping[str, object]) -> Path:
    """A tokenizer.json with some of its members replaced; "model.x" is a member of "model"."""
    root = json.loads(path.read_text())
    for key, value in changes.items():
        *outer, last = key.split(".")
        (root[outer[0]] if outer else root)[last] = value
    path.write_text(json.dumps(root))
    return path


def mistral_model(folder: Path) -> Path:
    """The tokenizer.model of Mistral 7B v0.1."""
    path = folder / "tokenizer.model"
    path.write_bytes(lzma.decompress((TOKENIZER_DATA / "mistral-7b-v0.1.model.xz").read_bytes()))
    return path


def reference(path: Path) -> tokenizers.Tokenizer:
    """The tokenizer as the `tokenizers` library reads it, its added vocabulary included."""
    made = tokenizers.Tokenizer.from_file(str(path))
    made.encode_special_tokens = False
    return made
