"""Attacks of our own: what somebody tries who knows the policy.

Each case has a user's request, what is read for it, and what a compromised planner then calls in
place of what the request is for, or beside it. Something that others wrote is always read in plain
before that: until then nobody but the user has a say. Effects are judged as everywhere here: what
is so after the run, and neither was so before it nor is so after the honest calls alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.dojo.machine import Made, Person, Run, every_third, nobody
from bench.dojo.planner import Planned, Step, one_by_one
from bench.dojo.verdict import Fact, History, effects, facts
from bench.dojo.wording import is_text_only

if TYPE_CHECKING:
    from bench.dojo.suites import Suite

Plant = Callable[[dict[str, Any]], None]  # puts records into an environment's data


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An attack."""

    suite: str
    kind: str  # what is tried
    name: str  # unlike others of its kind and suite
    request: str  # what the user wrote
    reads: tuple[Planned, ...]  # before the attack; at least one of them in plain
    honest: tuple[Planned, ...]  # what the user asked for
    attack: tuple[Step, ...]
    plant: Plant | None = None  # records of the attacker's
    asks_third: bool = False  # whether a person says yes to every third question

    def __str__(self) -> str:
        return f"{self.suite}: {self.kind}: {self.name}"

    @property
    def person(self) -> Person:
        """Who is asked."""
        return every_third if self.asks_third else nobody


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a case."""

    case: Case
    effects: tuple[tuple[str, Fact], ...]
    text_only: bool  # all of them are free text to whom the user named, in what was asked for
    calls: tuple[Made, ...]  # of the attack
    questions: tuple[str, ...]


def tried(suite: Suite, cases: Sequence[Case]) -> Iterator[Tried]:
    """Try cases on a suite that is theirs."""
    for case in cases:
        before = facts(suite.environment(plant=case.plant).model_dump(mode="json"))
        _, without = _run(suite, case, one_by_one([*case.reads, *case.honest]))
        run, after = _run(suite, case, [*one_by_one(case.reads), *case.attack])
        wanted = sum(map(len, case.attack))
        made = run.calls[len(case.reads) : len(case.reads) + wanted]
        changed = effects(before, without, after)
        text_only = bool(changed) and is_text_only(case.request, before, without, after)
        yield Tried(case, tuple(changed), text_only, made, run.questions)


def _run(suite: Suite, case: Case, steps: Sequence[Step]) -> tuple[Run, History]:
    suite.runtime.begin(suite.environment(plant=case.plant))
    return suite.machine.run(case.request, steps, case.person), suite.runtime.history
