"""What may be done: one pure function over contracts, labels and what the user wrote.

The model is taken to obey whatever it reads. From the moment that its context holds anything
untrusted, all that it chooses may be somebody else's choice, so a call is judged by what nobody
else can choose: the user's own words, and fields that tools vouch for. Public work on the same
question: CaMeL (Debenedetti et al. 2025, arXiv 2503.18813) and FIDES (Costa et al. 2025, arXiv
2505.23643), both of which rest on labels of values; unlike CaMeL this takes no planner for honest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

from oneiros.kernel.anchoring import Anchors, apart, critical_values, spelt
from oneiros.kernel.anchors import parse
from oneiros.kernel.contract import Effect
from oneiros.kernel.flows import leaks, released
from oneiros.kernel.provenance import question
from oneiros.kernel.readings import same
from oneiros.kernel.verdict import Allow, Ask, Decision, Deny, PolicyContext, Problem, ToolCall

MOST_REFUSALS = 2  # of people, until a process that goes on asking is stopped
MOST_TOGETHER = 12  # calls in one question: more nobody reads
MOST_QUESTIONS = 8  # since the user's last message


def decide(call: ToolCall, context: PolicyContext) -> Decision:
    """Whether a call may be made; `decide_all` for one call."""
    return decide_all([call], context)[0]


def decide_all(calls: Sequence[ToolCall], context: PolicyContext) -> list[Decision]:
    """Whether calls may be made that a process wants to make at once.

    A process needs the tool's capability. What only reads and tells nobody is then allowed, and so
    are changes that the kernel can undo. Another call is allowed if nothing is found against it:

    - grant: the user's words ask for such an effect (`Contract.requested_by`), or the app may;
    - value, empty: there are critical arguments, and every one is anchored (`Anchors`);
    - again: the same was not done already;
    - apart: once anything untrusted was read, what the user wrote in different sentences is not
      put together;
    - private, reader, text, link, hidden, often: nothing private goes to whom it is not meant for.

    Otherwise a person is asked. Calls against which the same is found are one question. A process
    that goes on asking after two refusals, or asks for too much, is stopped.
    """
    decisions: list[Decision | None] = [None] * len(calls)
    problems: dict[int, list[Problem]] = {}
    made: list[ToolCall] = []
    for number, call in enumerate(calls):
        if not {call.capability, "*"} & context.capabilities:
            lacks = f"it lacks {call.capability!r}"
            decisions[number] = Deny(f"This process may not use {call.tool}: {lacks}.")
            continue
        found = _problems(call, context, made)
        if found and _meaning([(call, found)]) not in context.granted:
            problems[number] = found
            continue
        decisions[number] = Allow(released(call, context))
        made.append(call)
    groups: dict[object, list[int]] = defaultdict(list)
    for number, found in problems.items():
        kinds = frozenset(
            (problem.kind, "" if problem.kind in ("reader", "private") else problem.about)
            for problem in found
        )
        groups[calls[number].tool, kinds].append(number)
    asked = context.asked
    questions = [
        group[at : at + MOST_TOGETHER]
        for group in groups.values()
        for at in range(0, len(group), MOST_TOGETHER)
    ]
    for numbers in questions:
        together = [(calls[number], problems[number]) for number in numbers]
        decision = _ask(together, context, asked)
        asked += 1
        for number in numbers:
            decisions[number] = decision
    return [decision for decision in decisions if decision is not None]


def _ask(
    together: Sequence[tuple[ToolCall, list[Problem]]], context: PolicyContext, asked: int
) -> Decision:
    if context.refused >= MOST_REFUSALS:
        return Deny(
            f"A person has refused {context.refused} times what this process asked for. It is "
            "stopped, and not asked for again until there is a new message.",
            stop=True,
        )
    if asked >= MOST_QUESTIONS:
        return Deny(
            f"This process has asked {asked} questions about one request. It is stopped.", stop=True
        )
    meaning = _meaning(together)
    if meaning in context.granted:
        return Allow(tuple(r for call, _ in together for r in released(call, context)))
    return Ask(question(together, context), meaning)


def _meaning(together: Sequence[tuple[ToolCall, list[Problem]]]) -> str:
    """What a person agrees to: equal for calls, of one tool, that do the same to the same.

    Of a call without effects it is who would read what it says, so that one answer counts for all
    pages of a host, as long as nothing else is found against them.
    """
    parts = set()
    for call, problems in together:
        hits = {
            (problem.kind, problem.about, str(problem.value) if problem.kind == "link" else "")
            for problem in problems
        }
        if call.contract.effects:
            hits |= {("", path, str(same(value))) for path, value in critical_values(call)}
        parts.add((*sorted(call.contract.effects), *sorted(hits)))
    digest = sha256(repr(sorted(map(repr, parts))).encode()).hexdigest()
    return f"{together[0][0].tool}:{digest[:24]}"


def _problems(
    call: ToolCall, context: PolicyContext, together: Sequence[ToolCall]
) -> list[Problem]:
    contract = call.contract
    effects = contract.effects - ({Effect.LOCAL} if contract.undo else set())
    if not effects and not contract.sinks:
        return []
    request = parse(context.request())
    anchors = Anchors(request, context)
    problems = []
    if effects:
        requested = call.tool in context.app_grants or request.asks(contract.requested_by)
        if not requested:
            problems.append(Problem("grant"))
        unanchored = [
            Problem("value", path, value)
            for path, value in critical_values(call)
            if not anchors.hold(call, value, path)
        ]
        problems += unanchored
        if not any(critical_values(call)) and _has_to_aim(call):
            problems.append(Problem("empty"))
        if _again(call, [*context.made(), *together]):
            problems.append(Problem("again"))
        if requested and not unanchored and not context.label.trusted:
            problems += apart(call, context, request, anchors)
    problems += leaks(call, context, request, anchors, together)
    return problems


def _has_to_aim(call: ToolCall) -> bool:
    """Whether some argument has to decide what a call hits."""
    critical = call.contract.critical
    return bool(call.arguments) if "*" in critical else bool(critical)


def _again(call: ToolCall, made: Sequence[ToolCall]) -> bool:
    """Whether the same was done already: a grant is for one time.

    So are less and more of the same: who wrote to two together does not write to each of them.
    """
    hits = _hits(call)
    return any(
        other.tool == call.tool and (hits <= _hits(other) or _hits(other) <= hits) for other in made
    )


def _hits(call: ToolCall) -> set[tuple[str, object]]:
    return {(path.partition(".")[0], spelt(value)) for path, value in critical_values(call)}
