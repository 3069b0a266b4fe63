"""A content-addressed store: bytes under their SHA-256, each once, checked when they are read."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import BinaryIO

from oneiros.errors import DiskError

_PIECE = 1 << 20


class ContentStore:
    """Contents in the files of one folder, named by their hashes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, data: bytes) -> str:
        """Keep bytes; says their SHA-256, in hex."""
        name = hashlib.sha256(data).hexdigest()
        if not self._path(name).exists():
            temporary = self._temporary()
            with temporary.open("xb") as file:
                file.write(data)
                _sync(file)
            self._place(temporary, name)
        return name

    def put_file(self, descriptor: int) -> tuple[str, int]:
        """Keep what can be read from a descriptor: its SHA-256 and its size in bytes."""
        hashed, size = hashlib.sha256(), 0
        temporary = self._temporary()
        try:
            with temporary.open("xb") as file:
                while piece := os.read(descriptor, _PIECE):
                    hashed.update(piece)
                    size += len(piece)
                    file.write(piece)
                if not self._path(hashed.hexdigest()).exists():
                    _sync(file)
            self._place(temporary, hashed.hexdigest())
        finally:
            temporary.unlink(missing_ok=True)
        return hashed.hexdigest(), size

    def load(self, name: str) -> bytes:
        """The bytes of a hash.

        Raises:
            DiskError: they are not there, or were damaged.
        """
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError as error:
            raise DiskError(f"{self._path(name)}: this version is not there any more.") from error
        if hashlib.sha256(data).hexdigest() != name:
            raise DiskError(
                f"{self._path(name)}: the content is damaged: its hash differs from its name. "
                "Restore this file from a backup."
            )
        return data

    def clear_incoming(self) -> None:
        """Remove what a crash left half-written. Nobody may be writing."""
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", name):
            raise ValueError(f"no SHA-256: {name!r}")
        return self._folder / name[:2] / name[2:]

    def _temporary(self) -> Path:
        return self._incoming / secrets.token_hex(8)

    def _place(self, temporary: Path, name: str) -> None:
        path = self._path(name)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        temporary.replace(path)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
