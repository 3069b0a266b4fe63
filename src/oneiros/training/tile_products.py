"""Products with weights whose gradient is computed in tiles, on CPUs with AMX.

PyTorch multiplies activations by weights at twice the rate at which it multiplies two tall matrices
over their rows, which is what the gradient of weights is. Here it is a kernel in C that sums in
float32, and gives float32: the weights' own type, without a detour through bfloat16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from oneiros.training import tiles

_LARGEST_PIECE = 1024  # columns of a factor that a thread has in its cache


class _WeightGradient(ctypes.Structure):
    """`struct weight_gradient` of kernels/kernels.h."""

    _fields_: ClassVar = [
        ("rows", ctypes.c_int32),
        ("left_columns", ctypes.c_int32),
        ("right_columns", ctypes.c_int32),
        ("left_piece", ctypes.c_int32),
        ("right_piece", ctypes.c_int32),
        ("next", ctypes.c_int32),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    ]


def serves(rows: int, columns: int) -> bool:
    """Whether this machine computes the gradient of such a matrix in tiles."""
    return rows % 32 == 0 and columns % 32 == 0 and tiles.available()


def product(x: Tensor, weight: Tensor) -> Tensor:
    """What `functional.linear` gives: bfloat16 (..., in) and float32 (out, in) -> (..., out)."""
    return cast(Callable[[Tensor, Tensor], Tensor], _Product.apply)(x, weight)


def weight_gradient(left: Tensor, right: Tensor, path: str) -> Tensor:
    """The product left^T right.

    Args:
        left: bfloat16 (rows, M); M is a multiple of 32.
        right: bfloat16 (rows, N); N is a multiple of 32.
        path: one of `tiles.PATHS` that the machine has.

    Returns:
        float32 (M, N).

    Raises:
        torch.OutOfMemoryError: there is no memory for two blocks.
        ValueError: a tensor is of another type or shape, or has gaps.
    """
    rows, down = left.shape
    across = right.shape[1]
    if down % 32 or across % 32 or down < 32 or across < 32:
        raise ValueError(f"No kernel for a matrix of {down} x {across}: not multiples of 32.")
    out = torch.empty(down, across, dtype=torch.float32)
    left_piece, right_piece = _pieces(down, across, torch.get_num_threads())
    work = _WeightGradient(
        rows=rows,
        left_columns=down,
        right_columns=across,
        left_piece=left_piece,
        right_piece=right_piece,
        left=tiles.address(left, torch.bfloat16, rows, down),
        right=tiles.address(right, torch.bfloat16, rows, across),
        out=out.data_ptr(),
    )
    tiles.run("weight_gradient", path, work)
    return out


def _pieces(down: int, across: int, threads: int) -> tuple[int, int]:
    """Sizes of parts of a result: one for each thread, which fit the cache and are not narrow."""
    pieces = [down, across]
    parts = 1
    while parts < threads or max(pieces) > _LARGEST_PIECE:
        longer = pieces.index(max(pieces))
        if pieces[longer] == 32:
            break
        pieces[longer] = -(-pieces[longer] // 64) * 32
        parts = -(-down // pieces[0]) * -(-across // pieces[1])
    return pieces[0], pieces[1]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor) -> Tensor:
        narrow = weight.to(x.dtype)
        context.save_for_backward(x, narrow)
        return functional.linear(x, narrow)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, narrow = context.saved_tensors
        of_x, of_weight = None, None
        if context.needs_input_grad[0]:
            of_x = gradient @ narrow
        if context.needs_input_grad[1]:
            of_weight = torch.ops.oneiros.weight_gradient(
                gradient.reshape(-1, narrow.shape[0]).contiguous(),
                x.reshape(-1, narrow.shape[1]).contiguous(),
            )
        return of_x, of_weight


@torch.library.custom_op("oneiros::weight_gradient", mutates_args=(), device_types="cpu")
def _weight_gradient(left: Tensor, right: Tensor) -> Tensor:
    return weight_gradient(left, right, tiles.fastest())


@_weight_gradient.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty((left.shape[1], right.shape[1]), dtype=torch.float32)
