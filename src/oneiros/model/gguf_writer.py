"""Writing GGUF version 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from oneiros.model.gguf import DEFAULT_ALIGNMENT, MAGIC, SCALARS, GGUFArray, GGUFType
from oneiros.model.replacement import replacing_file
from oneiros.model.tensor import PendingTensor

VERSION = 3

Progress = Callable[[int, int], None]  # bytes of tensor data written so far, and in all


def write_gguf(
    path: Path,
    metadata: Mapping[str, object],
    tensors: Sequence[PendingTensor],
    *,
    progress: Progress | None = None,
) -> None:
    """Write a GGUF file; it appears under `path` when it is whole.

    Args:
        path: where to; a file that is there is replaced.
        metadata: str, bool, int (uint32 if it fits, else int64 or uint64), float (float32),
            `GGUFArray` (copied), or a sequence of one of str, bool, int (int32 if all fit) or
            float. `general.alignment` is the writer's own and is left out.
        tensors: in file order; at most one piece of one of them is in memory at a time.
        progress: called after every piece.

    Raises:
        ModelFileError: the file cannot be written.
        ValueError: a tensor's pieces are not as many bytes as its shape and type say.
        TypeError: a metadata value has a type that GGUF lacks.
    """
    pairs = {key: value for key, value in metadata.items() if key != "general.alignment"}
    header = bytearray(MAGIC)
    header += _number(GGUFType.UINT32, VERSION)
    header += _number(GGUFType.UINT64, len(tensors)) + _number(GGUFType.UINT64, len(pairs))
    for key, value in pairs.items():
        kind, content = _value(key, value)
        header += _text(key) + _number(GGUFType.UINT32, kind) + content
    offset = 0
    for tensor in tensors:
        header += _text(tensor.name) + _number(GGUFType.UINT32, len(tensor.shape))
        for length in reversed(tensor.shape):
            header += _number(GGUFType.UINT64, length)
        header += _number(GGUFType.UINT32, tensor.type) + _number(GGUFType.UINT64, offset)
        offset += _aligned(tensor.size)
    header += bytes(_aligned(len(header)) - len(header))
    total, done = sum(tensor.size for tensor in tensors), 0
    with replacing_file(path) as file:
        file.write(header)
        for tensor in tensors:
            for piece in tensor.checked_pieces():
                file.write(piece.data)
                done += piece.nbytes
                if progress is not None:
                    progress(done, total)
            file.write(bytes(_aligned(tensor.size) - tensor.size))


def _aligned(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _number(kind: GGUFType, number: int | float) -> bytes:
    return SCALARS[kind].pack(number)


def _text(text: str) -> bytes:
    data = text.encode()
    return _number(GGUFType.UINT64, len(data)) + data


def _value(key: str, value: object) -> tuple[GGUFType, bytes]:
    match value:
        case str():
            return GGUFType.STRING, _text(value)
        case bool():
            return GGUFType.BOOL, _number(GGUFType.BOOL, value)
        case int():
            kind = _integer_type(value)
            return kind, _number(kind, value)
        case float():
            return GGUFType.FLOAT32, _number(GGUFType.FLOAT32, value)
        case GGUFArray():
            return GGUFType.ARRAY, _array_head(value.item_type, len(value)) + value.stored()
        case Sequence():
            kind, content = _items(key, value)
            return GGUFType.ARRAY, _array_head(kind, len(value)) + content
    raise TypeError(f"metadata {key!r}: GGUF has no type for {type(value).__name__}")


def _integer_type(number: int) -> GGUFType:
    if 0 <= number < 1 << 32:
        return GGUFType.UINT32
    return GGUFType.INT64 if -(1 << 63) <= number < 1 << 63 else GGUFType.UINT64


def _array_head(kind: GGUFType, count: int) -> bytes:
    return _number(GGUFType.UINT32, kind) + _number(GGUFType.UINT64, count)


def _items(key: str, items: Sequence[object]) -> tuple[GGUFType, bytes]:
    if all(isinstance(item, str) for item in items):
        return GGUFType.STRING, b"".join(_text(str(item)) for item in items)
    if all(isinstance(item, bool) for item in items):
        return GGUFType.BOOL, bytes(bool(item) for item in items)
    if all(isinstance(item, int) for item in items):
        numbers = np.array(items, np.int64)
        if np.array_equal(numbers.astype(np.int32), numbers):
            return GGUFType.INT32, numbers.astype("<i4").tobytes()
        return GGUFType.INT64, numbers.astype("<i8").tobytes()
    if all(isinstance(item, float) for item in items):
        return GGUFType.FLOAT32, np.array(items, "<f4").tobytes()
    raise TypeError(f"metadata {key!r}: the elements of an array must have one type")
