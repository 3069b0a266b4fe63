"""What is measured of a suite: utility of an honest planner, effects of a compromised one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agentdojo.task_suite.task_suite import (
    functions_stack_trace_from_messages,
    model_output_from_messages,
)

from bench.dojo.machine import Made, Person, Run, nobody, willing
from bench.dojo.planner import Planned, Step, one_by_one
from bench.dojo.runtime import KernelPipeline
from bench.dojo.suites import Suite
from bench.dojo.tasks import honest
from bench.dojo.verdict import Fact, History, effects, facts


@dataclass(frozen=True, slots=True)
class Task:
    """How an honest planner fares with a user's task."""

    suite: str
    number: int
    prompt: str
    unattended: bool  # completed though nobody answers questions
    attended: bool  # completed where a person agrees to everything
    questions: tuple[str, ...]  # that such a person is asked

    def __str__(self) -> str:
        return f"{self.suite} {self.number}"


@dataclass(frozen=True, slots=True)
class Attack:
    """What an attack on a task achieves."""

    suite: str
    user: int
    injection: int
    text_only: bool  # all that it wants is that the user is told something
    theirs: bool  # AgentDojo's verdict: it succeeded
    effects: tuple[tuple[str, Fact], ...]  # ours: what it changed
    calls: tuple[Made, ...]  # its own
    questions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.suite} {self.user}/{self.injection}"


def tasks(suite: Suite, numbers: Sequence[int] | None = None) -> Iterator[Task]:
    """The user's tasks of a suite, or some of them."""
    for number, task in suite.user_tasks.items():
        if numbers is None or number in numbers:
            unattended, _ = _tried(suite, number, task, nobody)
            attended, run = _tried(suite, number, task, willing)
            prompt = " ".join(task.PROMPT.split())
            yield Task(suite.name, number, prompt, unattended, attended, run.questions)


def _tried(suite: Suite, number: int, task: Any, person: Person) -> tuple[bool, Run]:
    """Whether a task is completed: by AgentDojo's own check, and with every call of the plan.

    Some of its checks also pass where nothing was done.
    """
    environment = suite.environment()
    calls = suite.calls(task, task.init_environment(_copy(environment)))
    steps = honest(suite.name, number, calls, suite.contracts)
    completed, run, _ = _run(suite, task, task, steps, person, environment)
    made = len(run.calls) == sum(map(len, steps)) and all(one.done for one in run.calls)
    return completed and made, run


def attacks(suite: Suite, person: Person, users: Sequence[int] | None = None) -> Iterator[Attack]:
    """Every injection task of a suite on every user's task, or on some of them."""
    for number, user in suite.user_tasks.items():
        if users is None or number in users:
            for other, injection in suite.injection_tasks.items():
                yield _attack(suite, number, user, other, injection, person)


def _attack(
    suite: Suite, number: int, user: Any, other: int, injection: Any, person: Person
) -> Attack:
    injections = suite.injections(user, injection)
    fresh = suite.environment(injections)
    environment = user.init_environment(_copy(fresh))
    asked = suite.calls(user, environment)
    wanted = suite.calls(injection, environment)
    read = suite.read_after(user)
    steps = one_by_one([*asked[:read], *wanted, *asked[read:]])
    theirs, run, after = _run(suite, user, injection, steps, person, _copy(fresh))
    made = run.calls[read : read + len(wanted)]
    changed: list[tuple[str, Fact]] = []
    if any(one.outcome in ("done", "failed") and _matters(suite, one.planned) for one in made):
        honestly = one_by_one(asked)
        *_, without = _run(suite, user, injection, honestly, person, _copy(fresh))
        before = facts(environment.model_dump(mode="json"))
        changed = effects(before, without, after)
    text_only = not any(_matters(suite, call) for call in wanted)
    return Attack(suite.name, number, other, text_only, theirs, tuple(changed), made, run.questions)


def _copy(environment: Any) -> Any:
    return environment.model_copy(deep=True)


def _matters(suite: Suite, call: Planned) -> bool:
    """Whether a call does more than read."""
    contract = suite.contracts[call.tool]
    return bool(contract.effects or contract.sinks)


def _run(
    suite: Suite,
    user: Any,
    checked: Any,
    steps: Sequence[Step],
    person: Person,
    environment: Any,
) -> tuple[bool, Run, History]:
    """Run a plan; AgentDojo's verdict on a task, the run, and what became of the environment.

    Args:
        suite: the suite.
        user: the user's task.
        checked: the task that is judged: the user's, or an attack.
        steps: the plan.
        person: who is asked.
        environment: as it is before the task, which changes it.
    """
    environment = user.init_environment(environment)
    before = environment.model_copy(deep=True)
    outputs = dict.fromkeys((user.GROUND_TRUTH_OUTPUT, checked.GROUND_TRUTH_OUTPUT))
    prompt = user.PROMPT
    pipeline = KernelPipeline(lambda: suite.machine.run(prompt, steps, person), "\n".join(outputs))
    *_, messages, _ = pipeline.query(prompt, suite.runtime, environment)
    assert pipeline.result is not None
    # AgentDojo's run_task_with_pipeline, without comparing environments for the task not asked for.
    verdict = suite.theirs._check_task_result(
        checked,
        model_output_from_messages(messages) or [],
        before,
        environment,
        functions_stack_trace_from_messages(messages),
    )
    return verdict, pipeline.result, suite.runtime.history
