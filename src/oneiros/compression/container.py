"""The compressed file: a header that says what is needed to read the body, then the body.

    magic "ONEIROSZ", version, total length of the header (uint16)
    SHA-256 of the model's parameters, SHA-256 of the content, length of the content (uint64),
    length (uint64) and CRC-32 of the body, context window and overlap (uint32)
    model name, kernel version, arithmetic (each a length byte and UTF-8)
    CRC-32 of all that

Numbers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from oneiros.errors import CompressedFileError

MAGIC = b"ONEIROSZ"
VERSION = 1

_START = struct.Struct("<8sBH")
_FIXED = struct.Struct("<32s32sQQIII")
_CHECKSUM = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Header:
    model_sha256: str
    content_sha256: str
    content_bytes: int
    window: int  # tokens of context
    overlap: int  # of which the last ones are carried over where a window is full
    model_name: str
    kernel_version: str
    arithmetic: str  # of the instruction path that the kernels took


def pack(header: Header, body: bytes) -> bytes:
    fixed = _FIXED.pack(
        bytes.fromhex(header.model_sha256),
        bytes.fromhex(header.content_sha256),
        header.content_bytes,
        len(body),
        zlib.crc32(body),
        header.window,
        header.overlap,
    )
    names = b"".join(
        bytes((len(name),)) + name
        for text in (header.model_name, header.kernel_version, header.arithmetic)
        for name in (_at_most_255_bytes(text),)
    )
    length = _START.size + len(fixed) + len(names) + _CHECKSUM.size
    start = _START.pack(MAGIC, VERSION, length) + fixed + names
    return start + _CHECKSUM.pack(zlib.crc32(start)) + body


def unpack(data: bytes) -> tuple[Header, bytes]:
    """The header and the body, both checked against their checksums.

    Raises CompressedFileError for anything that `pack` did not write, damaged in any bit.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise CompressedFileError("This is no file that `oneiros zip` wrote.")
    if len(data) < _START.size:
        raise CompressedFileError("The file ends inside its header: it is incomplete.")
    _, version, length = _START.unpack_from(data)
    if version != VERSION:
        raise CompressedFileError(
            f"The file has format version {version}; this Oneiros reads version {VERSION}. "
            "Use the Oneiros that compressed it."
        )
    if len(data) < length:
        raise CompressedFileError("The file ends inside its header: it is incomplete.")
    checksum_at = length - _CHECKSUM.size
    if (
        checksum_at < _START.size + _FIXED.size
        or zlib.crc32(data[:checksum_at]) != _CHECKSUM.unpack_from(data, checksum_at)[0]
    ):
        raise CompressedFileError("The header is damaged: its checksum does not match.")

    model, content, content_bytes, body_bytes, body_crc, window, overlap = _FIXED.unpack_from(
        data, _START.size
    )
    names = _names(data[_START.size + _FIXED.size : checksum_at])
    body = data[length:]
    if len(body) != body_bytes:
        raise CompressedFileError(
            f"The file holds {len(body):,} bytes of compressed data and should hold "
            f"{body_bytes:,}: it is incomplete or something was appended."
        )
    if zlib.crc32(body) != body_crc:
        raise CompressedFileError("The compressed data are damaged: their checksum does not match.")
    return (
        Header(model.hex(), content.hex(), content_bytes, window, overlap, *names),
        body,
    )


def _names(data: bytes) -> tuple[str, str, str]:
    names = []
    position = 0
    for _ in range(3):
        if position >= len(data) or position + 1 + data[position] > len(data):
            raise CompressedFileError("The header is damaged: a name is longer than the header.")
        end = position + 1 + data[position]
        names.append(data[position + 1 : end].decode("utf-8", errors="replace"))
        position = end
    return names[0], names[1], names[2]


def _at_most_255_bytes(text: str) -> bytes:
    return text.encode("utf-8")[:255].decode("utf-8", errors="ignore").encode("utf-8")
