"""What programs print, kept up to a limit: the beginning and the end."""

from __future__ import annotations


class Output:
    """Bytes of which the first and the last are kept."""

    def __init__(self, limit: int) -> None:
        """Keep `limit` bytes at most."""
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.size = 0  # bytes that came

    def add(self, data: bytes) -> None:
        """Take what was printed."""
        self.size += len(data)
        free = self._half - len(self._head)
        self._head += data[:free] if free > 0 else b""
        self._tail += data[max(0, free) :]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        """What is kept, with a line that says how much is not."""
        tail = bytes(self._tail[-self._half :]) if self._half else b""
        left_out = self.size - len(self._head) - len(tail)
        if not left_out:
            return (bytes(self._head) + tail).decode(errors="replace")
        return (
            f"{self._head.decode(errors='replace')}\n"
            f"[… {left_out:,} of {self.size:,} bytes are left out here …]\n"
            f"{tail.decode(errors='replace')}"
        )
