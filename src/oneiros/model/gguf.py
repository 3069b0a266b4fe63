"""Reading GGUF, versions 2 and 3: metadata and tensors of an untrusted file.

The layout is that of ggml's gguf.md: a header, key/value pairs, tensor descriptions, and an
aligned data section. Every count, length and offset is checked against the file before use.
Arrays (a vocabulary has 50,000 strings or more) are walked when the file is opened and decoded
only when they are read.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import OTHER_ENGINE
from oneiros.model.mapped_file import map_file
from oneiros.model.tensor import Tensor
from oneiros.model.tensor_types import TensorType

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32

# Far above any real file, and low enough that the Python objects stay small beside the file.
_MOST_ENTRIES = 1 << 16
_MOST_DIMENSIONS = 4
_MOST_NESTING = 4
_LONGEST_NAME = 1024


class GGUFType(IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALARS = {
    GGUFType.UINT8: struct.Struct("<B"),
    GGUFType.INT8: struct.Struct("<b"),
    GGUFType.UINT16: struct.Struct("<H"),
    GGUFType.INT16: struct.Struct("<h"),
    GGUFType.UINT32: struct.Struct("<I"),
    GGUFType.INT32: struct.Struct("<i"),
    GGUFType.FLOAT32: struct.Struct("<f"),
    GGUFType.BOOL: struct.Struct("<B"),
    GGUFType.UINT64: struct.Struct("<Q"),
    GGUFType.INT64: struct.Struct("<q"),
    GGUFType.FLOAT64: struct.Struct("<d"),
}
_U32 = SCALARS[GGUFType.UINT32]
_U64 = SCALARS[GGUFType.UINT64]

# Fewest bytes that one element of an array can take; an array of n elements that has not n times
# as many bytes before it ends is refused before anything is done for it.
_LEAST_BYTES = {kind: scalar.size for kind, scalar in SCALARS.items()} | {
    GGUFType.STRING: 8,
    GGUFType.ARRAY: 12,
}


@dataclass(frozen=True, slots=True)
class GGUFArray:
    """An array in the metadata, decoded when `values()` is called."""

    item_type: GGUFType
    count: int
    offset: int  # byte in the file where the first element starts
    end: int  # byte after the last element
    _source: _Source

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[object]:
        return iter(self.values())

    def stored(self) -> bytes:
        """The elements as they stand in the file, for copying."""
        return self._source.mapping[self.offset : self.end]

    def values(self) -> list[object]:
        """The elements: ints, floats, bools, strings or `GGUFArray`s.

        Raises:
            ModelFileError: a string is not UTF-8, or a bool neither 0 nor 1.
        """
        if self.item_type in SCALARS and self.item_type is not GGUFType.BOOL:
            numbers: list[object] = np.frombuffer(
                self.stored(), np.dtype(SCALARS[self.item_type].format)
            ).tolist()
            return numbers
        cursor = _Cursor(self._source, self.offset, "array")
        return [cursor.value(self.item_type) for _ in range(self.count)]

    def strings(self) -> list[str]:
        """The elements of an array of strings.

        Raises:
            ModelFileError: the elements are not strings, or one of them is not UTF-8.
        """
        if self.item_type is not GGUFType.STRING:
            _Cursor(self._source, self.offset, "array").fail(
                f"holds {self.item_type.name}, and strings are expected"
            )
        mapping, position, read = self._source.mapping, self.offset, _U64.unpack_from
        texts = []
        try:
            for _ in range(self.count):
                start = position + 8
                position = start + read(mapping, position)[0]
                texts.append(mapping[start:position].decode())
        except UnicodeDecodeError:
            _Cursor(self._source, start, "array").fail("is not UTF-8")
        return texts


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The contents of a GGUF file; what network it holds is not looked at here."""

    path: Path
    version: int
    metadata: Mapping[str, object]  # str, int, float, bool or GGUFArray
    offsets: Mapping[str, int]  # metadata key -> byte where its value starts, for error messages
    tensors: Mapping[str, Tensor]
    file_bytes: int


