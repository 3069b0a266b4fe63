"""The hyper-parameters of a Llama-style network, and the tensors that they imply."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.tensor import Tensor

LARGEST_CONTEXT = 1 << 24
SUPPORTED = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are lowered so that a model reaches beyond its first context."""

    kind: Literal["linear", "llama3"]
    factor: float  # positions stretch by this much
    low_freq_factor: float = 1.0  # llama3: wavelengths above original / low are divided by factor
    high_freq_factor: float = 4.0  # llama3: wavelengths below original / high stay as they are
    original_context: int = 8192  # llama3: the context of the first training


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder with RMSNorm, rotary positions, grouped-query attention and a SwiGLU network.

    Llama 1-3, SmolLM2, TinyLlama and Mistral are "llama"; Qwen2 and Qwen2.5 are "qwen2" (biases
    on q, k and v); "qwen3" normalises each head's queries and keys.
    """

    name: str  # "llama", "qwen2" or "qwen3"
    layers: int
    width: int  # features of the residual stream
    heads: int  # query heads
    kv_heads: int  # key/value heads; heads % kv_heads == 0
    head_dim: int  # features per head; heads * head_dim may differ from width
    ffn_width: int  # features inside the feed-forward network
    vocabulary: int  # rows of the embedding; may exceed the tokenizer's vocabulary
    context: int  # positions, capped to the sliding window where there is one
    rope_base: float
    rope_dim: int  # rotated features per head; == head_dim
    rope_interleaved: bool  # True: rotates pairs (2i, 2i + 1); False: pairs (i, i + rope_dim / 2)
    rope_scaling: RopeScaling | None
    rms_epsilon: float
    tied: bool  # the output matrix is token_embd.weight
    qk_norm: bool
    attention_bias: bool  # biases on q, k and v
    sliding_window: int | None

    @property
    def kv_width(self) -> int:
        """Features of one position's keys (and of its values) in one layer."""
        return self.kv_heads * self.head_dim


def kv_bytes(architecture: Architecture, context: int) -> int:
    """Bytes of an FP16 KV cache for `context` positions."""
    return context * architecture.layers * 2 * architecture.kv_width * 2


def rope_frequencies(
    architecture: Architecture, factors: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The angle in radians that each rotated pair turns per position.

    Args:
        architecture: gives the base, the dimension and the scaling (Su et al. 2021; "llama3" is
            the wavelength-dependent scaling of Llama 3.1).
        factors: `rope_freqs.weight`, (rope_dim / 2,), where a GGUF file has one: divides the
            frequencies in the place of a "llama3" scaling.

    Returns:
        float32 (rope_dim / 2,).
    """
    frequencies = base_frequencies(architecture)
    if factors is not None:
        frequencies = frequencies / factors
    scaling = architecture.rope_scaling
    if scaling is not None:
        frequencies = frequencies / scaling_factors(scaling, frequencies)
    return frequencies.astype(np.float32)


def base_frequencies(architecture: Architecture) -> NDArray[np.float64]:
    """The angle in radians that each rotated pair turns per position without scaling."""
    pairs = np.arange(0, architecture.rope_dim, 2, dtype=np.float64) / architecture.rope_dim
    return np.power(architecture.rope_base, -pairs)


def scaling_factors(scaling: RopeScaling, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a scaling divides each unscaled frequency by, (rope_dim / 2,)."""
    if scaling.kind == "linear":
        return np.full_like(frequencies, scaling.factor)
    turns = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    # 0 where a pair turns less than `low` times within the original context, 1 above `high`.
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - kept) / scaling.factor + kept)


def tensor_shapes(architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor that the network needs, in file order."""
    width, ffn = architecture.width, architecture.ffn_width
    queries = architecture.heads * architecture.head_dim
    keys = architecture.kv_width
    yield "token_embd.weight", (architecture.vocabulary, width)
    for layer in range(architecture.layers):
        prefix = f"blk.{layer}."
        yield prefix + "attn_norm.weight", (width,)
        yield prefix + "attn_q.weight", (queries, width)
        yield prefix + "attn_k.weight", (keys, width)
        yield prefix + "attn_v.weight", (keys, width)
        if architecture.attention_bias:
            yield prefix + "attn_q.bias", (queries,)
            yield prefix + "attn_k.bias", (keys,)
            yield prefix + "attn_v.bias", (keys,)
        if architecture.qk_norm:
            yield prefix + "attn_q_norm.weight", (architecture.head_dim,)
            yield prefix + "attn_k_norm.weight", (architecture.head_dim,)
        yield prefix + "attn_output.weight", (width, queries)
        yield prefix + "ffn_norm.weight", (width,)
        yield prefix + "ffn_gate.weight", (ffn, width)
        yield prefix + "ffn_up.weight", (ffn, width)
        yield prefix + "ffn_down.weight", (width, ffn)
    yield "output_norm.weight", (width,)
    if not architecture.tied:
        yield "output.weight", (architecture.vocabulary, width)


def check_architecture(architecture: Architecture, where: str) -> None:
    """Refuse hyper-parameters that contradict each other or that the engine does not run.

    Raises:
        ModelFileError: `where` names the file.
    """
    if architecture.heads % architecture.kv_heads:
        raise ModelFileError(
            f"{where}: {architecture.heads} query heads cannot share {architecture.kv_heads} "
            "key/value heads evenly."
        )
    if architecture.head_dim % 2:
        raise ModelFileError(f"{where}: a head of {architecture.head_dim} features (odd).")
    if architecture.rope_dim != architecture.head_dim:
        raise UnsupportedModelError(
            f"{where}: rotates {architecture.rope_dim} of {architecture.head_dim} features per "
            "head, and the Oneiros engine rotates all. " + OTHER_ENGINE
        )


def check_tensors(architecture: Architecture, tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a file whose tensors are not exactly those of its architecture.

    Raises:
        ModelFileError: one is missing, or has another shape.
        UnsupportedModelError: one more is there, so the network is not the one that we run.
    """
    needed = set()
    for name, shape in tensor_shapes(architecture):
        tensor = tensors.get(name)
        if tensor is None:
            raise ModelFileError(
                f'{where}: tensor "{name}" is missing. The file is incomplete, or it says '
                f'"{architecture.name}" and holds something else.'
            )
        if tensor.shape != shape:
            raise ModelFileError(
                f'{where}: tensor "{name}" has shape {tensor.shape}, and the hyper-parameters '
                f"ask for {shape}."
            )
        needed.add(name)
    for name, tensor in tensors.items():
        if name == "rope_freqs.weight":
            check_rope_factors(architecture, tensor, where)
        elif name not in needed:
            raise UnsupportedModelError(
                f'{where}: tensor "{name}" is not part of the "{architecture.name}" network '
                "that the Oneiros engine runs. " + OTHER_ENGINE
            )


def check_rope_factors(architecture: Architecture, tensor: Tensor, where: str) -> None:
    """Refuse frequency divisors of the wrong number, or that are not positive."""
    if tensor.shape != (architecture.rope_dim // 2,):
        raise ModelFileError(
            f'{where}: tensor "{tensor.name}" has shape {tensor.shape}, and '
            f"{architecture.rope_dim // 2} frequencies need one divisor each."
        )
    factors = tensor.float32()
    if not np.all(np.isfinite(factors) & (factors > 0)):
        raise ModelFileError(f'{where}: tensor "{tensor.name}" holds divisors that are not > 0.')


OTHER_ENGINE = (
    "The optional llama.cpp engine runs such models from GGUF files, as LlamaCppConversation: "
    "`pip install 'oneiros[llamacpp]'`."
)
