"""A part of a text that a decoder made something of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_NEAR: Final = 24  # characters between two that are one


@dataclass(frozen=True, slots=True)
class Payload:
    """What a decoder read at a place."""

    kind: str
    start: int  # characters of the text
    end: int
    decoded: str
    # Whether it is a finding as it stands; otherwise only if something is found in `decoded`.
    certain: bool = True


def joined(text: str, payloads: Iterable[Payload]) -> Iterator[Payload]:
    """Payloads of one kind in their order; those close to each other are one."""
    last: Payload | None = None
    parts: list[str] = []
    for payload in payloads:
        if last is not None and payload.start - last.end <= _NEAR:
            parts += [text[last.end : payload.start], payload.decoded]
            last = Payload(last.kind, last.start, payload.end, "")
            continue
        if last is not None:
            yield Payload(last.kind, last.start, last.end, "".join(parts))
        last, parts = payload, [payload.decoded]
    if last is not None:
        yield Payload(last.kind, last.start, last.end, "".join(parts))
