"""A kernel that runs planners: real processes, journal, policy and questions, a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.dojo.planner import INSPECT, Planned, Planner, Step
from bench.dojo.reader import Reader
from oneiros.apps.inspection import Inspection
from oneiros.devices.quarantine import quarantine
from oneiros.kernel.events import CallEnded, CallIntended
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import Label
from oneiros.kernel.program import Program
from oneiros.kernel.quarantine import PROGRAM as INSPECTION
from oneiros.kernel.services import Kept, Reminder
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import Tool
from oneiros.memory.pages import Page

OWNER = "emma"
_PROGRAM = "planner"

# Whether the person says yes to the so-manieth question; None: nobody answers.
Person = Callable[[int], bool | None]


def nobody(number: int) -> bool | None:
    """Never answers."""
    return None


def willing(number: int) -> bool | None:
    """Says yes to everything."""
    return True


def every_third(number: int) -> bool | None:
    """Says yes to every third question, and no to the others."""
    return number % 3 == 0


@dataclass(frozen=True, slots=True)
class Made:
    """A call of a run."""

    planned: Planned
    decision: str  # "allow", "ask", "deny"
    outcome: str  # "done", "failed", "denied", "cancelled", ...; "": it was never begun
    why: str = ""  # the question, or the reason

    @property
    def done(self) -> bool:
        return self.outcome == "done"


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a plan."""

    calls: tuple[Made, ...]
    questions: tuple[str, ...]  # as they were asked; calls with the same one share it
    stopped: bool  # by the policy


class NoMemory:
    """These processes need none."""

    def keep(self, state: ProcessState, name: str, text: str, label: Label) -> Kept:
        return Kept(name, text[:200])

    def evicted(self, state: ProcessState, page: Page, text: str) -> None: ...

    def erased(self, state: ProcessState, pages: tuple[Page, ...]) -> None: ...

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        return None

    def facts(self, owner: str) -> tuple[str, Label] | None:
        return None


class Machine:
    """A kernel with some tools, for one plan after the other."""

    def __init__(self, folder: Path, tools: Sequence[Tool]) -> None:
        """Open a journal in an empty folder."""
        self._runner = asyncio.Runner()
        self._programs: dict[str, Program] = {INSPECTION: Inspection()}
        self._journal = Journal.open(folder)
        by_name = {tool.name: tool for tool in tools}
        self._kernel = Kernel(self._journal, Reader(), lambda: by_name, self._programs, NoMemory())
        by_name |= {tool.name: tool for tool in quarantine(self._kernel)}

    def close(self) -> None:
        """Let go of the folder."""
        self._runner.run(self._kernel.close())
        self._runner.close()
        self._journal.close()

    def run(self, request: str, steps: Sequence[Step], person: Person) -> Run:
        """Let a process make the calls of a plan for a user who asked for something."""
        return self._runner.run(self._run(request, steps, person))

    async def _run(self, request: str, steps: Sequence[Step], person: Person) -> Run:
        self._programs[_PROGRAM] = Planner(steps)
        pid = await self._kernel.start(ProcessSpec(owner=OWNER, program=_PROGRAM, text=request))
        asked: list[str] = []
        while not (state := self._kernel.state(pid)).end and not state.stopped:
            if state.calls and all(call.phase == "asked" for call in state.calls):
                await self._answer(pid, asked, person)
            await asyncio.sleep(0)
        if state.end is None:
            await self._kernel.kill(pid)
        return Run(self._calls(pid, steps), tuple(asked), state.stopped)

    async def _answer(self, pid: int, asked: list[str], person: Person) -> None:
        """Answer the first of the questions that stand, or let all of them be."""
        questions = self._kernel.questions(pid)
        allow = person(len(asked) + 1)
        if allow is None:
            asked += [question.text for question in questions]
            await self._kernel.interrupt(pid)
        else:
            asked.append(questions[0].text)
            await self._kernel.answer(questions[0].call_id, pid=pid, allow=allow)

    def _calls(self, pid: int, steps: Sequence[Step]) -> tuple[Made, ...]:
        intended: dict[str, CallIntended] = {}
        ended: dict[str, str] = {}
        for recorded in self._journal.events(pid):
            match recorded.event:
                case CallIntended() as event if event.tool != INSPECT:
                    intended[event.call_id] = event
                case CallEnded() as event:
                    ended[event.call_id] = event.outcome
        planned = [call for step in steps for call in step]
        return tuple(
            Made(
                call,
                event.decision,
                ended.get(event.call_id, ""),
                self._kernel.text(event.why) if event.why else "",
            )
            for call, event in zip(planned, intended.values(), strict=False)
        )
