"""Handles: names that stand in a context in place of texts which nobody vouches for.

A process that reads a mail has from then on a context in which somebody else may have a say. One
that is shown who sent it, when, and a handle in place of its text has not: every character that it
sees was chosen by the tool, or is a short plain value that the tool vouches for. The texts stay in
the journal, and handles lead to them: `⟨handle 12.3#0.body: up to 1,000 characters of mail⟩` is
the field `body` of the first record that call 12.3 brought; `12.3` is all of it, as a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from oneiros.errors import BlobErasedError
from oneiros.kernel.contract import Contract
from oneiros.kernel.events import LoadBlob
from oneiros.kernel.label import UNTRUSTED_KINDS, Label, is_trusted
from oneiros.kernel.readings import VALUE, is_plain, is_vouched
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import ToolError

# A field that no contract names is shown by its name only if that looks like a program's.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
CAPABILITY = "handles"  # of the tools that inspect and open them
_MOST_NAMED = 10  # handles that an error lists


@dataclass(frozen=True, slots=True)
class _Result:
    call_id: str
    trusted: tuple[str, ...]  # fields that the tool vouches for
    kinds: str  # of the origins: "mail", "file and web"


def held(call_id: str, text: str, data: object, contract: Contract, own: Label) -> str:
    """What a context is shown of a result: what its tool vouches for, and handles.

    Args:
        call_id: of the call.
        text: the whole result.
        data: the same as JSON-like data; None: it has none, and all of it is one handle.
        contract: of the tool.
        own: label of what the call brought.
    """
    # Of an origin its kind only: the address of a sender may be a message to the reader.
    kinds = sorted({origin.partition(":")[0] for origin in own.untrusted_origins})
    known = " and ".join(kind for kind in kinds if kind in UNTRUSTED_KINDS)
    result = _Result(call_id, contract.trusted_fields, known)
    if data is None:
        return _handle(result, call_id, text)
    shown = [
        _shown(result, one, f"{call_id}#{number}", "" if isinstance(one, Mapping) else VALUE)
        for number, one in enumerate(_elements(data))
    ]
    whole = shown if isinstance(data, list | tuple) else shown[0]
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def outside(own: Label, tool: str) -> Label:
    """The label of what is shown of a result: its readers, and none of the untrusted origins."""
    origins = {origin for origin in own.origins if is_trusted(origin)} | {f"tool:{tool}"}
    return Label(frozenset(origins), own.readers)


def content(state: ProcessState, load: LoadBlob, handle: str) -> tuple[str, Label]:
    """What is behind a handle, as a text, and its label.

    Args:
        state: of the process whose handle it is, or of a fork.
        load: reads a blob.
        handle: its id, "12.3" or "12.3#0.body"; also with the marks that it is shown with.

    Raises:
        ToolError: there is no such handle, or what is behind it was erased.
    """
    wanted = handle.strip("⟨⟩ ").removeprefix("handle ").partition(":")[0].strip()
    call_id, _, place = wanted.partition("#")
    readings = [one for one in state.readings if one.held is not None]
    for reading in readings:
        if reading.call_id != call_id or reading.held is None:
            continue
        try:
            if not place:
                return load(reading.held).decode(), reading.own
            data = None if reading.data is None else json.loads(load(reading.data))
        except BlobErasedError as error:
            raise ToolError(f"What was behind the handle {wanted} was erased.") from error
        for number, one in enumerate(_elements(data)):
            for path, value in _places(one, str(number)):
                if path == place:
                    return _as_text(value), reading.own
    known = ", ".join(reading.call_id for reading in readings[-_MOST_NAMED:])
    there = f"Results behind handles: {known}." if known else "No result is behind a handle."
    raise ToolError(f'There is no handle "{wanted[:80]}". {there}')


def _elements(data: object) -> Sequence[object]:
    """Records, or single values."""
    if data is None:
        return ()
    return data if isinstance(data, list | tuple) else (data,)


def _shown(result: _Result, value: object, place: str, path: str) -> object:
    """A value with handles in place of what is not vouched for.

    `place` is the handle's id; `path` is what contracts call the field.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        if _is_record(result, value, path):
            return {
                name: _shown(result, inner, f"{place}.{name}", _within(path, name))
                for name, inner in value.items()
            }
    elif isinstance(value, list | tuple):
        if _has_vouched(result, path):
            return [_shown(result, one, f"{place}.{n}", path) for n, one in enumerate(value)]
    elif (
        isinstance(value, str | int | float)
        and is_vouched(path, result.trusted)
        and is_plain(value)
    ):
        return value
    return _handle(result, place, _as_text(value))


def _is_record(result: _Result, value: Mapping[str, object], path: str) -> bool:
    """Whether a mapping has a tool's fields, and not somebody's words for keys."""
    paths = [(name, _within(path, name)) for name in value]
    vouched = [_has_vouched(result, inner) for _, inner in paths]
    return any(vouched) and all(
        known or _NAME.fullmatch(name) for known, (name, _) in zip(vouched, paths, strict=True)
    )


def _within(path: str, name: str) -> str:
    return f"{path}.{name}" if path else str(name)


def _has_vouched(result: _Result, path: str) -> bool:
    """Whether the tool vouches for what is at a path, or for something within it."""
    return is_vouched(path, result.trusted) or any(
        name.startswith(f"{path}.") for name in result.trusted
    )


def _handle(result: _Result, place: str, text: str) -> str:
    of = f" of {result.kinds}" if result.kinds else ""
    return f"⟨handle {place}: {size(text)}{of}⟩"


def size(text: str) -> str:
    """About how long a text is: who wrote it chose its length, which is to say little."""
    return f"up to {10 ** len(str(max(len(text) - 1, 0))):,} characters"


def _places(value: object, place: str) -> Iterator[tuple[str, object]]:
    """Everything in a record, with the ends of the handles that it may have."""
    yield place, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _places(inner, f"{place}.{name}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inner in enumerate(value):
            yield from _places(inner, f"{place}.{number}")


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
