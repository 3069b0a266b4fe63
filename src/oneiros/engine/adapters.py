"""Adapters as the kernels read them: A as it is, B in groups of 16 rows, both float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oneiros.engine import library
from oneiros.engine.machine import huge_pages
from oneiros.model.adapter import Adapter, LowRank

MATRICES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "output": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
"""Fields of `struct layer` -> parts of the names of tensors."""


def adapter_bytes(adapter: Adapter) -> int:
    """Bytes that an adapter takes as the kernels read it."""
    return sum(low.a.nbytes + _grouped_bytes(low.b) for low in adapter.matrices.values())


class PackedAdapter:
    """The `struct adapters` of every layer, and the numbers that they point to."""

    def __init__(self, adapter: Adapter, layers: int) -> None:
        self._data = huge_pages(adapter_bytes(adapter)).view(np.float32)
        self._used = 0
        self.layers = (library.Adapters * layers)()
        for index, beside in enumerate(self.layers):  # in the order in which they are read
            for field, name in MATRICES.items():
                low = adapter.matrices.get(f"blk.{index}.{name}.weight")
                if low is not None:
                    setattr(beside, field, self._packed(low))

    def _packed(self, low: LowRank) -> library.Adapter:
        rows, rank = low.b.shape
        groups = -(-rows // library.GROUP_ROWS)
        b = np.zeros((groups * library.GROUP_ROWS, rank), np.float32)
        b[:rows] = low.b
        grouped = b.reshape(groups, library.GROUP_ROWS, rank).swapaxes(1, 2)
        matrix = library.Matrix(
            self._put(grouped), 4 * library.GROUP_ROWS * rank, rows, rank, library.FORMAT_F32, 0
        )
        return library.Adapter(self._put(low.a), matrix)

    def _put(self, values: NDArray[np.float32]) -> int:
        place = self._data[self._used : self._used + values.size]
        place[:] = values.reshape(-1)
        self._used += values.size
        return int(place.ctypes.data)


def _grouped_bytes(b: NDArray[np.float32]) -> int:
    rows, rank = b.shape
    return int(-(-rows // library.GROUP_ROWS) * library.GROUP_ROWS * rank * b.itemsize)
