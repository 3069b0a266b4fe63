"""JSON objects from untrusted files: bounded, no key twice, errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from oneiros.errors import ModelFileError, quoted

# Python objects take about twenty times their text; real configurations are far smaller.
LARGEST_JSON = 16 << 20


def parse_object(data: bytes, where: str, start: int = 0) -> dict[str, object]:
    """The JSON object in `data`.

    Args:
        data: UTF-8 text.
        where: the file's name, for error messages.
        start: byte of the file at which `data` starts, for error messages.

    Raises:
        ModelFileError: it is not JSON or not an object, or a key appears twice.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = start + len(error.doc[: error.pos].encode())
        raise ModelFileError(f"{where}: JSON at byte {at:,}: {error.msg}.") from error
    except UnicodeDecodeError as error:
        at = start + error.start
        raise ModelFileError(f"{where}: JSON at byte {at:,} is not UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where}: JSON from byte {start:,}: {error}.") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{where}: JSON at byte {start:,} is not an object.")
    return value


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in a file of at most `LARGEST_JSON` bytes.

    Raises:
        ModelFileError: as `parse_object`, or the file cannot be read or is too large.
    """
    return parse_object(read_bounded(path), path.name)


def read_bounded(path: Path, largest: int = LARGEST_JSON) -> bytes:
    """The bytes of a regular file.

    Raises:
        ModelFileError: it cannot be read, is not a regular file or has more than `largest` bytes.
    """
    try:
        if path.exists() and not path.is_file():
            raise ModelFileError(f"{path}: is not a regular file.")
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(data) > largest:
        raise ModelFileError(f"{path}: has more than {largest:,} bytes.")
    return data


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"key {quoted(name)} appears twice")
        members[name] = value
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
