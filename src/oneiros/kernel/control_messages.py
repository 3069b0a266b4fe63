"""What goes over the control socket: a line of JSON for each message.

To the kernel: {"id", "method", "params"}. From it, for each request, either {"id", "result"} or
{"id", "error": {"type", "message"}}; a stream is any number of {"id", "event"} and then
{"id", "end"}, or an error. {"method": "cancel", "params": {"id"}} ends a request, and so does
closing the connection for streams.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros import errors
from oneiros.errors import ControlError, OneirosError, quoted

SOCKET_NAME = "control.sock"
LONGEST_REQUEST = 1 << 24  # bytes of a line; a message to a process may be a whole document
LONGEST_ANSWER = 1 << 26

RequestId = int | str

# What the kernel of Linux takes as a socket's path, less the zero byte at its end.
_LONGEST_ADDRESS = 107


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    id: RequestId  # the client's own; unique among its requests under way
    method: str
    params: Mapping[str, Any]


def parse_request(line: bytes) -> Request:
    """The request of a line. Raises ControlError for anything else."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        start = quoted(line[:100].decode(errors="replace"))
        raise ControlError(f"This line is no JSON: {start}.") from None
    match data:
        case {"id": int() | str() as number, "method": str() as method, **rest} if not isinstance(
            number, bool
        ) and rest.keys() <= {"params"}:
            params = rest.get("params", {})
            if isinstance(params, dict):
                return Request(number, method, params)
    raise ControlError('A request is {"id": a number or text, "method": a name, "params": {...}}.')


def request_line(request: Request) -> bytes:
    """A request as it is sent."""
    return _line({"id": request.id, "method": request.method, "params": dict(request.params)})


def result_line(number: RequestId, result: object) -> bytes:
    """The answer to a request."""
    return _line({"id": number, "result": result})


def event_line(number: RequestId, event: object) -> bytes:
    """One event of a stream."""
    return _line({"id": number, "event": event})


def end_line(number: RequestId, cancelled: bool = False) -> bytes:
    """The end of a stream."""
    return _line({"id": number, "end": "cancelled" if cancelled else "done"})


def error_line(number: RequestId | None, error: OneirosError) -> bytes:
    """A refusal; without a number where the request's could not be read."""
    return _line({"id": number, "error": {"type": type(error).__name__, "message": str(error)}})


def parse_answer(line: bytes) -> dict[str, Any]:
    """What the kernel sent: a dict with "result", "event" or "end".

    Raises:
        OneirosError: the kernel refused, with the class that its error had there.
        ControlError: the connection broke off, or this is no kernel's answer.
    """
    if not line.endswith(b"\n"):
        raise ControlError("The kernel ended, or closed the connection, before it had answered.")
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    match answer:
        case {"error": {"type": str() as name, "message": str() as message}}:
            raise _error_class(name)(message)
        case {"result": _} | {"event": _} | {"end": _}:
            return dict(answer)
    raise ControlError(f"This is no answer of a kernel: {quoted(line.decode(errors='replace'))}.")


@contextmanager
def socket_address(folder: Path, name: str = SOCKET_NAME) -> Iterator[str]:
    """The path of a socket in a folder, in a form short enough for the operating system.

    Raises ControlError where there is no such folder.
    """
    path = str(folder / name)
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield path
        return
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise ControlError(f"{folder}: {error.strerror}.") from error
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def _line(message: Mapping[str, object]) -> bytes:
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return text.encode(errors="replace") + b"\n"


def _plain(value: object) -> object:
    """What JSON has for values that dataclasses hold."""
    match value:
        case frozenset():
            return sorted(value)
        case Path():
            return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _error_class(name: str) -> type[OneirosError]:
    found = getattr(errors, name, ControlError)
    is_error = isinstance(found, type) and issubclass(found, OneirosError)
    return found if is_error else ControlError
