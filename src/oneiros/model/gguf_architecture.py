"""Which network a GGUF file holds, from its metadata."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import (
    LARGEST_CONTEXT,
    OTHER_ENGINE,
    SUPPORTED,
    Architecture,
    RopeScaling,
    check_architecture,
    check_tensors,
)
from oneiros.model.gguf import GGUFArray, GGUFFile

_LARGEST_DIMENSION = 1 << 31


def gguf_architecture(file: GGUFFile) -> Architecture:
    """The hyper-parameters of a GGUF file, checked against its tensors.

    Raises:
        ModelFileError: a key is missing, has the wrong type or contradicts the tensors.
        UnsupportedModelError: the network is not one that the engine runs.
    """
    name = _Keys(file, "").text("general.architecture")
    if name not in SUPPORTED:
        raise UnsupportedModelError(
            f'{file.path.name}: architecture "{name}" is not run by the Oneiros engine '
            f"({', '.join(SUPPORTED)} are). " + OTHER_ENGINE
        )
    keys = _Keys(file, name + ".")
    _refuse_variants(keys)
    width, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", width // heads)
    if keys.integer("attention.value_length", head_dim) != head_dim:
        keys.unsupported("attention.value_length", "differs from the key length")
    window = keys.integer("attention.sliding_window", 0, least=0) or None
    context = keys.integer("context_length", most=LARGEST_CONTEXT)
    architecture = Architecture(
        name=name,
        layers=keys.integer("block_count"),
        width=width,
        heads=heads,
        kv_heads=keys.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn_width=keys.integer("feed_forward_length"),
        vocabulary=_vocabulary(file),
        context=min(context, window) if window else context,
        rope_base=keys.positive("rope.freq_base", 10000.0),
        rope_dim=keys.integer("rope.dimension_count", head_dim),
        rope_interleaved=name == "llama",
        rope_scaling=_rope_scaling(keys),
        rms_epsilon=keys.positive("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
        qk_norm=name == "qwen3",
        attention_bias=name == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        sliding_window=window,
    )
    check_architecture(architecture, file.path.name)
    check_tensors(architecture, file.tensors, file.path.name)
    return architecture


def _refuse_variants(keys: _Keys) -> None:
    if keys.file.metadata.get("split.count", 1) not in (0, 1):
        raise UnsupportedModelError(
            f"{keys.file.path.name}: is one part of a split GGUF file. Join the parts first, with "
            "llama.cpp's `llama-gguf-split --merge`."
        )
    if keys.integer("expert_count", 0, least=0):
        keys.unsupported("expert_count", "says that the model is a mixture of experts")


def _vocabulary(file: GGUFFile) -> int:
    """Rows of the embedding, which must be the number of tokens where the file lists them."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(f'{file.path.name}: tensor "token_embd.weight" is missing.')
    rows = embedding.shape[0]
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, GGUFArray) and len(tokens) != rows:
        raise ModelFileError(
            f'{file.path.name}: metadata "tokenizer.ggml.tokens" at byte {tokens.offset:,} lists '
            f'{len(tokens):,} tokens, and tensor "token_embd.weight" has {rows:,} rows.'
        )
    return rows


def _rope_scaling(keys: _Keys) -> RopeScaling | None:
    kind = keys.text("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        keys.unsupported("rope.scaling.type", f'is "{kind}"')
    return RopeScaling("linear", keys.positive("rope.scaling.factor"))


@dataclass(frozen=True, slots=True)
class _Keys:
    """Typed access to metadata; a wrong type or range names the key and its byte."""

    file: GGUFFile
    prefix: str

    def fail(self, key: str, why: str) -> NoReturn:
        at = f" at byte {self.file.offsets[key]:,}" if key in self.file.offsets else ""
        raise ModelFileError(f'{self.file.path.name}: metadata "{key}"{at} {why}.')

    def unsupported(self, key: str, why: str) -> NoReturn:
        raise UnsupportedModelError(
            f'{self.file.path.name}: metadata "{self.prefix + key}" {why}, which the Oneiros '
            "engine does not run. " + OTHER_ENGINE
        )

    def text(self, key: str, default: str | None = None) -> str:
        key = self.prefix + key
        value = self.file.metadata.get(key, default)
        if not isinstance(value, str):
            self.fail(key, "is missing" if value is None else "is not a string")
        return value

    def integer(
        self,
        key: str,
        default: int | None = None,
        *,
        least: int = 1,
        most: int = _LARGEST_DIMENSION,
    ) -> int:
        """An integer; also an array with one and the same integer for every layer."""
        key = self.prefix + key
        value = self.file.metadata.get(key, default)
        if isinstance(value, GGUFArray):
            layers = set(value.values()) if len(value) <= len(self.file.tensors) else set()
            if len(layers) != 1:
                self.unsupported(key.removeprefix(self.prefix), "differs between layers")
            value = layers.pop()
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "is missing" if value is None else "is not an integer")
        if not least <= value <= most:
            self.fail(key, f"is {value:,}, and must be from {least} to {most:,}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        key = self.prefix + key
        value = self.file.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, "is missing" if value is None else "is not a number")
        if not (math.isfinite(value) and value > 0):
            self.fail(key, f"is {value}, and must be a positive number")
        return float(value)
