"""Noninterference: what others see does not depend on a secret, but for what is released.

Each hostile program runs twice in worlds that differ in a secret alone, and is free to do anything
with every character that has come into its context. A *release* is a line of the journal: a call
that was allowed, with those who get to know something by it (`CallIntended.released`), or a
person's yes to a question, which shows the call. An *output* is what one reader outside sees of one
call; who sees it is worked out from what tools do, without their contracts (`world.py`). Then, for
both runs of every program:

1. Silence. What a reader sees by calls that are not released to that reader is equal, whatever
   else happens; without any release everything is equal. So whether there is an output at all
   cannot depend on the secret without a release in the journal.
2. Equal releases. If both journals have the same releases (by which tool, to whom, by the user's
   words or by a person's yes, and what the person was shown), then the same outputs are there, in
   the same order, and who is named in no release sees the same.
3. Bounds. What is released without a person goes, by a tool that the user asked for, to a reader
   that the user named, after nothing private was read but sources that the user asked for; or it
   says nothing but the user's own words. What a request means is written down in `requests.py`, by
   hand.

So content may differ for a reader whom the user named, if the user asked for its sources. While
nothing untrusted was read, the user's request alone decides whom of the vouched for a process
chooses; the programs here are hostile then, too, and are let choose. Not looked at: time, the order
in which different processes do things, the numbers that processes get, and that the user is told
something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from oneiros.kernel import anchoring, decisions, flows, policy, state
from oneiros.kernel import events as e
from oneiros.kernel.label import Label
from oneiros.kernel.verdict import Allow
from tests.security.hostile import Hostile
from tests.security.lean import Lean
from tests.security.observed import (
    Run,
    beyond_the_request,
    observed,
    occurrences,
    unreleased,
)
from tests.security.requests import MESSAGES
from tests.security.world import World

SECRETS = ("463820 rosebud", "463821 rosebud", "Xyzzy-99", "", "0" * 40)
ANSWERS = {"no": (False, False), "yes": (True, False), "always": (True, True)}


def run(seed: int, secret: str, person: str) -> Run:
    """What a seed's program does in a world with a secret."""
    chance = Random(seed)
    requests = chance.sample(MESSAGES, chance.choice((1, 1, 2, 3)))
    world = World(secret)
    program = Hostile(
        seed, sensitivity=chance.choice((0, 0.1, 0.5, 1)), among=chance.random() < 0.25
    )
    kernel = Lean(
        world,
        program,
        tuple(one.text for one in requests),
        lambda question: ANSWERS[person],
        quarantine=chance.random() < 0.2,
        accidents=seed if chance.random() < 0.5 else None,
    )
    kernel.run()
    return observed(world.outputs, kernel.events, requests, kernel.text)


def both(seed: int, person: str) -> tuple[Run, Run]:
    first, second = Random(seed).sample(SECRETS, 2)
    return run(seed, first, person), run(seed, second, person)


def differences(first: Run, second: Run) -> list[str]:
    """What there is against two runs."""
    found = []
    if unreleased(first) != unreleased(second):
        found.append("silence")
    if not first.releases and not second.releases and first.outputs != second.outputs:
        found.append("outputs without a release")
    if first.steps == second.steps:
        if occurrences(first) != occurrences(second):
            found.append("occurrence")
        named = {name.casefold() for one in first.releases for name in one.readers}
        shown = {(one.process, one.call_id) for one in first.releases if not one.readers}
        others = [
            [
                output
                for output in each.outputs
                if output.reader not in named and (output.process, output.call_id) not in shown
            ]
            for each in (first, second)
        ]
        if others[0] != others[1]:
            found.append("readers that no release names")
    return found + beyond_the_request(first) + beyond_the_request(second)


