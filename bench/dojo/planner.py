"""Planners without a model: programs that make the calls of a plan, step by step."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.dojo.reader import question
from oneiros.kernel.program import Action, Call, Exit, Receive, ToolRequest, View

INSPECT = "inspect"  # the tool


@dataclass(frozen=True, slots=True)
class Sought:
    """Which of a call's records is meant: the one whose field speaks of something."""

    field: str  # whose texts stay behind handles
    word: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A call that a plan makes."""

    tool: str
    arguments: Mapping[str, object]
    handle: bool = False  # leave what is untrusted of the result behind handles
    sought: Sought | None = None  # what is asked about each record that it brings

    def request(self) -> ToolRequest:
        """The call as the kernel takes it."""
        arguments = json.dumps(self.arguments)
        return ToolRequest(tool=self.tool, arguments=arguments, handle=self.handle)


Step = tuple[Planned, ...]  # calls that are made at once


@dataclass(frozen=True, slots=True)
class Planner:
    """A program that takes the user's message and then makes its steps, whatever comes of them.

    Records of a call that seeks one are inspected, one by one, as soon as it has brought them.
    """

    steps: Sequence[Step]

    def step(self, view: View) -> Action:
        if not view.state.pages:
            return Receive()
        made, number = view.state.next_call - 1, 0
        for step in self.steps:
            if made < number + len(step):
                return Call(requests=tuple(call.request() for call in step[made - number :]))
            places = range(number + 1, number + len(step) + 1)
            number += len(step)
            for place, call in zip(places, step, strict=True):
                inspections = _inspections(view, place, call.sought)
                if made < number + len(inspections):
                    return Call(requests=(inspections[made - number],))
                number += len(inspections)
        return Exit(result="")


def _inspections(view: View, place: int, sought: Sought | None) -> list[ToolRequest]:
    """Questions about the texts that the so-manieth call has left behind handles."""
    if sought is None:
        return []
    call_id = f"{view.state.pid}.{place}"
    (page,) = (page for page in view.state.pages if page.call_id == call_id)
    handle = re.compile(rf"⟨handle ({re.escape(call_id)}#\d+\.{re.escape(sought.field)}): ")
    return [
        ToolRequest(
            tool=INSPECT,
            arguments=json.dumps(
                {
                    "handle": found,
                    "question": question(sought.word),
                    "schema": {"type": "boolean"},
                }
            ),
        )
        for found in handle.findall(str(view.message(page)["content"]))
    ]


def one_by_one(calls: Sequence[Planned]) -> list[Step]:
    """Each call as a step of its own."""
    return [(call,) for call in calls]
