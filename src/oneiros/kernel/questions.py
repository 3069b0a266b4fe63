"""What processes ask people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from oneiros.kernel.state import ProcessState


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a process asks a person."""

    call_id: str
    pid: int
    tool: str
    text: str
    kind: Literal["permission", "question"]


def questions_of(state: ProcessState, text: Callable[[str], str]) -> list[Question]:
    """The questions of a process that wait for an answer.

    Args:
        state: the process.
        text: reads a text by its hash.
    """
    questions = []
    for call in state.calls:
        if call.phase == "asked":
            shown = text(call.why) if call.why else ""
            questions.append(Question(call.call_id, state.pid, call.tool, shown, "permission"))
        elif call.phase == "suspended" and call.wake and call.wake.question:
            shown = text(call.wake.question)
            questions.append(Question(call.call_id, state.pid, call.tool, shown, "question"))
    return questions
