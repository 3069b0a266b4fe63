"""From parameters to the structs that the kernels read."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.adapters import MATRICES, PackedAdapter
from oneiros.engine.library import (
    LARGEST_HEAD_DIM,
    LARGEST_WIDTH,
    MOST_HEADS_PER_KV_HEAD,
    Layer,
    Model,
)
from oneiros.engine.packing import PackedWeights
from oneiros.errors import UnsupportedModelError
from oneiros.model.adapter import Adapter
from oneiros.model.architecture import rope_frequencies
from oneiros.model.parameters import Architecture, Parameters

_VECTORS = {
    "attention_norm": "attn_norm.weight",
    "ffn_norm": "ffn_norm.weight",
    "q_norm": "attn_q_norm.weight",
    "k_norm": "attn_k_norm.weight",
    "q_bias": "attn_q.bias",
    "k_bias": "attn_k.bias",
    "v_bias": "attn_v.bias",
}


class Network:
    """`struct model` and everything that its pointers point to."""

    def __init__(
        self, parameters: Parameters, weights: PackedWeights, adapter: Adapter | None = None
    ) -> None:
        a = parameters.architecture
        self._parameters = parameters
        self._weights = weights
        self._kept: list[NDArray[np.float32] | NDArray[np.float64]] = []
        layers = (Layer * a.layers)()
        for index, layer in enumerate(layers):
            for field, name in MATRICES.items():
                setattr(layer, field, weights.matrix(f"blk.{index}.{name}.weight"))
            for field, name in _VECTORS.items():
                setattr(layer, field, self._vector(f"blk.{index}.{name}"))
        factors = parameters.tensors.get("rope_freqs.weight")
        frequencies = rope_frequencies(a, None if factors is None else factors.float32())
        self.struct = Model(
            a.layers,
            a.width,
            a.heads,
            a.kv_heads,
            a.head_dim,
            a.ffn_width,
            a.vocabulary,
            a.rope_dim,
            int(a.rope_interleaved),
            a.rms_epsilon,
            self._keep(frequencies.astype(np.float64)),
            self._vector("output_norm.weight"),
            ctypes.cast(layers, ctypes.POINTER(Layer)),
            weights.matrix("token_embd.weight"),
            weights.matrix("token_embd.weight" if a.tied else "output.weight"),
        )
        self._layers = layers
        if adapter is not None:
            self._adapter = PackedAdapter(adapter, a.layers)
            for layer, beside in zip(layers, self._adapter.layers, strict=True):
                layer.adapters = ctypes.pointer(beside)

    def _vector(self, name: str) -> int | None:
        tensor = self._parameters.tensors.get(name)
        return None if tensor is None else self._keep(np.ascontiguousarray(tensor.float32()))

    def _keep(self, values: NDArray[np.float32] | NDArray[np.float64]) -> int:
        self._kept.append(values)
        return int(values.ctypes.data)


def check_shapes(a: Architecture, where: str) -> None:
    """Raise UnsupportedModelError for shapes that the kernels do not compute."""
    for what, value, multiple in (
        ("model width", a.width, 32),
        ("width of all query heads", a.heads * a.head_dim, 32),
        ("feed-forward width", a.ffn_width, 32),
        ("head dimension", a.head_dim, 16),
    ):
        if value % multiple:
            raise UnsupportedModelError(
                f"{where}: a {what} of {value}; the kernels need a multiple of {multiple}."
            )
        if value > LARGEST_WIDTH:
            raise UnsupportedModelError(
                f"{where}: a {what} of {value:,}; the kernels hold {LARGEST_WIDTH:,}."
            )
    if a.head_dim > LARGEST_HEAD_DIM:
        raise UnsupportedModelError(
            f"{where}: heads of {a.head_dim} features; the kernels hold {LARGEST_HEAD_DIM}."
        )
    if a.heads // a.kv_heads > MOST_HEADS_PER_KV_HEAD:
        raise UnsupportedModelError(
            f"{where}: {a.heads // a.kv_heads} query heads share a key/value head; the kernels "
            f"hold {MOST_HEADS_PER_KV_HEAD}."
        )
