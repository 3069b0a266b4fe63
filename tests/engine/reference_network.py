"""The forward pass in plain NumPy and float32, from dequantised weights: what kernels must match.

Where weights are stored as integers, activations are rounded to the same int8 grid as in the engine
(32 values share a scale), so that only the order of additions, and roundings that it tips over,
tell the two apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oneiros.model.architecture import rope_frequencies
from oneiros.model.parameters import Parameters

Matrix = NDArray[np.float32]


def reference_logits(parameters: Parameters, tokens: list[int]) -> Matrix:
    """Logits of every position, (tokens, vocabulary)."""
    a = parameters.architecture
    w = {name: tensor.float32() for name, tensor in parameters.tensors.items()}
    angles = np.outer(np.arange(len(tokens)), rope_frequencies(a).astype(np.float64))
    quantized = parameters.tensors["blk.0.attn_q.weight"].type.quantized
    rounded = to_grid if quantized else lambda values: values
    x = w["token_embd.weight"][tokens]
    for layer in range(a.layers):
        p = f"blk.{layer}."
        h = rounded(rms_norm(x, w[p + "attn_norm.weight"], a.rms_epsilon))
        q, k, v = (
            (h @ w[f"{p}attn_{n}.weight"].T + w.get(f"{p}attn_{n}.bias", np.float32(0))).reshape(
                len(tokens), -1, a.head_dim
            )
            for n in "qkv"
        )
        if a.qk_norm:
            q = rms_norm(q, w[p + "attn_q_norm.weight"], a.rms_epsilon)
            k = rms_norm(k, w[p + "attn_k_norm.weight"], a.rms_epsilon)
        q, k = (rotate(y, angles, a.rope_interleaved) for y in (q, k))
        k, v = (np.repeat(y.astype(np.float16), a.heads // a.kv_heads, 1) for y in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k.astype(np.float32)) / np.sqrt(a.head_dim)
        scores += np.triu(np.full(scores.shape[1:], -np.inf, np.float32), 1)
        mixed = np.einsum("hqk,khd->qhd", softmax(scores), v.astype(np.float32))
        x = x + rounded(mixed.reshape(len(tokens), -1)) @ w[p + "attn_output.weight"].T
        h = rounded(rms_norm(x, w[p + "ffn_norm.weight"], a.rms_epsilon))
        gate = h @ w[p + "ffn_gate.weight"].T
        hidden = gate / (1 + np.exp(-gate)) * (h @ w[p + "ffn_up.weight"].T)
        x = x + rounded(hidden) @ w[p + "ffn_down.weight"].T
    head = w["token_embd.weight" if a.tied else "output.weight"]
    return rounded(rms_norm(x, w["output_norm.weight"], a.rms_epsilon)) @ head.T


def to_grid(x: Matrix) -> Matrix:
    """Each block of 32 values rounded to multiples of its largest magnitude / 127."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    steps = np.rint(blocks / np.where(scale > 0, scale, 1))
    return (steps * scale).reshape(x.shape).astype(np.float32)


def rms_norm(x: Matrix, weight: Matrix, epsilon: float) -> Matrix:
    mean = np.mean(x * x, -1, keepdims=True)
    return (x / np.sqrt(mean + np.float32(epsilon)) * weight).astype(np.float32)


def rotate(x: Matrix, angles: NDArray[np.float64], interleaved: bool) -> Matrix:
    cosine, sine = np.cos(angles)[:, None].astype("f4"), np.sin(angles)[:, None].astype("f4")
    half = x.shape[-1] // 2
    first, second = (
        (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(half), slice(half, None))
    )
    y = np.empty_like(x)
    y[..., first] = x[..., first] * cosine - x[..., second] * sine
    y[..., second] = x[..., first] * sine + x[..., second] * cosine
    return y


def softmax(x: Matrix) -> Matrix:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)