def check(seeds: range, person: str) -> Counter[str]:
    """Try programs; how often what happened."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        first, second = both(seed, person)
        assert differences(first, second) == [], f"seed {seed}"
        seen["outputs"] += len(first.outputs)
        seen["by words"] += sum(one.by == "words" for one in first.releases)
        seen["by a person"] += sum(one.by == "person" for one in first.releases)
        same = first.steps == second.steps
        seen["equal releases"] += same and bool(first.releases)
        seen["others"] += same and first.outputs != second.outputs
        seen["silent"] += same and not first.releases and bool(first.outputs)
    return seen


def test_nothing_private_leaves_where_a_person_agrees_to_nothing() -> None:
    seen = check(range(400), "no")
    assert seen["outputs"] > 200 and seen["by words"] > 80 and seen["silent"] > 50
    assert seen["equal releases"] > 30 and seen["others"] > 1  # content for who may read it


@pytest.mark.parametrize("person", ["yes", "always"])
def test_a_yes_releases_what_was_asked_and_nothing_else(person: str) -> None:
    seen = check(range(10_000, 10_060), person)
    assert seen["by a person"] > 100


@pytest.mark.long
@pytest.mark.parametrize("person", list(ANSWERS))
def test_thousands_of_programs(person: str) -> None:
    check(range(100_000, 104_000), person)


Patch = Callable[[pytest.MonkeyPatch], None]


def without(kind: str) -> Patch:
    """The policy does not mind problems of a kind."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        leaks = policy.leaks
        monkeypatch.setattr(
            policy,
            "leaks",
            lambda *given: [one for one in leaks(*given) if one.kind != kind],
        )

    return patch


def fixed_sinks_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = flows._readers
    monkeypatch.setattr(
        flows, "_readers", lambda call: [one for one in readers(call) if one[1] is not None]
    )


def mail_is_not_private(monkeypatch: pytest.MonkeyPatch) -> None:
    context = decisions.policy_context
    monkeypatch.setattr(
        decisions, "policy_context", lambda *given: replace(context(*given), private=False)
    )


def _forgetting(kind: type[Any]) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        apply = state.apply

        def forgetful(known: Any, pid: int, seq: int, event: e.Event, load: Any) -> Any:
            after = apply(known, pid, seq, event, load)
            return replace(after, readings=()) if isinstance(event, kind) else after

        monkeypatch.setattr(state, "apply", forgetful)

    return patch


def contexts_without_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = state.apply

    def everybodys(known: Any, pid: int, seq: int, event: e.Event, load: Any) -> Any:
        after = apply(known, pid, seq, event, load)
        return replace(after, label=Label(after.label.origins))

    monkeypatch.setattr(state, "apply", everybodys)


def every_source_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchoring.Anchors, "meant", lambda self, reading, call: True)


def releases_are_not_journalled(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = decisions.decide_all
    monkeypatch.setattr(
        decisions,
        "decide_all",
        lambda *given: [Allow() if isinstance(one, Allow) else one for one in decide(*given)],
    )


def errors_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_BROUGHT", ("done",))


def form_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_is_flat", lambda argument: True)


def made_up_names_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    call = decisions._call
    monkeypatch.setattr(decisions, "_call", lambda *given: replace(call(*given), unknown=()))


@dataclass(frozen=True, slots=True)
class Mistake:
    """A change to the kernel that lets something out."""

    name: str
    patch: Patch
    first: int = 0  # the seed to begin with, so that it does not take long


MISTAKES = [
    Mistake("who may read it is not looked at", without("private")),
    Mistake("addresses in texts are not looked at", without("link"), 40),
    Mistake("fixed sinks are harmless", fixed_sinks_are_harmless),
    Mistake("messages of other processes are not private", mail_is_not_private, 220),
    Mistake("what left the context is forgotten", _forgetting(e.Evicted), 50),
    Mistake("a fork has read nothing", _forgetting(e.Forked), 60),
    Mistake("contexts are everybody's", contexts_without_readers, 220),
    Mistake("every source is meant", every_source_is_meant, 220),
    Mistake("releases are not journalled", releases_are_not_journalled),
    Mistake("errors are nobody's", errors_are_nobodys),
    Mistake("forms say nothing", form_says_nothing, 70),
    Mistake("made-up names are known", made_up_names_are_known),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.name)
def test_mistakes_are_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake.patch(monkeypatch)
    seeds = range(mistake.first, mistake.first + 600)
    assert any(differences(*both(seed, "no")) for seed in seeds)
