"""Texts, and a small random encoder, whose embeddings make_embedding_goldens.py computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from oneiros.model.safetensors import write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType

GOLDENS = Path(__file__).parents[1] / "data" / "golden-embeddings.npz"
TEXTS_FILE = Path(__file__).parents[1] / "data" / "tokenizer" / "multilingual.txt"


def golden_texts() -> list[str]:
    """Empty, short, odd and long texts in many scripts, some beyond the model's limit."""
    content = TEXTS_FILE.read_text()
    lines = [line for line in content.splitlines() if line]
    words = " ".join(["meaning"] * 300)  # one token each
    return ["", " \n\t", "a", "?", "é" * 150, "\u200b", *lines[:20], content, words]


TINY_CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 48,
    "intermediate_size": 112,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 40,
    "num_attention_heads": 6,
    "num_hidden_layers": 3,
    "type_vocab_size": 1,
    "vocab_size": 90,
}


def tiny_ids() -> list[list[int]]:
    """Texts of all lengths, for the tiny encoder."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 90, length).tolist() for length in (1, 2, 3, 3, 17, 40, 40)]


def tiny_folder(
    folder: Path, config: dict[str, object] | None = None, extra: tuple[str, ...] = ()
) -> Path:
    """An encoder with weights from a seed, and a tokenizer of single letters.

    Args:
        folder: to be made.
        config: entries that replace those of TINY_CONFIG in config.json alone.
        extra: names of tensors that do not belong there.
    """
    folder.mkdir()
    rng = np.random.default_rng(3)
    sizes = {
        "embeddings.word_embeddings.weight": (90, 48),
        "embeddings.position_embeddings.weight": (40, 48),
        "embeddings.token_type_embeddings.weight": (1, 48),
        **_norm("embeddings.LayerNorm"),
        **dict.fromkeys(extra, (48,)),
    }
    for layer in range(3):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            sizes |= _linear(f"{name}.attention.self.{part}", 48, 48)
        sizes |= _linear(f"{name}.attention.output.dense", 48, 48)
        sizes |= _norm(f"{name}.attention.output.LayerNorm")
        sizes |= _linear(f"{name}.intermediate.dense", 112, 48)
        sizes |= _linear(f"{name}.output.dense", 48, 112)
        sizes |= _norm(f"{name}.output.LayerNorm")
    tensors = []
    for name, shape in sizes.items():
        values = rng.standard_normal(shape, np.float32) * np.float32(0.3)
        if name.endswith("LayerNorm.weight"):
            values += 1
        tensors.append(PendingTensor.encoded(name, values, TensorType.F32))
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG | (config or {})))
    pieces = ["[UNK]", "[CLS]", "[SEP]", *map(chr, range(97, 123))]
    tokenizer = {
        "normalizer": {"type": "BertNormalizer", "lowercase": False},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "cls": ["[CLS]", 1],
            "sep": ["[SEP]", 2],
        },
        "model": {
            "type": "WordPiece",
            "vocab": {piece: index for index, piece in enumerate(pieces)},
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (48,), f"{name}.bias": (48,)}
