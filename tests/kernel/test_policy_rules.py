"""The finer points of the rules: of each, what it lets through and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from oneiros.kernel.contract import CONSERVATIVE, Contract, Effect
from oneiros.kernel.policy import decide, decide_all
from oneiros.kernel.verdict import Allow, Ask, PolicyContext
from tests.kernel.test_policy import (
    CLEAN,
    DELETE,
    FILES,
    INBOX,
    MAIL,
    PAGE,
    PAY,
    TAINTED,
    TWO_FILES,
    call,
    context,
    kinds,
    reading,
)

ACCOUNT = "GB29NWBK60161331926819"
EVENT = Contract(
    effects=frozenset({Effect.LOCAL}), critical=("title", "start", "end"), requested_by=("create",)
)


def test_what_reads_nothing_and_tells_nobody_needs_no_texts() -> None:
    def never() -> str:
        raise AssertionError("read")

    assert decide(call("inbox", INBOX), replace(context(""), request=never)) == Allow()


def test_a_new_request_begins_with_no_questions() -> None:
    fresh = PolicyContext(
        owner="me",
        app="a",
        capabilities=frozenset(),
        granted=frozenset(),
        request=str,
        label=CLEAN,
    )
    assert (fresh.asked, fresh.refused, fresh.private) == (0, 0, False)


def test_what_is_within_a_critical_argument_is_critical() -> None:
    asked = context(f"Refund {ACCOUNT} the 10.00.")
    for to, expected in [(ACCOUNT, "allow"), ({"": ACCOUNT}, "allow"), ({"": "EVE"}, "ask")]:
        assert kinds(decide(call("pay", PAY, to=to, amount=10), asked)) == expected


def test_no_can_need_words_too_and_what_is_not_critical_needs_none() -> None:
    share = replace(MAIL, critical=("to", "notify"), said_as=(("notify", "False", "silently"),))
    for said, notify, expected in [
        ("Email bob@x.org", False, "ask"),
        ("Email bob@x.org silently", False, "allow"),
        ("Email bob@x.org", True, "ask"),
    ]:
        decision = decide(call("mail", share, to="bob@x.org", notify=notify), context(said))
        assert kinds(decision) == expected, (said, notify)
    flagged = call("mail", MAIL, to="bob@x.org", urgent=True)
    assert isinstance(decide(flagged, context("Email bob@x.org")), Allow)


def test_a_tool_that_takes_nothing_has_nothing_to_aim() -> None:
    clear = replace(CONSERVATIVE, sinks=(), requested_by=("clear",))
    assert isinstance(decide(call("clear", clear), context("Clear it")), Allow)
    assert isinstance(decide(call("clear", clear, what=""), context("Clear it")), Ask)


@pytest.mark.parametrize(
    ("said", "first", "second", "again"),
    [
        ("$10.00", "$10.00", 10, True),
        ("10%", "10%", "10%", True),
        ("2024-05-19", "2024-05-19", "2024-05-19 00:00", True),
        ("2024-05-19", "2024-05-19", "2024-05-19T23:59", True),
        ("2024-05-19 at 10:00", "2024-05-19 10:00", "2024-05-19T10:00:00Z", True),
        ("2024-05-19 at 10:00 and 2024-05-20", "2024-05-19 10:00", "2024-05-20 10:00", False),
        ("2024-05-19 at 10:00 and 11:00", "2024-05-19 10:00", "2024-05-19 11:00", False),
        ("www.x.org", "www.x.org", "http://www.x.org", True),
        ("www.x.org", "https://www.x.org", "http://www.x.org", True),
        ("www.x.org", "www.x.org", "http://www.x.org/", True),
        ("#general", "#general", "general", True),
        ("general and random", "general", "random", False),
        ("'((' and '))'", "((", "))", False),
    ],
)
def test_spellings_of_a_value_are_one_value(
    said: str, first: object, second: object, again: bool
) -> None:
    made = call("rm", DELETE, file=first)
    after = context(f"Delete {said}", CLEAN, made=[made])
    found = decide(call("rm", DELETE, file=second), after)
    assert ("already" in found.question if isinstance(found, Ask) else False) == again
    assert isinstance(decide(call("rm2", DELETE, file=first), after), Allow) or said[0] == "'"


def test_the_same_values_in_other_arguments_are_not_the_same() -> None:
    move = replace(DELETE, critical=("source", "target"), requested_by=("move",))
    there = call("move", move, source="a.txt", target="b.txt")
    back = call("move", move, source="b.txt", target="a.txt")
    asked = context("Move a.txt to b.txt, then move b.txt to a.txt", CLEAN, made=[there])
    assert isinstance(decide(back, asked), Allow)
    assert isinstance(decide(there, asked), Ask)
    one, other = (decide(each, context("Hello")) for each in (there, back))
    assert isinstance(one, Ask) and isinstance(other, Ask) and one.meaning != other.meaning


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"Refund {ACCOUNT} the 10.00", "allow"),
        (f"The account is {ACCOUNT}\nRefund the 10.00", "ask"),
        (f"The account is {ACCOUNT}. Refund the 10.00", "ask"),
        (f"The account is {ACCOUNT}! Refund the 10.00", "ask"),
        (f"Refund it. 10.00 to {ACCOUNT}", "ask"),
    ],
)
def test_a_sentence_or_a_line_belongs_together(said: str, expected: str) -> None:
    pay = call("pay", PAY, to=ACCOUNT, amount=10)
    assert kinds(decide(pay, context(said))) == expected
    assert isinstance(decide(pay, context(said, CLEAN)), Allow)
    granted = replace(context(said), app_grants=frozenset({"pay"}))
    assert isinstance(decide(pay, granted), Allow)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2024-12-31 23:30", "2025-01-01 00:30", "allow"),
        ("2025-01-01 00:30", "2024-12-31 23:30", "ask"),
        ("2025-01-31 23:30", "2025-02-01 00:30", "allow"),
        ("2025-02-01 00:30", "2025-01-31 23:30", "ask"),
        ("2025-01-02 00:00", "2025-01-01 00:01", "ask"),
        ("2025-01-01 00:01", "2025-01-01 00:00", "ask"),
        ("2025-01-01 00:00", "2025-01-01 00:01", "allow"),
        ("2025-01-01 00:01", "2025-01-01 00:01", "ask"),
        ({"": "2025-01-01 00:00"}, "2025-01-01 00:01", "allow"),
    ],
)
def test_times_are_in_order(start: object, end: str, expected: str) -> None:
    first = start if isinstance(start, str) else "2025-01-01 00:00"
    written = dict.fromkeys((first, end))
    moments = " and ".join(f"{one[:10]} at {one[11:]}" for one in written)
    said = f"Create an event 'Lunch' from {moments}"
    found = decide(call("create", EVENT, title="Lunch", start=start, end=end), context(said))
    assert kinds(found) == expected, said
    turned = decide(call("create", EVENT, end=end, start=start, title="Lunch"), context(said))
    assert kinds(turned) == expected
    if isinstance(found, Ask):
        assert "different sentences" in found.question


def test_what_the_user_wrote_needs_no_record() -> None:
    files = reading("files", FILES, TWO_FILES, clean=False)
    said = "Look into budget-2024.xlsx. Delete the file 13"
    found = decide(call("rm", DELETE, file="13"), context(said, readings=[files]))
    assert isinstance(found, Allow)


def test_one_of_a_records_names_is_enough() -> None:
    people = Contract(trusted_fields=("*",), names=("name", "email"), records="contact")
    known = reading(
        "contacts", people, {"name": "Ann Lee", "email": "ann@x.org", "phone": "5550123"}
    )
    ring = replace(MAIL, takes=(("to", "contact.phone"),), requested_by=("call",))
    said = "I met ann@x.org, that is Ann Lee. Call Ann Lee"
    assert isinstance(
        decide(call("ring", ring, to="5550123"), context(said, readings=[known])), Allow
    )


def test_the_same_call_twice_with_a_problem_is_one_question() -> None:
    mail = call("mail", MAIL, to="eve@x.org", text="Hi")
    one, other = decide_all([mail, mail], context("Send an email"))
    assert isinstance(one, Ask) and one == other
    texts = ("see www.evil.com", "fine\u200b")
    said = context("Email bob@x.org")
    calls = [call("mail", MAIL, to="bob@x.org", text=text) for text in texts]
    link, hidden = decide_all(calls, said)
    assert isinstance(link, Ask) and isinstance(hidden, Ask) and link.meaning != hidden.meaning


def test_a_value_that_nobody_wrote_is_the_only_thing_said_of_it() -> None:
    found = decide(call("mail", MAIL, to="eve@x.org"), context("Send an email"))
    assert isinstance(found, Ask) and found.question.count("  - ") == 1
    found = decide(
        call("pay", PAY, to="bob@x.org", amount=7), context("I met bob@x.org. Pay him well")
    )
    assert isinstance(found, Ask) and found.question.count("  - ") == 1


@pytest.mark.parametrize("url", ["http://www.shop.com/a", "https://www.shop.com/a", "www.shop.com"])
def test_schemes_of_the_web_lead_to_the_host(url: str) -> None:
    assert isinstance(decide(call("page", PAGE, url=url), context("Read www.shop.com")), Allow)
    assert kinds(decide(call("page", PAGE, url="ftp://www.shop.com"), context("Read it"))) == "ask"


def test_files_are_no_links_however_they_are_written() -> None:
    asked = context("Email bob@x.org")
    for text in ("See README.MD, setup.py and a.PDF", "It is v1.2 of 3.4."):
        found = decide(call("mail", MAIL, to="bob@x.org", text=text), asked)
        assert kinds(found) == "allow", text


@pytest.mark.parametrize(("digits", "expected"), [(24, "allow"), (25, "allow"), (26, "ask")])
def test_a_short_number_is_no_text(digits: int, expected: str) -> None:
    files = reading("files", FILES, TWO_FILES)
    asked = context(f"Refund {ACCOUNT} the 10.00 of the file list", readings=[files])
    pay = call("pay", PAY, to=ACCOUNT, amount=10, note="4" * digits)
    assert kinds(decide(pay, asked)) == expected
    for length, also in ((60, "allow"), (61, "ask")):
        several = ["5" * 20, "6" * 20, "7" * (length - 40)]
        pay = call("pay", PAY, to=ACCOUNT, amount=10, note=several)
        assert kinds(decide(pay, asked)) == also


_MEANING = """
from oneiros.kernel.policy import decide_all, Ask
from tests.kernel.test_policy import *
everything = replace(MAIL, effects=frozenset(Effect), critical=("*",))
calls = [call("mail", everything, **{n: f"{n}@{m}.org" for n in "abcdef"}) for m in ("x", "y")]
print(decide_all(calls, context("Hello"))[0].meaning)
"""


@pytest.mark.long
def test_a_meaning_is_the_same_in_every_process() -> None:
    found = {
        subprocess.run(
            [sys.executable, "-c", _MEANING],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in "123"
    }
    assert len(found) == 1


def test_tainted_is_not_clean() -> None:
    """What the rest of this file rests on."""
    assert CLEAN.trusted and not TAINTED.trusted


def test_a_template_is_filled_by_a_clean_process_with_what_tools_vouch_for() -> None:
    places = reading("places", Contract(trusted_fields=("name",)), [{"name": "Rome"}])
    other = reading("places", Contract(trusted_fields=("name",)), [{"name": "Oslo"}])
    said = "Delete 'Dinner at {place}'"
    for file, label, expected in [
        ("Dinner at Rome", CLEAN, "allow"),
        ("Dinner at Oslo", CLEAN, "allow"),
        ("Dinner at Evil", CLEAN, "ask"),
        ("Dinner at Rome", TAINTED, "ask"),
    ]:
        asked = context(said, label, readings=[places, other])
        assert kinds(decide(call("rm", DELETE, file=file), asked)) == expected, file


def test_sums_rest_on_what_was_looked_up_before_them() -> None:
    count = Contract(trusted_fields=("exact",))
    found = reading("files", FILES, [{"id": "41", "name": "a"}], private=False)
    made_up = reading("sum", count, {"exact": "5"}, expression="7 - 2")
    pay = call("pay", PAY, to=ACCOUNT, amount=42)
    for term, before, expected in [
        ("41 + 1", [found], "allow"),
        ("41 + 1", [], "ask"),
        ("37 + 5", [found, made_up], "ask"),
        ("41% + 1", [found], "ask"),
        ({"41": "+ 1"}, [found], "allow"),
        ({"39": "+ 1"}, [found], "ask"),
    ]:
        total = reading("sum", count, {"exact": "42"}, expression=term)
        asked = context(f"Refund {ACCOUNT} the 1.00 on top.", CLEAN, [*before, total])
        assert kinds(decide(pay, asked)) == expected, term


def test_records_are_named_by_their_names_alone() -> None:
    data = [{"id": "13", "name": "a.txt", "note": "budget"}, {"id": "14", "name": 7}]
    files = replace(FILES, trusted_fields=("id", "name", "note", "size"))
    known = context("Delete the budget file", readings=[reading("files", files, data, clean=False)])
    assert isinstance(decide(call("rm", DELETE, file="13"), known), Ask)
    other = replace(DELETE, critical=("file", "copy"), takes=(("copy", "file.id"),))
    said = context("Delete a.txt", readings=[reading("files", files, data, clean=False)])
    assert isinstance(decide(call("rm", other, copy="13"), said), Allow)
    assert isinstance(decide(call("rm", other, file="13"), said), Ask)
    size = replace(DELETE, takes=(("file", "file.id"), ("file", "file.size")))
    same = [{"id": "13", "name": "a.txt", "size": 14}]
    said = context("Delete a.txt", readings=[reading("files", files, same, clean=False)])
    for file in ("13", "14"):
        assert isinstance(decide(call("rm", size, file=file), said), Allow)
