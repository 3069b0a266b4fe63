"""What processes ask people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from oneiros.kernel.state import CallState, ProcessState
from oneiros.rendering import visible


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a process asks a person."""

    call_id: str  # of the first call that it is about
    pid: int
    tool: str
    text: str
    kind: Literal["permission", "question"]
    calls: tuple[str, ...]  # ids of all calls that an answer settles


def questions_of(state: ProcessState, text: Callable[[str], str]) -> list[Question]:
    """The questions of a process that wait for an answer.

    Calls about which the same is asked are one question.

    Args:
        state: the process.
        text: reads a text by its hash.
    """
    together: dict[tuple[str, str], list[CallState]] = {}
    for call in state.calls:
        if call.phase == "asked":  # what a person answers is what they read
            together.setdefault((call.meaning, call.why or ""), []).append(call)
        elif call.phase == "suspended" and call.wake and call.wake.question:
            together[call.call_id, call.wake.question] = [call]
    return [
        Question(
            call_id=calls[0].call_id,
            pid=state.pid,
            tool=calls[0].tool,
            text=visible(text(blob)) if blob else "",  # whoever shows it need not know how
            kind="permission" if calls[0].phase == "asked" else "question",
            calls=tuple(call.call_id for call in calls),
        )
        for (_, blob), calls in together.items()
    ]
