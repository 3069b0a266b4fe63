"""Looking for hidden payloads in a text, decoding until nothing more comes of it.

Detectors are telemetry. They miss what they do not know, and whoever knows them can evade them; so
the kernel does not import them, and no decision rests on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from oneiros.detection.encodings import encoded
from oneiros.detection.findings import Finding
from oneiros.detection.instructions import count_instructions, instruction_phrases
from oneiros.detection.invisible import invisible
from oneiros.detection.markup import hidden_markup
from oneiros.detection.payload import Payload
from oneiros.detection.spelling import respelt
from oneiros.detection.words import is_readable

DEPTH: Final = 4  # payloads in each other
MOST: Final = 1_000  # findings of a text
_GROWTH: Final = 4  # characters decoded in all, for each one of the text
_SPARE: Final = 10_000  # and for a short one
_AS_IT_STANDS: Final = ("comment", "hidden-element")  # what is in them, is seen without them too

_DECODERS: Final[tuple[Callable[[str], Iterator[Payload]], ...]] = (
    hidden_markup,
    invisible,
    encoded,
    respelt,
)


def detect(text: str) -> list[Finding]:
    """All that is hidden in a text, and the phrases in it that speak to an assistant.

    Takes time linear in the text: at most four characters are decoded for each of it, at most four
    layers deep, and at most 1,000 findings are given.

    Args:
        text: any; what a tool brought, say.

    Returns:
        Findings by their place, an outer one before those in it.
    """
    search = _Search(_GROWTH * len(text) + _SPARE)
    found = search.look(text, 0)
    return sorted(found, key=lambda finding: (finding.start, finding.inside))[:MOST]


class _Search:
    def __init__(self, characters: int) -> None:
        self._left = characters  # that may still be decoded

    def look(self, text: str, depth: int) -> list[Finding]:
        found = [
            Finding("instructions", *phrase.span(), phrase[0], 1)
            for phrase, _ in zip(instruction_phrases(text), range(MOST), strict=False)
        ]
        seen: set[tuple[int, int, str]] = set()
        for decoder in _DECODERS:
            for payload in decoder(text):
                place = (payload.start, payload.end, payload.decoded)
                if len(found) >= MOST or len(payload.decoded) > self._left:
                    return found
                if place not in seen:
                    seen.add(place)
                    found += self._opened(payload, depth)
        return found

    def _opened(self, payload: Payload, depth: int) -> list[Finding]:
        """A payload with what is in it; nothing where it is nothing."""
        self._left -= len(payload.decoded)
        deeper = depth + 1 < DEPTH and payload.kind not in _AS_IT_STANDS
        inner = self.look(payload.decoded, depth + 1) if deeper else []
        if not (payload.certain or any(is_readable(one.decoded) for one in inner)):
            return []
        hidden = [one for one in inner if one.kind != "instructions"]
        whole = Finding(
            payload.kind,
            payload.start,
            payload.end,
            payload.decoded,
            count_instructions(payload.decoded),
        )
        return [whole, *(_within(one, payload) for one in hidden)]


def _within(finding: Finding, payload: Payload) -> Finding:
    return Finding(
        finding.kind,
        payload.start,
        payload.end,
        finding.decoded,
        finding.instructions,
        (payload.kind, *finding.inside),
    )
