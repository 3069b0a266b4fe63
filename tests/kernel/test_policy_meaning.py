"""What the user meant: which readings are passed on, which records and sentences are spoken of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.policy import decide, decide_all
from oneiros.kernel.verdict import Allow, Ask
from tests.kernel.test_policy import (
    CLEAN,
    DELETE,
    FILES,
    INBOX,
    MAIL,
    PAY,
    SUM,
    TWO_FILES,
    call,
    context,
    kinds,
    reading,
)

MAILS = reading("inbox", INBOX, [{"text": "code 463820"}])
CREATE = replace(
    FILES, effects=frozenset({Effect.LOCAL}), critical=("name",), requested_by=("create",)
)
RING = Contract(effects=frozenset({Effect.LOCAL}), critical=("to",), requested_by=("ring",))
TO_BOB = call("mail", MAIL, to="bob@x.org", text="a 463820")
ACCOUNT = "GB29NWBK60161331926819"


@pytest.mark.parametrize(
    ("said", "clean", "name", "expected"),
    [
        ("Create notes.txt. Email bob@x.org", True, "notes.txt", "allow"),
        ("Create notes.txt. Email bob@x.org", False, "notes.txt", "allow"),
        ("Create notes.txt. Email bob@x.org", True, "made-up.txt", "allow"),
        ("Create notes.txt. Email bob@x.org", False, "made-up.txt", "ask"),
        ("This is notes.txt. Email bob@x.org", True, "notes.txt", "ask"),
    ],
)
def test_what_was_made_for_the_user_may_be_passed_on(
    said: str, clean: bool, name: str, expected: str
) -> None:
    made = reading("create", CREATE, {"id": "26", "name": name}, clean=clean, name=name)
    assert kinds(decide(TO_BOB, context(said, readings=[made]))) == expected


def test_one_sentence_of_several_asks_for_what_is_passed_on() -> None:
    said = "It is Monday. Email bob@x.org what is in my emails. Thank you."
    assert isinstance(decide(TO_BOB, context(said, readings=[MAILS])), Allow)


def test_what_an_app_may_send_is_meant_where_only_the_source_is_asked_for() -> None:
    asked = context("What is in my inbox? Email bob@x.org", readings=[MAILS])
    assert isinstance(decide(TO_BOB, asked), Ask)
    assert isinstance(decide(TO_BOB, replace(asked, app_grants=frozenset({"mail"}))), Allow)


def test_what_a_tool_looked_up_is_no_computed_text() -> None:
    found = reading("files", FILES, [{"id": "f-1a", "name": "x"}], query="the largest")
    asked = context("Delete the largest file", CLEAN, [found])
    assert isinstance(decide(call("rm", DELETE, file="f-1a"), asked), Allow)


def test_a_tool_that_was_told_nothing_vouches_for_texts() -> None:
    clock = Contract(trusted_fields=("now",))
    remind = replace(RING, critical=("at",), requested_by=("remind",))
    at = call("remind", remind, at="2024-05-19 10:00")
    told_nothing = reading("clock", clock, {"now": "2024-05-19 10:00"})
    assert isinstance(decide(at, context("Remind me now", CLEAN, [told_nothing])), Allow)
    assert isinstance(decide(at, context("Remind me now", readings=[told_nothing])), Ask)
    told = reading("clock", clock, {"now": "2024-05-19 10:00"}, zone="any")
    assert isinstance(decide(at, context("Remind me now", CLEAN, [told])), Ask)


def test_what_is_computed_of_made_up_numbers_is_made_up() -> None:
    found = reading("files", FILES, [{"id": "41", "name": "a"}], private=False)
    pay = call("pay", PAY, to=ACCOUNT, amount=46)
    for expression, expected in [("7 - 2", "ask"), ("41 - 36", "ask"), ("41 - 41 + 5", "allow")]:
        step = reading("sum", SUM, {"exact": "5"}, expression=expression)
        total = reading("sum", SUM, {"exact": "46"}, expression="41 + 5")
        said = f"Refund {ACCOUNT} what I owe"
        known = said + " and 5" if expected == "allow" else said
        asked = context(known, CLEAN, [found, step, total])
        assert kinds(decide(pay, asked)) == expected, expression


def test_records_that_the_user_did_not_name_are_not_meant_by_an_app_either() -> None:
    files = reading("files", FILES, TWO_FILES, clean=False)
    asked = context("Delete the file holiday-plans.docx", readings=[files])
    granted = replace(asked, app_grants=frozenset({"rm"}))
    for file, expected in [("14", "allow"), ("13", "ask")]:
        assert kinds(decide(call("rm", DELETE, file=file), granted)) == expected


@pytest.mark.parametrize(
    ("critical", "arguments", "said", "expected"),
    [
        (("to",), {"to": "bob@x.org"}, "Ring bob@x.org at 10:00", "allow"),
        (("to", "at"), {"to": "bob@x.org"}, "Ring bob@x.org at 10:00", "ask"),
        (("to.mail",), {"to": {"mail": "bob@x.org"}}, "Ring bob@x.org at 10:00", "allow"),
        (("*",), {"to": "bob@x.org"}, "Ring bob@x.org at 10:00", "allow"),
        (("*", "loud"), {"loud": True}, "Ring loudly at 10:00", "allow"),
        (("*", "loud"), {"to": "bob@x.org"}, "Ring bob@x.org loudly at 10:00", "ask"),
    ],
)
def test_what_was_left_out_may_be_meant_where_the_contract_names_it(
    critical: tuple[str, ...], arguments: dict[str, object], said: str, expected: str
) -> None:
    ring = replace(RING, critical=critical, said_as=(("loud", "True", "loudly"),))
    assert kinds(decide(call("ring", ring, **arguments), context(said))) == expected


def test_texts_of_another_request_are_asked_about_and_numbers_are_not() -> None:
    said = "Ring ann@x.org 3 times about 'the flat'. Ring bob@x.org."
    for more, expected in [
        ({"times": 3}, "allow"),
        ({"about": "the flat"}, "ask"),
        ({"about": "a boat"}, "allow"),
    ]:
        ringing = call("ring", RING, to="bob@x.org", **more)
        assert kinds(decide(ringing, context(said))) == expected, more


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2025-01-01", "2025-01-01 10:00", "allow"),
        ("2025-01-01 10:00", "2025-01-01", "ask"),
    ],
)
def test_a_day_begins_at_midnight(start: str, end: str, expected: str) -> None:
    hold = replace(RING, critical=("start", "end"), requested_by=("reserve",))
    said = "Reserve it on 2025-01-01 until 10:00"
    assert kinds(decide(call("hold", hold, start=start, end=end), context(said))) == expected


def test_twelve_calls_are_in_a_question() -> None:
    names = [f"person{n}@x.org" for n in range(13)]
    asked = decide_all([call("mail", MAIL, to=name) for name in names], context("Hello"))
    first, last = asked[0], asked[-1]
    assert isinstance(first, Ask) and isinstance(last, Ask)
    meant = [one.meaning for one in asked if isinstance(one, Ask)]
    assert [meant.count(first.meaning), meant.count(last.meaning)] == [12, 1]