def read_gguf(path: Path) -> GGUFFile:
    """Open a GGUF file, memory-mapped.

    Raises:
        ModelFileError: the file cannot be read or is malformed; names the field and the byte.
        UnsupportedModelError: a tensor has a format that we do not read.
    """
    source = _Source(path, map_file(path))
    cursor = _Cursor(source, 0, "header")
    version = _read_version(cursor)
    tensor_count = cursor.count("tensor count", least_bytes=24)
    pair_count = cursor.count("metadata count", least_bytes=13)
    metadata: dict[str, object] = {}
    offsets: dict[str, int] = {}
    for index in range(pair_count):
        cursor.field = f"metadata key {index}"
        start, key = cursor.position, cursor.name()
        cursor.field = f'metadata "{key}"'
        if key in metadata:
            cursor.fail("appears twice", start)
        kind = cursor.kind()
        offsets[key] = cursor.position
        metadata[key] = cursor.value(kind)
    descriptions = [_read_description(cursor, index) for index in range(tensor_count)]
    tensors = _map_tensors(cursor, descriptions, _alignment(cursor, metadata, offsets))
    return GGUFFile(path, version, metadata, offsets, tensors, len(source.mapping))


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    mapping: mmap.mmap


@dataclass(slots=True)
class _Cursor:
    """A position in the file that only moves over bytes that exist."""

    source: _Source
    position: int
    field: str  # what is being read, for error messages

    def fail(self, why: str, offset: int | None = None) -> NoReturn:
        at = self.position if offset is None else offset
        raise ModelFileError(
            f"{self.source.path.name}: {self.field} at byte {at:,} {why}. "
            "The file is damaged or not a GGUF file."
        )

    def take(self, size: int) -> int:
        """Move over `size` bytes and return where they start."""
        start, end = self.position, len(self.source.mapping)
        if size > end - start:
            raise ModelFileError(
                f"{self.source.path.name}: {self.field} at byte {start:,} needs {size:,} bytes, "
                f"and the file ends at byte {end:,}. The download is probably incomplete."
            )
        self.position = start + size
        return start

    def u32(self) -> int:
        number: int = _U32.unpack_from(self.source.mapping, self.take(4))[0]
        return number

    def u64(self) -> int:
        number: int = _U64.unpack_from(self.source.mapping, self.take(8))[0]
        return number

    def count(self, field: str, least_bytes: int) -> int:
        """A number of entries, each of which takes at least `least_bytes` of what follows."""
        self.field, start = field, self.position
        number = self.u64()
        if number > _MOST_ENTRIES or number * least_bytes > len(self.source.mapping):
            self.fail(f"is {number:,}, more than the file can hold", start)
        return number

    def text(self, longest: int | None = None) -> str:
        start, size = self.position, self.u64()
        if longest is not None and size > longest:
            self.fail(f"has a length of {size:,} bytes", start)
        begin = self.take(size)
        try:
            return self.source.mapping[begin : begin + size].decode()
        except UnicodeDecodeError:
            self.fail("is not UTF-8", begin)

    def name(self) -> str:
        start, text = self.position, self.text(_LONGEST_NAME)
        if not text.isprintable() or not text:
            self.fail(f"has the name {text[:40]!r}", start)
        return text

    def kind(self) -> GGUFType:
        start, number = self.position, self.u32()
        if number > max(GGUFType):
            self.fail(f"has the unknown value type {number}", start)
        return GGUFType(number)

    def value(self, kind: GGUFType, depth: int = 0) -> object:
        if kind is GGUFType.STRING:
            return self.text()
        if kind is GGUFType.ARRAY:
            return self.array(depth + 1)
        scalar = SCALARS[kind]
        start = self.take(scalar.size)
        number: object = scalar.unpack_from(self.source.mapping, start)[0]
        if kind is GGUFType.BOOL:
            if number not in (0, 1):
                self.fail(f"is the bool {number}", start)
            return number == 1
        return number

    def array(self, depth: int) -> GGUFArray:
        """Check that an array lies inside the file, and move over it."""
        start = self.position
        if depth > _MOST_NESTING:
            self.fail(f"nests arrays more than {_MOST_NESTING} deep", start)
        kind, count = self.kind(), self.u64()
        first = self.position
        if count * _LEAST_BYTES[kind] > len(self.source.mapping) - first:
            self.fail(f"is an array of {count:,} elements, more than the file can hold", start)
        if kind is GGUFType.STRING:
            self.skip_strings(count)
        elif kind is GGUFType.ARRAY:
            for _ in range(count):
                self.array(depth + 1)
        else:
            self.take(count * _LEAST_BYTES[kind])
        return GGUFArray(kind, count, first, self.position, self.source)

    def skip_strings(self, count: int) -> None:
        # The hot loop of opening a file: 300,000 strings for a vocabulary of 150,000.
        mapping, position, read = self.source.mapping, self.position, _U64.unpack_from
        last = len(mapping) - 8
        for _ in range(count):
            if position > last:
                break
            position += 8 + read(mapping, position)[0]
        else:
            if position <= len(mapping):
                self.position = position
                return
        self.fail(f"is an array of {count:,} strings that runs past the end of the file")


