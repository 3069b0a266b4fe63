"""Server-sent events: from bytes, as they arrive, to the data of each event.

The format is that of the HTML standard, section 9.2 (https://html.spec.whatwg.org/#server-sent-events).
"""

from __future__ import annotations

import re

LONGEST_EVENT = 16 << 20  # bytes

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventParser:
    """Parses a stream that may be cut into pieces anywhere."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line that has not ended
        self._data: list[str] = []  # lines of an event that has not ended
        self._size = 0  # bytes in both
        self._after_return = False  # a line feed now belongs to the line's end before
        self._first = True

    def push(self, piece: bytes) -> list[str]:
        """The data of the events that end in this piece.

        Raises:
            ValueError: an event is longer than LONGEST_EVENT.
        """
        if not piece:
            return []
        if self._after_return:
            piece = piece.removeprefix(b"\n")
        self._after_return = piece.endswith(b"\r")
        self._size += len(piece)
        *ended, rest = _LINE_END.split(piece)
        events = []
        for line in ended:
            events += self._take(b"".join([*self._line, line]))
            self._line = []
        self._line.append(rest)
        if self._size > LONGEST_EVENT:
            raise ValueError(f"an event is longer than {LONGEST_EVENT:,} bytes")
        return events

    def flush(self) -> list[str]:
        """The data of an event that the end of the stream leaves without its empty line.

        The standard drops such an event; servers that end without the line mean it.
        """
        events = self._take(b"".join(self._line)) if any(self._line) else []
        self._line = []
        return events + self._take(b"")

    def _take(self, line: bytes) -> list[str]:
        """The event that this line ends, if it does."""
        if self._first:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._first = False
        if not line:
            data, self._data, self._size = self._data, [], 0
            return ["\n".join(data)] if data else []
        field, _, value = line.partition(b":")
        if field == b"data":  # a comment's field is empty; names, ids and retry times are not used
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return []
