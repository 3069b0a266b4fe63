"""Reading and writing safetensors: a JSON header, then the tensors' bytes.

A file is eight bytes of header length (little-endian), the header, and one buffer that the
tensors cover without gaps or overlaps. Every length and offset of an untrusted file is checked
before use. Tensors are not aligned in files by older writers.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from oneiros.errors import ModelFileError, quoted
from oneiros.model.json_text import LARGEST_JSON, parse_object
from oneiros.model.mapped_file import map_file
from oneiros.model.replacement import replacing_file
from oneiros.model.tensor import PendingTensor, Tensor
from oneiros.model.tensor_types import TensorType

DTYPES = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}
_NAMES = {tensor_type: name for name, tensor_type in DTYPES.items()}

# Bits of every dtype of the format, so that the sizes of tensors that we do not read are checked.
_BITS = {"BOOL": 8, "I8": 8, "U8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8} | {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

_LARGEST_LENGTH = 1 << 62


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """The contents of one safetensors file, memory-mapped."""

    path: Path
    tensors: Mapping[str, Tensor]  # those stored as F32, F16 or BF16, with the file's own names
    others: Mapping[str, str]  # tensor name -> dtype that we do not read
    metadata: Mapping[str, str]
    file_bytes: int


def read_safetensors(path: Path) -> SafetensorsFile:
    """Open a safetensors file.

    Raises:
        ModelFileError: it cannot be read or is malformed; names the tensor and the byte.
    """
    mapping = map_file(path)
    header = _Header.read(path, mapping)
    metadata = header.metadata()
    buffer = np.frombuffer(mapping, np.uint8)[header.end :]
    tensors: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    spans: list[tuple[int, int, str]] = []
    for name in header.members:
        dtype, shape, begin, end = header.entry(name)
        if end > len(buffer):
            raise ModelFileError(
                f"{path.name}: tensor {quoted(name)} ends at byte {header.end + end:,} but the "
                f"file has {len(mapping):,}. The download is probably incomplete."
            )
        spans.append((begin, end, name))
        if dtype in DTYPES:
            tensors[name] = Tensor(name, DTYPES[dtype], shape, buffer[begin:end])
        else:
            others[name] = dtype
    expected = 0
    for begin, end, name in sorted(spans):
        if begin != expected:
            problem = "overlaps the one before" if begin < expected else "leaves a gap before it"
            header.fail(name, f"starts at byte {header.end + begin:,} and {problem}")
        expected = end
    if expected != len(buffer):
        raise ModelFileError(
            f"{path.name}: the tensors end at byte {header.end + expected:,} but the file has "
            f"{len(mapping):,}. The file is damaged."
        )
    return SafetensorsFile(path, tensors, others, metadata, len(mapping))


@dataclass(frozen=True, slots=True)
class _Header:
    path: Path
    text: bytes
    members: dict[str, object]  # tensor name -> entry; `__metadata__` once it was taken out
    end: int  # byte where the buffer starts

    @staticmethod
    def read(path: Path, mapping: mmap.mmap) -> _Header:
        if len(mapping) < 8:
            raise ModelFileError(
                f"{path.name}: header length at byte 0 needs 8 bytes, the file has {len(mapping)}."
            )
        length = int.from_bytes(mapping[:8], "little")
        if length > min(len(mapping) - 8, LARGEST_JSON):
            raise ModelFileError(
                f"{path.name}: header length at byte 0 is {length:,}, the file has "
                f"{len(mapping):,} bytes. It is damaged, incomplete or not a safetensors file."
            )
        text = mapping[8 : 8 + length]
        return _Header(path, text, parse_object(text, path.name, 8), 8 + length)

    def fail(self, name: str, why: str) -> NoReturn:
        at = 8 + max(0, self.text.find(json.dumps(name, ensure_ascii=False).encode()))
        raise ModelFileError(
            f"{self.path.name}: tensor {quoted(name)}, header at byte {at:,}: {why}. "
            "The file is damaged."
        )

    def metadata(self) -> dict[str, str]:
        found = self.members.pop("__metadata__", {})
        if not isinstance(found, dict):
            self.fail("__metadata__", "is not an object")
        texts = {key: value for key, value in found.items() if isinstance(value, str)}
        if len(texts) < len(found):
            self.fail("__metadata__", "holds a value that is not a string")
        return texts

    def entry(self, name: str) -> tuple[str, tuple[int, ...], int, int]:
        """Dtype, shape, and the first and last byte in the buffer of a tensor."""
        entry = self.members[name]
        if not isinstance(entry, dict):
            self.fail(name, "is not an object")
        dtype = entry.get("dtype")
        if not isinstance(dtype, str) or dtype not in _BITS:
            self.fail(name, f"dtype is {str(dtype)[:40]!r}")
        shape = self.integers(name, entry, "shape")
        offsets = self.integers(name, entry, "data_offsets")
        if len(offsets) != 2 or offsets[0] > offsets[1]:
            self.fail(name, f"data_offsets are {offsets[:4]}")
        begin, end = offsets
        if len(shape) > 8 or math.prod(shape) * _BITS[dtype] != (end - begin) * 8:
            self.fail(name, f"shape {shape[:8]} of {dtype} does not fill {end - begin:,} bytes")
        return dtype, tuple(shape), begin, end

    def integers(self, name: str, entry: dict[str, object], key: str) -> list[int]:
        found = entry.get(key)
        numbers = [
            item
            for item in (found if isinstance(found, list) else [None])
            if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < _LARGEST_LENGTH
        ]
        if not isinstance(found, list) or len(numbers) < len(found):
            self.fail(name, f"{key} is not a list of non-negative integers")
        return numbers


def write_safetensors(
    path: Path,
    tensors: Sequence[PendingTensor],
    metadata: Mapping[str, str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write one safetensors file; it appears under `path` when it is whole.

    Args:
        path: where to; a file that is there is replaced.
        tensors: stored as F32, F16 or BF16; at most one piece of one of them is in memory.
        metadata: strings for `__metadata__`; `transformers` asks for {"format": "pt"}.
        progress: called with the bytes of tensor data written so far, and in all.

    Raises:
        ModelFileError: the file cannot be written.
        ValueError: a tensor has another type, or its pieces are not as many bytes as they must be.
    """
    # Wider elements first, as the format's own writer does, so that every tensor is aligned.
    ordered = sorted(tensors, key=lambda tensor: -tensor.type.block_bytes)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for tensor in ordered:
        if tensor.type not in _NAMES:
            raise ValueError(f"{tensor.name}: safetensors has no {tensor.type.name}")
        header[tensor.name] = {
            "dtype": _NAMES[tensor.type],
            "shape": tensor.shape,
            "data_offsets": (offset, offset + tensor.size),
        }
        offset += tensor.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    done = 0
    with replacing_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            for piece in tensor.checked_pieces():
                file.write(piece.data)
                done += piece.nbytes
                if progress is not None:
                    progress(done, offset)
