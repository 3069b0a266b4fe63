"""Storage formats of tensor elements, numbered as in GGUF."""

from __future__ import annotations

from enum import IntEnum


class TensorType(IntEnum):
    """How a tensor's elements are stored; the value is the GGUF type id.

    Quantised formats store blocks of consecutive elements of one row: small integers with a
    scale, and in some formats a minimum. The layouts are described in `quantization`.
    """

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30

    @property
    def block_size(self) -> int:
        """Elements in one block; a row holds a whole number of blocks."""
        return _BLOCKS[self][0]

    @property
    def block_bytes(self) -> int:
        """Stored bytes of one block."""
        return _BLOCKS[self][1]

    @property
    def quantized(self) -> bool:
        """Whether elements share scales, so that storing rounds more than a float format does."""
        return self.block_size > 1

    def bytes_for(self, elements: int) -> int:
        """Stored bytes of `elements` elements, a multiple of `block_size`."""
        return elements // self.block_size * self.block_bytes


_BLOCKS = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.BF16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q5_0: (32, 22),
    TensorType.Q5_1: (32, 24),
    TensorType.Q8_0: (32, 34),
    TensorType.Q4_K: (256, 144),
    TensorType.Q5_K: (256, 176),
    TensorType.Q6_K: (256, 210),
}
