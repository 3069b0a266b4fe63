"""Block quantisation in NumPy: every stored format to float32, and float32 to some of them.

The layouts and the rounding are ggml's, so that files interchange with llama.cpp and its
tools bit for bit. A block of 32 (or 256 for the K formats) consecutive elements of one row is:

    Q8_0   d:f16, q:i8[32]                              x = d q
    Q4_0   d:f16, nibbles[16]                           x = d (q - 8)
    Q4_1   d:f16, m:f16, nibbles[16]                    x = d q + m
    Q5_0   d:f16, high:u32, nibbles[16]                 x = d (q - 16)
    Q5_1   d:f16, m:f16, high:u32, nibbles[16]          x = d q + m
    Q4_K   d:f16, dmin:f16, scales[12], nibbles[128]    x = d s q - dmin m     per 32 elements
    Q5_K   d:f16, dmin:f16, scales[12], high[32], nibbles[128]                 per 32 elements
    Q6_K   low[128], high[64], s:i8[16], d:f16          x = d s (q - 32)       per 16 elements

In the 32-element formats byte i of the nibbles holds element i (low) and element i + 16 (high).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from oneiros.model.tensor_types import TensorType

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Blocks are decoded in pieces so that the temporaries stay in cache and bounded for any tensor.
_PIECE_ELEMENTS = 1 << 18

_LOW_NIBBLE = np.uint8(15)

# No float16 scale reaches values beyond 65504 * 127.
_QUANTIZABLE_BELOW = 1e7


def dequantize(data: Bytes, tensor_type: TensorType) -> Floats:
    """The float32 values of stored blocks.

    Args:
        data: uint8 (n,), a whole number of blocks.
        tensor_type: how the elements are stored.

    Returns:
        float32 (n / block_bytes * block_size,), exactly the values that ggml computes.
    """
    if data.size % tensor_type.block_bytes:
        raise ValueError(f"{data.size} bytes are not a whole number of {tensor_type.name} blocks")
    blocks = data.reshape(-1, tensor_type.block_bytes)
    values = np.empty((len(blocks), tensor_type.block_size), np.float32)
    decode = _DECODERS[tensor_type]
    piece = max(1, _PIECE_ELEMENTS // tensor_type.block_size)
    # A damaged file may hold infinite scales; what comes of them is not worth a warning here.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(blocks), piece):
            part = blocks[start : start + piece]
            values[start : start + piece] = decode(part).reshape(len(part), -1)
    return values.reshape(-1)


def quantize(values: Floats, tensor_type: TensorType) -> Bytes:
    """Store float32 values as F32, F16, BF16, Q8_0, Q4_0 or Q4_1, rounded as ggml rounds.

    Args:
        values: float32, any shape whose last dimension is a multiple of the block size.
        tensor_type: one of `QUANTIZABLE`.

    Returns:
        uint8 (n,), the blocks in row-major order.

    Raises:
        ValueError: the type cannot be written, rows do not divide into blocks, or a finite
            value is too large for half precision (in F16, or as a scale), or a value is
            not finite and the type is quantised.
    """
    if tensor_type not in _ENCODERS:
        raise ValueError(f"writing {tensor_type.name} is not supported")
    if values.ndim == 0 or values.shape[-1] % tensor_type.block_size:
        raise ValueError(
            f"rows of shape {values.shape} do not divide into blocks of {tensor_type.block_size}"
        )
    # The bound also catches infinities and NaN, and keeps max - min inside float32.
    if tensor_type.quantized and not np.all(np.abs(values) < _QUANTIZABLE_BELOW):
        raise ValueError(f"values are not finite or too large for {tensor_type.name}")
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, tensor_type.block_size)
    stored = np.empty((len(blocks), tensor_type.block_bytes), np.uint8)
    encode = _ENCODERS[tensor_type]
    piece = max(1, _PIECE_ELEMENTS // tensor_type.block_size)
    for start in range(0, len(blocks), piece):
        stored[start : start + piece] = encode(blocks[start : start + piece])
    return stored.reshape(-1)


# --- decoding: uint8 (blocks, block_bytes) -> float32 (blocks, block_size) in any shape --------


def _half(blocks: Bytes, offset: int) -> Floats:
    """The float16 at byte `offset` of each block, as float32 (blocks, 1)."""
    return blocks[:, offset : offset + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(blocks: Bytes, offset: int) -> Bytes:
    """The 32 four-bit integers in the 16 bytes from `offset`, uint8 (blocks, 32)."""
    packed = blocks[:, offset : offset + 16]
    return np.concatenate((packed & _LOW_NIBBLE, packed >> 4), axis=1)


def _fifth_bits(blocks: Bytes, offset: int) -> Bytes:
    """Bit i of the little-endian u32 at `offset`, moved to bit 4 of element i: (blocks, 32)."""
    bits = np.unpackbits(blocks[:, offset : offset + 4], axis=1, bitorder="little")
    return np.left_shift(bits, 4, dtype=np.uint8)


def _decode_f32(blocks: Bytes) -> Floats:
    return blocks.copy().view(np.float32)


def _decode_f16(blocks: Bytes) -> Floats:
    return blocks.copy().view(np.float16).astype(np.float32)


def _decode_bf16(blocks: Bytes) -> Floats:
    return (blocks.copy().view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _decode_q8_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _decode_q4_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks, 2).astype(np.float32) - 8)


def _decode_q4_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _nibbles(blocks, 4).astype(np.float32) + _half(blocks, 2)


def _decode_q5_0(blocks: Bytes) -> Floats:
    integers = _nibbles(blocks, 6) | _fifth_bits(blocks, 2)
    return _half(blocks, 0) * (integers.astype(np.float32) - 16)


def _decode_q5_1(blocks: Bytes) -> Floats:
    integers = _nibbles(blocks, 8) | _fifth_bits(blocks, 4)
    return _half(blocks, 0) * integers.astype(np.float32) + _half(blocks, 2)


def _k_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """Eight 6-bit scales and minima from 12 bytes, each float32 (blocks, 8, 1).

    The first four of each fill the low six bits of bytes 0-3 and 4-7. The last four have their
    low nibbles in bytes 8-11 and their top two bits above the first four.
    """
    first, second, low = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate((first & 63, (low & 15) | (first >> 6 << 4)), axis=1)
    minima = np.concatenate((second & 63, (low >> 4) | (second >> 6 << 4)), axis=1)
    return scales.astype(np.float32)[..., None], minima.astype(np.float32)[..., None]


def _k_nibbles(packed: Bytes) -> Bytes:
    """256 four-bit integers from 128 bytes: each 32 bytes hold 32 low nibbles, then 32 high."""
    groups = packed.reshape(-1, 4, 1, 32)
    shifts = np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    integers: Bytes = groups >> shifts & _LOW_NIBBLE
    return integers.reshape(-1, 8, 32)


def _decode_k(blocks: Bytes, integers: Bytes) -> Floats:
    scales, minima = _k_scales(blocks[:, 4:16])
    scale = _half(blocks, 0)[..., None] * scales
    return scale * integers.astype(np.float32) - _half(blocks, 2)[..., None] * minima


def _decode_q4_k(blocks: Bytes) -> Floats:
    return _decode_k(blocks, _k_nibbles(blocks[:, 16:144]))


def _decode_q5_k(blocks: Bytes) -> Floats:
    # Bit g of byte i of `high` is the fifth bit of element i of group g.
    shifts = np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    fifth = (blocks[:, None, 16:48] >> shifts & np.uint8(1)) << np.uint8(4)
    return _decode_k(blocks, _k_nibbles(blocks[:, 48:176]) | fifth)


def _decode_q6_k(blocks: Bytes) -> Floats:
    # Each half of the block: 64 bytes with the low nibbles of elements 0-63, then 64-127, and
    # 32 bytes whose bit pairs are the top bits of elements 0-31, 32-63, 64-95 and 96-127.
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    pairs = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> pairs
    integers = (low & 15).reshape(-1, 256) | ((high & 3) << 4).reshape(-1, 256)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    scale = (_half(blocks, 208) * scales)[..., None]
    return scale * (integers.reshape(-1, 16, 16).astype(np.float32) - 32)


_DECODERS: dict[TensorType, Callable[[Bytes], Floats]] = {
    TensorType.F32: _decode_f32,
    TensorType.F16: _decode_f16,
    TensorType.BF16: _decode_bf16,
    TensorType.Q8_0: _decode_q8_0,
    TensorType.Q4_0: _decode_q4_0,
    TensorType.Q4_1: _decode_q4_1,
    TensorType.Q5_0: _decode_q5_0,
    TensorType.Q5_1: _decode_q5_1,
    TensorType.Q4_K: _decode_q4_k,
    TensorType.Q5_K: _decode_q5_k,
    TensorType.Q6_K: _decode_q6_k,
}


# --- encoding: float32 (blocks, block_size) -> uint8 (blocks, block_bytes) ---------------------


def _to_half(values: Floats) -> Bytes:
    """Float32 (blocks, n) as the bytes of float16, uint8 (blocks, 2 n)."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if np.any(np.isinf(halves) & np.isfinite(values)):
        raise ValueError("a value exceeds the range of half precision (65504)")
    return halves.view(np.uint8)


