"""Noticing that an agent goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST_CYCLE = 3  # rounds
_SAME_TEXTS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """A round as far as repetition is concerned: equal rounds brought the agent nowhere."""

    calls: frozenset[tuple[str, str, str]]  # tool, arguments, result
    text: str  # that was said beside them


def repetition(rounds: Sequence[Outcome]) -> str | None:
    """What repeats at the end of these rounds, in words; None: nothing does.

    A call that brings the same result again repeats; so do two or three rounds in turn, and what
    is said for the third time.
    """
    for length in range(1, _LONGEST_CYCLE + 1):
        last, before = rounds[-length:], rounds[-2 * length : -length]
        if len(before) == length and all(
            one.calls == other.calls for one, other in zip(last, before, strict=True)
        ):
            names = ", ".join(sorted({tool for one in last for tool, _, _ in one.calls}))
            return f"the same calls ({names}) with the same arguments bring the same results"
    texts = [one.text for one in rounds[-_SAME_TEXTS:]]
    if len(texts) == _SAME_TEXTS and texts[0] and len(set(texts)) == 1:
        return "you said the same three times"
    return None
