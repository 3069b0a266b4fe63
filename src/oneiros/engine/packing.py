"""Weights in the layout that the kernels read: made once, read from a cache afterwards.

A packed file is a JSON header (one line, padded to 4096 bytes) and the groups of every matrix
(kernels/oneiros.h). It belongs to one state of its source files: their paths, sizes and times.

It is read into huge pages rather than mapped: decoding reads all weights for every token, and where
they do not fit the cache, translating the addresses of small pages costs a quarter of the speed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.engine.library import GROUP_ROWS, Matrix, kernel_version, kernels
from oneiros.engine.machine import huge_pages, usable_cores
from oneiros.model.parameters import Parameters, Tensor

Progress = Callable[[int, int], None]  # bytes done, bytes in all

_ALIGNMENT = 4096
_ROWS_AT_ONCE = 4096
_PIECE_BYTES = 8 << 20
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Where a matrix lies in the packed bytes."""

    offset: int  # bytes
    format: int  # enum format in oneiros.h
    rows: int
    columns: int
    group_bytes: int

    @property
    def size(self) -> int:
        """Bytes, the last group filled up with zeros."""
        return -(-self.rows // GROUP_ROWS) * self.group_bytes


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """All matrices of a model, and the hash of the parameters that they were made from."""

    data: NDArray[np.uint8]  # read-only
    matrices: dict[str, PackedMatrix]
    sha256: str

    def matrix(self, name: str) -> Matrix:
        """The C view of a matrix; valid for as long as this object lives."""
        m = self.matrices[name]
        address = self.data.ctypes.data + m.offset
        return Matrix(address, m.group_bytes, m.rows, m.columns, m.format, 0)


def packed_weights(
    parameters: Parameters, cache: Path | None, progress: Progress | None = None
) -> PackedWeights:
    """Pack a model's matrices, or read what an earlier call left in `cache`.

    Without a cache, or where it cannot be written, the weights are packed into memory.
    """
    if cache is None:
        return _pack_into_memory(parameters, progress)
    path = cache / f"{_source_key(parameters)}.packed"
    found = _read(path, parameters)
    if found is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _remove_superseded(cache, parameters)
        _write(path, parameters, progress)
    except OSError:
        return _pack_into_memory(parameters, progress)
    written = _read(path, parameters)
    return written if written is not None else _pack_into_memory(parameters, progress)


def _source_key(parameters: Parameters) -> str:
    states = [(str(p.resolve()), p.stat()) for p in parameters.source_files]
    facts = [(path, s.st_size, s.st_mtime_ns, s.st_ino) for path, s in states]
    text = json.dumps([kernel_version(), facts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _matrices(parameters: Parameters) -> Iterator[Tensor]:
    return (t for t in parameters.tensors.values() if len(t.shape) == 2)


def packed_layout(parameters: Parameters) -> tuple[dict[str, PackedMatrix], int]:
    """Where each matrix goes, and the bytes of all together."""
    matrices: dict[str, PackedMatrix] = {}
    offset = 0
    for tensor in _matrices(parameters):
        rows, columns = tensor.shape
        packed_format = kernels().oneiros_packed_format(int(tensor.type))
        group_bytes = kernels().oneiros_group_bytes(packed_format, columns)
        matrix = PackedMatrix(offset, packed_format, rows, columns, group_bytes)
        matrices[tensor.name] = matrix
        offset += matrix.size
    return matrices, offset


def _pieces(
    parameters: Parameters, matrices: dict[str, PackedMatrix]
) -> Iterator[NDArray[np.uint8]]:
    """Packed bytes in order, some thousand rows at a time."""
    for tensor in _matrices(parameters):
        rows, columns = tensor.shape
        group_bytes = matrices[tensor.name].group_bytes
        row_bytes = tensor.type.bytes_for(columns)
        for first in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - first)
            source = np.ascontiguousarray(
                tensor.data[first * row_bytes : (first + count) * row_bytes]
            )
            packed = np.zeros(-(-count // GROUP_ROWS) * group_bytes, np.uint8)
            kernels().oneiros_pack(
                int(tensor.type), source.ctypes.data, count, columns, packed.ctypes.data
            )
            yield packed


def _pack_into_memory(parameters: Parameters, progress: Progress | None) -> PackedWeights:
    matrices, size = packed_layout(parameters)
    data = huge_pages(size)
    done = 0
    for packed in _pieces(parameters, matrices):
        data[done : done + packed.size] = packed
        done += packed.size
        if progress is not None:
            progress(done, size)
    data.flags.writeable = False
    return PackedWeights(data, matrices, parameters.sha256())


def _write(path: Path, parameters: Parameters, progress: Progress | None) -> None:
    matrices, size = packed_layout(parameters)
    fields = PackedMatrix.__slots__
    header = {
        "sources": _sources(parameters),
        "sha256": parameters.sha256(),
        "size": size,
        "matrices": {n: [getattr(m, f) for f in fields] for n, m in matrices.items()},
    }
    text = json.dumps(header).encode() + b"\n"
    text += b" " * (-len(text) % _ALIGNMENT)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            done = 0
            for packed in _pieces(parameters, matrices):
                file.write(packed.data)
                done += packed.size
                if progress is not None:
                    progress(done, size)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _sources(parameters: Parameters) -> list[str]:
    return [str(source.resolve()) for source in parameters.source_files]


def _remove_superseded(cache: Path, parameters: Parameters) -> None:
    """Delete packed files of an earlier state of this model or of models that are gone, and what
    killed processes left half written."""
    for path in cache.glob("*.part"):
        with suppress(OSError):  # another process may be quicker
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
    for path in cache.glob("*.packed"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            with path.open("rb") as file:
                sources = json.loads(file.readline())["sources"]
            if sources == _sources(parameters) or not all(Path(s).exists() for s in sources):
                path.unlink()


def _read(path: Path, parameters: Parameters) -> PackedWeights | None:
    """A packed file; None if there is none, or it is not one of this model, or not whole."""
    matrices, size = packed_layout(parameters)
    try:
        with path.open("rb") as file:
            text = file.readline()
            header = json.loads(text)
            start = len(text) + -len(text) % _ALIGNMENT
            if os.fstat(file.fileno()).st_size != start + size:
                return None
            if {n: PackedMatrix(*m) for n, m in header["matrices"].items()} != matrices:
                return None
            sha256 = str(header["sha256"])
            data = huge_pages(size)
            _read_in_parallel(file.fileno(), start, data)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    data.flags.writeable = False
    return PackedWeights(data, matrices, sha256)


def _read_in_parallel(file: int, start: int, data: NDArray[np.uint8]) -> None:
    """Fill `data` from a file's bytes at `start`: copying out of the page cache fills one core."""

    def read(first: int) -> None:
        piece = data.data[first : first + _PIECE_BYTES]
        while piece:
            count = os.preadv(file, [piece], start + first)
            if count == 0:
                raise ValueError("the packed file ends early")
            first, piece = first + count, piece[count:]

    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(read, range(0, data.size, _PIECE_BYTES)))
