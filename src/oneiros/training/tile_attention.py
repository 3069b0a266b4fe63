"""Attention for training on CPUs with AMX: kernels in C, called as operations of PyTorch.

PyTorch's own attention either holds the scores of every pair of positions in memory, the hidden
half too, or has a backward pass that leaves the processor's tile registers unused. Here blocks of
scores live in the cache for as long as they are needed (FlashAttention, Dao et al. 2022), blocks
that nobody may see are left out, and every product runs in tiles. `bench/training.py` measures it.
"""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from oneiros.training import tiles

LARGEST_HEAD_DIM = 256  # a block of a larger one leaves the cache


class _Attention(ctypes.Structure):
    """`struct attention` of kernels/kernels.h."""

    _fields_: ClassVar = [
        ("rows", ctypes.c_int32),
        ("positions", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("first_stride", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("next", ctypes.c_int32),
        ("first", ctypes.c_void_p),
        ("queries", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("mixed", ctypes.c_void_p),
        ("log_sum", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("query_gradient", ctypes.c_void_p),
        ("key_gradient", ctypes.c_void_p),
        ("value_gradient", ctypes.c_void_p),
    ]


def serves(head_dim: int) -> bool:
    """Whether this machine computes attention of such heads in tiles."""
    return head_dim % 32 == 0 and head_dim <= LARGEST_HEAD_DIM and tiles.available()


def forward(
    queries: Tensor, keys: Tensor, values: Tensor, first: Tensor, path: str
) -> tuple[Tensor, Tensor]:
    """Causal attention, the scores divided by the root of F.

    Args:
        queries: bfloat16 (B, T, H, F); F is a multiple of 32 up to LARGEST_HEAD_DIM.
        keys, values: bfloat16 (B, T, K, F).
        first: int32 (B or 1, T), never falling: position t sees the positions first[t] to t.
        path: one of `tiles.PATHS` that the machine has.

    Returns:
        What the heads mix, like `queries`; and the logarithm, to base 2, of each query's sum of
        exp(score), float32 (B, H, T).

    Raises:
        torch.OutOfMemoryError: there is no memory for a head's keys, values and gradients.
        ValueError: a tensor is of another type or shape, or has gaps.
    """
    batch, length, heads, _ = queries.shape
    mixed = torch.empty_like(queries)
    log_sum = queries.new_empty((batch, heads, length), dtype=torch.float32)
    work = _work(queries, keys, values, first, mixed, log_sum)
    tiles.run("attention_forward", path, work)
    return mixed, log_sum


def backward(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    first: Tensor,
    mixed: Tensor,
    log_sum: Tensor,
    path: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values from that of what `forward` mixed; it says more."""
    work = _work(queries, keys, values, first, mixed, log_sum)
    gradients = (torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values))
    work.gradient = tiles.address(gradient, torch.bfloat16, *queries.shape)
    work.query_gradient, work.key_gradient, work.value_gradient = (x.data_ptr() for x in gradients)
    tiles.run("attention_backward", path, work)
    return gradients


def attention(queries: Tensor, keys: Tensor, values: Tensor, first: Tensor) -> Tensor:
    """`forward` without the sums, which PyTorch can differentiate and compile."""
    inputs = (x.contiguous() for x in (queries, keys, values, first))
    return cast(Tensor, torch.ops.oneiros.attention(*inputs)[0])


@torch.library.custom_op("oneiros::attention", mutates_args=(), device_types="cpu")
def _attention(
    queries: Tensor, keys: Tensor, values: Tensor, first: Tensor
) -> tuple[Tensor, Tensor]:
    return forward(queries, keys, values, first, tiles.fastest())


@torch.library.custom_op("oneiros::attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    first: Tensor,
    mixed: Tensor,
    log_sum: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    path = tiles.fastest()
    return backward(gradient, queries, keys, values, first, mixed, log_sum, path)


@_attention.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = queries.shape
    log_sum = queries.new_empty((batch, heads, length), dtype=torch.float32)
    return torch.empty_like(queries), log_sum


@_attention_backward.register_fake
def _(
    gradient: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *_rest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(context: Any, gradient: Tensor, _of_sums: Tensor) -> tuple[Tensor | None, ...]:
    saved = context.saved_tensors
    gradients = torch.ops.oneiros.attention_backward(gradient.contiguous(), *saved)
    return (*gradients, None)


_attention.register_autograd(_differentiate, setup_context=_keep)


def _work(
    queries: Tensor, keys: Tensor, values: Tensor, first: Tensor, mixed: Tensor, log_sum: Tensor
) -> _Attention:
    """What both passes read."""
    batch, length, heads, head_dim = queries.shape
    kv_heads = keys.shape[2]
    if head_dim % 32 or head_dim > LARGEST_HEAD_DIM or kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"No kernel for {heads} heads of {head_dim} that share {kv_heads} keys.")
    by_head, by_kv_head = (batch, length, heads, head_dim), (batch, length, kv_heads, head_dim)
    return _Attention(
        rows=batch,
        positions=length,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        first_stride=length if len(first) > 1 else 0,
        scale=head_dim**-0.5,
        first=tiles.address(first, torch.int32, batch if len(first) > 1 else 1, length),
        queries=tiles.address(queries, torch.bfloat16, *by_head),
        keys=tiles.address(keys, torch.bfloat16, *by_kv_head),
        values=tiles.address(values, torch.bfloat16, *by_kv_head),
        mixed=tiles.address(mixed, torch.bfloat16, *by_head),
        log_sum=tiles.address(log_sum, torch.float32, batch, heads, length),
    )
