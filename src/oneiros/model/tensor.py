"""Named tensors of a parameter file, in their stored format: as read, and to be written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneiros.model.quantization import dequantize, quantize
from oneiros.model.tensor_types import TensorType


@dataclass(frozen=True, slots=True)
class Tensor:
    """A read-only view of stored elements; nothing is read before `data` is touched."""

    name: str
    type: TensorType
    shape: tuple[int, ...]  # row-major: a matrix is (rows, columns)
    data: NDArray[np.uint8]  # (stored bytes,), memory-mapped; a whole number of blocks per row

    def float32(self) -> NDArray[np.float32]:
        """The elements as float32, in `shape`."""
        return dequantize(self.data, self.type).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class PendingTensor:
    """A tensor to be written: its bytes are made piece by piece when its turn comes."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[NDArray[np.uint8]]]  # together `size` bytes, in order

    @property
    def size(self) -> int:
        """Bytes that the pieces add up to."""
        return self.type.bytes_for(math.prod(self.shape))

    def checked_pieces(self) -> Iterator[NDArray[np.uint8]]:
        """The pieces, for a writer.

        Raises:
            ValueError: they are not `size` bytes together; a file would be wrong from there on.
        """
        written = 0
        for piece in self.pieces():
            yield piece
            written += piece.nbytes
        if written != self.size:
            raise ValueError(f"{self.name}: {written} bytes given, its shape needs {self.size}")

    @staticmethod
    def stored(tensor: Tensor) -> PendingTensor:
        """A tensor that is copied as it stands."""
        return PendingTensor(tensor.name, tensor.type, tensor.shape, lambda: [tensor.data])

    @staticmethod
    def encoded(name: str, values: NDArray[np.float32], tensor_type: TensorType) -> PendingTensor:
        """Float32 values, stored as `tensor_type` when they are written."""
        return PendingTensor(
            name, tensor_type, values.shape, lambda: [quantize(values, tensor_type)]
        )
