"""A file that grows to a known length and SHA-256, and survives interruption."""

import hashlib
import os
from pathlib import Path
from types import TracebackType

from oneiros.errors import DownloadError, HashMismatchError

_CHUNK = 1 << 20


class PartialFile:
    """The `.part` file of a download. What it holds is hashed as it grows.

    Use it as a context manager. Leaving it keeps the file on disk, whatever happened, so that the
    next attempt goes on from `size`; only bytes that turn out to be wrong are removed.
    """

    def __init__(self, path: Path, expected: int) -> None:
        self.path = path
        self.expected = expected  # bytes of the complete file
        self.size = 0  # bytes so far
        self._hash = hashlib.sha256()
        self._file = path.open("r+b" if path.exists() else "w+b")
        while chunk := self._file.read(_CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)
        if self.size > expected:
            self.truncate(0)

    def __enter__(self) -> "PartialFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append. DownloadError if the file would grow beyond its expected length."""
        if self.size + len(data) > self.expected:
            raise DownloadError(f"more than the expected {self.expected:,} bytes arrived")
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def truncate(self, size: int) -> None:
        """Go back to the first `size` bytes; no more than there are."""
        self._file.flush()
        self._file.truncate(size)
        self._file.seek(0)
        self._hash = hashlib.sha256()
        self.size = 0
        while chunk := self._file.read(_CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)

    def sync(self) -> None:
        """Make what was written survive a power loss."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, sha256: str) -> None:
        """Check length and hash. Wrong bytes are removed from disk.

        Raises DownloadError where bytes are missing (the file stays, to go on from) and
        HashMismatchError where the hash differs.
        """
        if self.size != self.expected:
            raise DownloadError(f"only {self.size:,} of {self.expected:,} bytes arrived")
        if self._hash.hexdigest() != sha256:
            self._file.close()
            self.path.unlink()
            raise HashMismatchError(
                f"its bytes have SHA-256 {self._hash.hexdigest()}, expected {sha256}; "
                "they were deleted"
            )
        self.sync()
