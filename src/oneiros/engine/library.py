"""The C kernels, loaded with ctypes; the structs mirror kernels/oneiros.h."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import ClassVar

from oneiros.errors import KernelError

INSTRUCTION_PATHS = ("portable", "avx2", "avx512", "amx")
"""In rising order of speed; "amx" is AVX-512 with tile registers for prompts, and the same bits."""

PATH_VARIABLE = "ONEIROS_INSTRUCTIONS"

MAX_ROWS = 512
"""Tokens in one call of the kernels; longer work is cut, which changes no bit of the result."""

PAGE_TOKENS = 32
GROUP_ROWS = 16
LARGEST_HEAD_DIM = 256
LARGEST_WIDTH = 1 << 16  # a thread's stack holds 16 bytes for each column of a matrix
MOST_HEADS_PER_KV_HEAD = 64
LAYER_MATRICES = ("q", "k", "v", "output", "gate", "up", "down")
FORMAT_F32 = 8


class Matrix(ctypes.Structure):
    """`struct matrix`: packed weights."""

    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("group_bytes", ctypes.c_int64),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    ]


class Adapter(ctypes.Structure):
    """`struct adapter`: what is added beside a matrix."""

    _fields_: ClassVar = [("a", ctypes.c_void_p), ("b", Matrix)]


class Adapters(ctypes.Structure):
    """`struct adapters`, of one layer."""

    _fields_: ClassVar = [(name, Adapter) for name in LAYER_MATRICES]


class Layer(ctypes.Structure):
    """`struct layer`."""

    _fields_: ClassVar = [
        *[
            (name, ctypes.c_void_p)
            for name in (
                "attention_norm",
                "ffn_norm",
                "q_norm",
                "k_norm",
                "q_bias",
                "k_bias",
                "v_bias",
            )
        ],
        *[(name, Matrix) for name in LAYER_MATRICES],
        ("adapters", ctypes.POINTER(Adapters)),
    ]


class Model(ctypes.Structure):
    """`struct model`."""

    _fields_: ClassVar = [
        ("layers", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("ffn_width", ctypes.c_int32),
        ("vocabulary", ctypes.c_int32),
        ("rope_dim", ctypes.c_int32),
        ("rope_interleaved", ctypes.c_int32),
        ("rms_epsilon", ctypes.c_float),
        ("rope_frequencies", ctypes.c_void_p),
        ("final_norm", ctypes.c_void_p),
        ("layer", ctypes.POINTER(Layer)),
        ("embedding", Matrix),
        ("head", Matrix),
    ]


class Batch(ctypes.Structure):
    """`struct batch`."""

    _fields_: ClassVar = [
        ("rows", ctypes.c_int32),
        ("runs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("tokens", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("run_start", ctypes.c_void_p),
        ("page_tables", ctypes.c_void_p),
        ("output_rows", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    ]


class Sampling(ctypes.Structure):
    """`struct sampling`."""

    _fields_: ClassVar = [
        ("temperature", ctypes.c_float),
        ("top_p", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("top_k", ctypes.c_int32),
    ]


@cache
def kernels() -> ctypes.CDLL:
    """The shared library, its functions' types declared.

    Raises:
        KernelError: it has not been built, or does not load on this machine.
    """
    path = Path(__file__).with_name("_kernels.so")
    if not path.exists():
        raise KernelError(
            f"The C kernels are not built ({path.name} is not beside {Path(__file__).parent}). "
            "In a source tree run `make kernels`; otherwise reinstall the package."
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"The C kernels do not load on this machine: {error}") from error
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    for name, result, arguments in (
        ("kernel_version", integer, []),
        ("best_instruction_path", integer, []),
        ("engine_new", pointer, [ctypes.POINTER(Model), integer, integer, integer]),
        ("engine_free", None, [pointer]),
        ("step", integer, [pointer, ctypes.POINTER(Batch)]),
        ("embedding", None, [ctypes.POINTER(Model), integer, pointer]),
        ("page_bytes", long, [ctypes.POINTER(Model)]),
        ("packed_format", integer, [integer]),
        ("group_bytes", long, [integer, integer]),
        ("pack", integer, [integer, pointer, long, long, pointer]),
        (
            "sample",
            integer,
            [pointer, integer, ctypes.POINTER(Sampling), ctypes.c_double],
        ),
        ("mask_logits", None, [pointer, pointer, integer]),
        (
            "log_probabilities",
            None,
            [pointer, long, integer, integer, pointer, pointer],
        ),
    ):
        function = getattr(library, "oneiros_" + name)
        function.restype, function.argtypes = result, arguments
    return library


def kernel_version() -> int:
    """Changes whenever a bit of any logit may change; part of everything that is stored."""
    return int(kernels().oneiros_kernel_version())


def arithmetic_of(instruction_path: str) -> str:
    """How a path rounds: the vector paths fuse multiplications and additions in the same places."""
    return "portable" if instruction_path == "portable" else "fma"


def choose_instruction_path() -> str:
    """The fastest path that this processor has, or the one that ONEIROS_INSTRUCTIONS names.

    Raises:
        KernelError: the variable names no path, or one that this processor or build lacks.
    """
    best = int(kernels().oneiros_best_instruction_path())
    wanted = os.environ.get(PATH_VARIABLE, "").strip().lower()
    if not wanted:
        return INSTRUCTION_PATHS[best]
    if wanted not in INSTRUCTION_PATHS:
        raise KernelError(
            f"{PATH_VARIABLE}={wanted}: no such instruction path. "
            f"Use one of {', '.join(INSTRUCTION_PATHS)}, or unset it."
        )
    if INSTRUCTION_PATHS.index(wanted) > best:
        raise KernelError(
            f"{PATH_VARIABLE}={wanted}: this machine runs at most {INSTRUCTION_PATHS[best]}."
        )
    return wanted
