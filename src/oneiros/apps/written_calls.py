"""Calls that a model wrote as text: some models never learnt the marks that their template names.

Qwen2.5-Coder is told to write <tool_call> and writes a block of JSON instead, as do many models at
endpoints that enforce nothing. What is found here is no more trusted than any other call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass

_HEAD = re.compile(r'\{\s*"name"\s*:\s*"([\w-]{1,64})"\s*,\s*"(?:arguments|parameters)"\s*:')
# What may stand between two calls that are meant to be made together.
_BETWEEN = re.compile(r"(?:\s|[`,;]|json|</?\w+>)*")
# Models break lines within strings.
_DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call within a text."""

    tool: str
    arguments: str | None  # JSON of an object; None: it is none


def begins_call(text: str) -> bool:
    """Whether a call begins in a text, of whatever tool."""
    return _HEAD.search(text) is not None


def written_calls(text: str, names: Collection[str]) -> tuple[WrittenCall, ...]:
    """The first call of one of these tools in a text, and those that follow at once.

    What comes after other words is left out: models write down a second step with what they expect
    of the first.
    """
    heads = (head for head in _HEAD.finditer(text) if head[1] in names)
    head = next(heads, None)
    calls: list[WrittenCall] = []
    while head is not None and head[1] in names:
        try:
            call, end = _DECODER.raw_decode(text, head.start())
        except (ValueError, RecursionError):
            calls.append(WrittenCall(head[1], None))
            break
        arguments = call.get("arguments", call.get("parameters"))
        whole = json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else None
        calls.append(WrittenCall(head[1], whole))
        between = _BETWEEN.match(text, end)
        head = _HEAD.match(text, between.end()) if between else None
    return tuple(calls)