@dataclass(frozen=True, slots=True)
class _Description:
    name: str
    type: TensorType
    shape: tuple[int, ...]
    size: int  # bytes
    offset: int  # from the start of the data section
    at: int  # byte of the description, for error messages


def _read_version(cursor: _Cursor) -> int:
    start = bytes(cursor.source.mapping[:64])
    if start.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            f"{cursor.source.path.name}: is a Git LFS pointer, the weights themselves were not "
            "downloaded."
        )
    cursor.field = "magic"
    cursor.take(4)
    if start[:4] != MAGIC:
        cursor.fail(f"is {start[:4]!r}, and a GGUF file starts with {MAGIC!r}", 0)
    cursor.field = "version"
    version = cursor.u32()
    if version in (2 << 24, 3 << 24):
        raise UnsupportedModelError(
            f"{cursor.source.path.name}: version at byte 4 is that of a big-endian file, which "
            "is not read."
        )
    if version not in (2, 3):
        cursor.fail(f"is {version}, and versions 2 and 3 are read", 4)
    return version


def _alignment(cursor: _Cursor, metadata: Mapping[str, object], offsets: Mapping[str, int]) -> int:
    key = "general.alignment"
    alignment = metadata.get(key, DEFAULT_ALIGNMENT)
    if (
        not isinstance(alignment, int)
        or isinstance(alignment, bool)
        or not 8 <= alignment <= 1 << 20
        or alignment & (alignment - 1)
    ):
        cursor.field = f'metadata "{key}"'
        cursor.fail(f"is {alignment!r}, and a power of two from 8 is expected", offsets[key])
    return alignment


def _read_description(cursor: _Cursor, index: int) -> _Description:
    cursor.field = f"tensor {index}"
    at, name = cursor.position, cursor.name()
    cursor.field = f'tensor "{name}"'
    dimensions = cursor.u32()
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        cursor.fail(f"has {dimensions:,} dimensions", cursor.position - 4)
    # GGUF lists the fastest-running dimension first.
    shape = tuple(cursor.u64() for _ in range(dimensions))[::-1]
    type_at = cursor.position
    tensor_type = _tensor_type(cursor, cursor.u32(), type_at)
    elements = 1
    for length in shape:
        elements *= length
    if elements == 0 or shape[-1] % tensor_type.block_size:
        cursor.fail(
            f"has shape {shape}, whose rows are not a whole number of {tensor_type.name} blocks "
            f"of {tensor_type.block_size}",
            at,
        )
    return _Description(name, tensor_type, shape, tensor_type.bytes_for(elements), cursor.u64(), at)


def _tensor_type(cursor: _Cursor, number: int, at: int) -> TensorType:
    try:
        return TensorType(number)
    except ValueError:
        raise UnsupportedModelError(
            f"{cursor.source.path.name}: {cursor.field} at byte {at:,} has the tensor type "
            f"{number}; read are {', '.join(known.name for known in TensorType)}. " + OTHER_ENGINE
        ) from None


def _map_tensors(
    cursor: _Cursor, descriptions: list[_Description], alignment: int
) -> dict[str, Tensor]:
    mapping = cursor.source.mapping
    data: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
    base = -(-cursor.position // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for item in descriptions:
        cursor.field = f'tensor "{item.name}"'
        if item.name in tensors:
            cursor.fail("appears twice", item.at)
        if item.offset % alignment:
            cursor.fail(f"has offset {item.offset:,}, not a multiple of {alignment}", item.at)
        start = base + item.offset
        if start + item.size > len(mapping):
            raise ModelFileError(
                f"{cursor.source.path.name}: {cursor.field} ends at byte "
                f"{start + item.size:,} but the file has {len(mapping):,}. "
                "The download is probably incomplete."
            )
        view = data[start : start + item.size]
        tensors[item.name] = Tensor(item.name, item.type, item.shape, view)
    end, before = 0, ""
    for item in sorted(descriptions, key=lambda item: item.offset):
        if item.offset < end:
            cursor.field = f'tensor "{item.name}"'
            cursor.fail(f'overlaps tensor "{before}"', base + item.offset)
        end, before = item.offset + item.size, item.name
    return tensors