def _reciprocal(scale: Floats) -> Floats:
    """1 / scale, and 0 where the scale is 0 or so small that the quotient would overflow."""
    with np.errstate(divide="ignore", over="ignore"):
        reciprocal = np.float32(1) / scale
    return np.where(np.isfinite(reciprocal), reciprocal, np.float32(0))


def _pack_nibbles(integers: Bytes) -> Bytes:
    return integers[:, :16] | integers[:, 16:] << np.uint8(4)


def _encode_f32(values: Floats) -> Bytes:
    return values.view(np.uint8)


def _encode_f16(values: Floats) -> Bytes:
    return _to_half(values)


def _encode_bf16(values: Floats) -> Bytes:
    bits = values.view(np.uint32)
    rounded = bits + (0x7FFF + (bits >> 16 & 1))  # to nearest, ties to even
    quiet = bits | 0x400000  # a NaN stays one, whatever its payload
    return (np.where(np.isnan(values), quiet, rounded) >> 16).astype(np.uint16).view(np.uint8)


def _encode_q8_0(values: Floats) -> Bytes:
    scale = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values * _reciprocal(scale)
    whole = np.trunc(scaled)
    # Halves away from zero, as C's roundf; adding 0.5 first would round 0.49999997 up.
    integers = whole + np.trunc(2 * (scaled - whole))
    return np.concatenate((_to_half(scale), integers.astype(np.int8).view(np.uint8)), axis=1)


def _encode_q4_0(values: Floats) -> Bytes:
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)
    scale = largest / np.float32(-8)
    integers = np.trunc(values * _reciprocal(scale) + np.float32(8.5)).clip(0, 15)
    return np.concatenate((_to_half(scale), _pack_nibbles(integers.astype(np.uint8))), axis=1)


def _encode_q4_1(values: Floats) -> Bytes:
    least = values.min(axis=1, keepdims=True)
    scale = (values.max(axis=1, keepdims=True) - least) / np.float32(15)
    integers = np.trunc((values - least) * _reciprocal(scale) + np.float32(0.5)).clip(0, 15)
    packed = _pack_nibbles(integers.astype(np.uint8))
    return np.concatenate((_to_half(scale), _to_half(least), packed), axis=1)


_ENCODERS: dict[TensorType, Callable[[Floats], Bytes]] = {
    TensorType.F32: _encode_f32,
    TensorType.F16: _encode_f16,
    TensorType.BF16: _encode_bf16,
    TensorType.Q8_0: _encode_q8_0,
    TensorType.Q4_0: _encode_q4_0,
    TensorType.Q4_1: _encode_q4_1,
}

QUANTIZABLE = frozenset(_ENCODERS)
