"""Planners without a model: programs that make the calls of a plan, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oneiros.kernel.program import Action, Call, Exit, Receive, ToolRequest, View


@dataclass(frozen=True, slots=True)
class Planned:
    """A call that a plan makes."""

    tool: str
    arguments: Mapping[str, object]
    handle: bool = False  # leave what is untrusted of the result behind handles

    def request(self) -> ToolRequest:
        """The call as the kernel takes it."""
        arguments = json.dumps(self.arguments)
        return ToolRequest(tool=self.tool, arguments=arguments, handle=self.handle)


Step = tuple[Planned, ...]  # calls that are made at once


@dataclass(frozen=True, slots=True)
class Planner:
    """A program that takes the user's message and then makes its steps, whatever comes of them."""

    steps: Sequence[Step]

    def step(self, view: View) -> Action:
        if not view.state.pages:
            return Receive()
        made = view.state.next_call - 1
        for step in self.steps:
            if made < len(step):
                return Call(requests=tuple(call.request() for call in step[made:]))
            made -= len(step)
        return Exit(result="")


def one_by_one(calls: Sequence[Planned]) -> list[Step]:
    """Each call as a step of its own."""
    return [(call,) for call in calls]
