"""One named tensor of a parameter file, in its stored format."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oneiros.model.quantization import dequantize
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
