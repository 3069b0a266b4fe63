"""What a detector says: where something hidden stands, and what it hides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

KINDS: Final = (
    *("base64", "base32", "hex", "percent", "entities", "escapes"),
    *("rot13", "atbash", "leetspeak", "homoglyphs"),
    *("zero-width", "variation-selectors", "tags", "bidi"),
    *("comment", "hidden-element", "instructions"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A hidden payload, or plain words to an assistant (kind "instructions")."""

    kind: str  # one of KINDS
    start: int  # characters of the text in which it stands; of an inner one, where the outer is
    end: int
    decoded: str
    instructions: int = 0  # phrases in `decoded` that tell an assistant what to do
    inside: tuple[str, ...] = ()  # kinds of the payloads around it, the outermost first


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """How many there are of each kind, the most frequent first."""
    return dict(Counter(finding.kind for finding in findings).most_common())
