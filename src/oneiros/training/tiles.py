"""The C kernels of training: products of bfloat16 in the tile registers of CPUs with AMX.

`tile_attention.py` and `tile_products.py` make operations of PyTorch of them. Both sides compute on
the same threads.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from oneiros.engine.library import choose_instruction_path
from oneiros.errors import KernelError

PATHS = ("portable", "tiles")
"""Of instructions. The portable one is there to be compared with."""


@functools.cache
def available() -> bool:
    """Whether this machine computes in tiles, on threads that PyTorch shares.

    `ONEIROS_INSTRUCTIONS`, set to less than "amx", forbids it, as it does in the engine.
    """
    return choose_instruction_path() == "amx" and has_tiles() and _openmp() is not None


@functools.cache
def has_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16.

    Raises:
        KernelError: the kernels have not been built.
    """
    return bool(_kernels().oneiros_has_tiles())


def fastest() -> str:
    """The one of PATHS to take."""
    return "tiles" if has_tiles() else "portable"


def run(name: str, path: str, work: ctypes.Structure) -> None:
    """Call a kernel on as many threads as PyTorch uses.

    Args:
        name: of the function, without "oneiros_" and the path.
        path: one of PATHS that the machine has.
        work: the structure that it takes, of kernels/kernels.h; its `next` is 0.

    Raises:
        torch.OutOfMemoryError: there was no memory for what it computes with.
        KernelError: the machine has no tiles, and these were asked for.
    """
    if path == "tiles" and not has_tiles():  # which also asks the system's leave to use them
        raise KernelError("This processor has no tiles of bfloat16 (AMX-BF16).")
    function = getattr(_kernels(), f"oneiros_{name}_{path}")
    parallel = _openmp()
    if parallel is None:
        function(ctypes.byref(work))
    else:
        # Threads of our own would share the cores with PyTorch's, which stay awake for a while.
        parallel(function, ctypes.byref(work), torch.get_num_threads(), 0)
    if not work.next:  # no thread did anything
        raise torch.OutOfMemoryError(f"There is no memory for {name}.")


def address(tensor: Tensor, dtype: torch.dtype, *shape: int) -> int:
    """Where a kernel finds a tensor.

    Raises:
        ValueError: the tensor is not of this type and shape, without gaps, on the CPU.
    """
    right = tensor.dtype is dtype and tensor.shape == shape and tensor.is_contiguous()
    if not right or tensor.device.type != "cpu":
        raise ValueError(
            f"A kernel wants {dtype} {shape} without gaps on the CPU, and was given "
            f"{tensor.dtype} {(*tensor.shape,)} with strides {tensor.stride()} on {tensor.device}."
        )
    return tensor.data_ptr()


@functools.cache
def _kernels() -> ctypes.CDLL:
    path = Path(__file__).with_name("_kernels.so")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(
            f"The C kernels of training do not load ({error}). "
            "In a source tree run `make kernels`; otherwise reinstall the package."
        ) from error


@functools.cache
def _openmp() -> Callable[..., None] | None:
    """`GOMP_parallel` of the OpenMP that PyTorch runs on; None: that has no such function."""
    try:
        # A library's handle finds what it is linked with, too.
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        function = torch_cpu.GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    return cast(Callable[..., None], function)
