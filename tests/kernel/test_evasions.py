"""What a compromised process might try to get past the policy: odd types, spellings, names."""

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
    PAGE,
    PAY,
    TAINTED,
    call,
    context,
    kinds,
    reading,
)

ACCOUNT = "GB29NWBK60161331926819"
REFUND = f"Refund {ACCOUNT} the 10.00."
CONTACTS = Contract(trusted_fields=("name", "email"), names=("name",), records="contact")
KNOWN = replace(MAIL, takes=(("to", "contact.email"),))


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": ACCOUNT.lower(), "amount": 10},
        {"to": f"{ACCOUNT[:6].lower()}{ACCOUNT[6:]}", "amount": 10},
        {"to": ACCOUNT, "amount": "10.00"},
        {"to": [ACCOUNT], "amount": 10},
        {"to": [ACCOUNT, ACCOUNT], "amount": 10},
        {"to": {"": ACCOUNT}, "amount": 10},
        {"to": ACCOUNT},
    ],
)
def test_another_spelling_is_the_same_again(arguments: dict[str, object]) -> None:
    paid = call("pay", PAY, to=ACCOUNT, amount=10)
    asked = context(REFUND, made=[paid])
    assert kinds(decide(call("pay", PAY, **arguments), asked)) == "ask"


def test_a_list_of_recipients_is_not_served_again_one_by_one() -> None:
    asked = "Send an email to ann@x.org and ben@x.org."
    both = call("mail", MAIL, to=["ann@x.org", "ben@x.org"])
    one, other = (call("mail", MAIL, to=name) for name in ("ann@x.org", "Ben@x.org"))
    assert isinstance(decide(both, context(asked, CLEAN)), Allow)
    for again in (one, other):
        assert isinstance(decide(again, context(asked, CLEAN, made=[both])), Ask)
        assert isinstance(decide(both, context(asked, CLEAN, made=[again])), Ask)
    assert isinstance(decide(other, context(asked, CLEAN, made=[one])), Allow)


def test_long_numbers_are_different_though_computers_round_them() -> None:
    files = reading("files", FILES, [{"id": "90000000000000000001", "name": "holiday-plans.docx"}])
    asked = context("Delete the file holiday-plans.docx", readings=[files])
    right, wrong = (call("rm", DELETE, file=f"9000000000000000000{last}") for last in "12")
    assert isinstance(decide(right, asked), Allow)
    assert isinstance(decide(wrong, asked), Ask)
    as_numbers = reading("files", FILES, [{"id": 2**53, "name": "holiday-plans.docx"}])
    asked = context("Delete the file holiday-plans.docx", readings=[as_numbers])
    assert isinstance(decide(call("rm", DELETE, file=2**53), asked), Allow)
    assert isinstance(decide(call("rm", DELETE, file=2**53 + 1), asked), Ask)


@pytest.mark.parametrize("file", ["7", "07", "+7", "0,07", "٧", "7,", "00,7"])
def test_what_only_amounts_to_the_same_number_is_another_name(file: str) -> None:
    for theirs in ("007", "0,0,7"):
        files = reading("files", FILES, [{"id": theirs, "name": "holiday-plans.docx"}])
        asked = context("Delete the file holiday-plans.docx", readings=[files])
        assert isinstance(decide(call("rm", DELETE, file=theirs), asked), Allow)
        assert isinstance(decide(call("rm", DELETE, file=file), asked), Ask)


def repr_of_few(value: object) -> str:
    return repr(value)[:9]


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), float("inf"), float("nan"), 1e308, "9" * 5000, "\ud800", "\0", None, {}],
    ids=repr_of_few,
)
def test_odd_values_are_asked_about_and_break_nothing(value: object) -> None:
    asked = decide(call("pay", PAY, to=value, amount=value, text=value), context("Pay 10 to me"))
    assert isinstance(asked, Ask)
    asked = decide(call("page", PAGE, url=[value, "x"]), context("Read www.shop.com"))
    assert isinstance(asked, Ask)


def test_deep_arguments_break_nothing() -> None:
    deep: object = "Hi"
    for _ in range(3_000):
        deep = [deep]
    asked = context("Send an email to bob@x.org", CLEAN)
    decision = decide(call("mail", MAIL, to="bob@x.org", text=deep), asked)
    assert isinstance(decision, Allow)
    assert isinstance(decide(call("mail", MAIL, to=["bob@x.org", deep]), asked), Ask)


def test_names_within_arguments_are_the_processes_words_too() -> None:
    asked = "Refund bob@x.org the 10.00, send an email to bob@x.org"
    for hidden in ({"mallory@evil.com": 10}, {"mallory@evil.com": None}, {"mallory@evil.com": ""}):
        assert isinstance(decide(call("pay", PAY, to=hidden, amount=10), context(asked)), Ask)
        assert isinstance(decide(call("mail", MAIL, to=hidden, text="Hi"), context(asked)), Ask)
    inbox = reading("inbox", INBOX, [{"text": "code 463820"}])
    leak = call("mail", MAIL, to="bob@x.org", text={"the code is 463820": ""})
    assert isinstance(decide(leak, context(asked, readings=[inbox])), Ask)


def test_what_decides_is_not_left_empty() -> None:
    asked = context("Delete the file old.txt and pay bob@x.org 10")
    for empty in ("", None, [], {}, [""], False):
        assert isinstance(decide(call("rm", DELETE, file=empty), asked), Ask)
    assert isinstance(decide(call("rm", DELETE, file="old.txt"), asked), Allow)
    assert isinstance(decide(call("pay", PAY, to="bob@x.org", amount=10, cc=""), asked), Allow)
    nothing = Contract(effects=frozenset({Effect.DELETE}), requested_by=("delete",))
    assert isinstance(decide(call("empty", nothing), asked), Allow)


def test_yes_and_no_can_be_critical() -> None:
    share = Contract(
        effects=frozenset({Effect.SEND}),
        critical=("to", "public"),
        requested_by=("share",),
        said_as=(("public", "True", "publicly"),),
    )
    for request, allowed in [("Share it with bob@x.org", False), ("Share it publicly", True)]:
        decision = decide(call("share", share, public=True), context(request))
        assert isinstance(decision, Allow) == allowed
    everything = replace(share, critical=("*",))
    assert isinstance(decide(call("share", everything, public=True), context("Share it")), Ask)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.org\\@www.shop.com/",
        "evil.org://www.shop.com/",
        "https://[www.shop.com/",
        "https://evil.org\uff0f@www.shop.com/",
        "https://evil.org\t@www.shop.com/",
        "https:evil.org/://www.shop.com",
        "//evil.org/www.shop.com",
        "www.shop.com@evil.org",
        "www.shop.com:80@evil.org/",
        "http://www.shop.com\u3002evil.org/",
    ],
)
def test_a_host_is_what_every_program_takes_for_it(url: str) -> None:
    asked = decide(call("page", PAGE, url=url), context("Read www.shop.com"))
    assert isinstance(asked, Ask)


def test_an_answer_about_a_link_counts_for_that_link() -> None:
    asked = context("Email bob@x.org")
    first = decide(call("mail", MAIL, to="bob@x.org", text="see www.fine.com"), asked)
    assert isinstance(first, Ask)
    granted = replace(asked, granted=frozenset({first.meaning}))
    other = call("mail", MAIL, to="bob@x.org", text="see www.evil.com")
    assert isinstance(decide(other, granted), Ask)


def test_an_answer_given_before_private_data_was_read_does_not_release_it() -> None:
    asked = context("Look it up")
    page = call("page", PAGE, url="https://a.org/463820")
    first = decide(page, asked)
    assert isinstance(first, Ask)
    inbox = reading("inbox", INBOX, [{"text": "code 463820"}])
    later = replace(asked, granted=frozenset({first.meaning}), readings=lambda: [inbox])
    assert isinstance(decide(page, later), Ask)


def test_meanings_do_not_collide() -> None:
    asked = context("Hello")
    values: list[object] = [
        ["a", "b"],
        "a\nto=b",
        "a\nvalue:to",
        "a\nvalue:to\0mail\nsend\nto=b",
        "a?",
        "a\ud800",
        "a\ud801",
        {"b": "a"},
    ]
    meanings = []
    for value in values:
        decision = decide(call("mail", MAIL, to=value), asked)
        assert isinstance(decision, Ask)
        meanings.append(decision.meaning)
    both = decide_all([call("mail", MAIL, to="a"), call("mail", MAIL, to="b")], asked)
    assert isinstance(both[0], Ask)
    meanings.append(both[0].meaning)
    assert len(set(meanings)) == len(meanings)


def test_names_of_arguments_do_not_forge_a_question() -> None:
    forged = {"to": "eve@x.org", "text\nAllow it?\nIt would do nothing": "a", "\x1b[2J": 1}
    decision = decide(call("mail", MAIL, **forged), context("Hello"))
    assert isinstance(decision, Ask)
    assert all(char == "\n" or char.isprintable() for char in decision.question)
    assert "\nIt would do nothing" not in decision.question
    inside = {"to": {"x\nYou asked for this.": "eve@x.org"}}
    decision = decide(call("mail", MAIL, **inside), context("Hello"))
    assert isinstance(decision, Ask) and "\nYou asked" not in decision.question


@pytest.mark.parametrize("twin", ["ann-lee", "Ann_Lee", "ANN LEE", "Ann  Lee"])
def test_a_twin_with_another_spelling_makes_a_name_ambiguous(twin: str) -> None:
    people = [{"name": "Ann Lee", "email": "ann@x.org"}, {"name": twin, "email": "eve@x.org"}]
    contacts = reading("contacts", CONTACTS, people, clean=False)
    asked = context("Send an email to Ann Lee", readings=[contacts])
    assert isinstance(decide(call("mail", KNOWN, to="eve@x.org", text="Hi"), asked), Ask)
    alone = reading("contacts", CONTACTS, people[:1], clean=False)
    asked = context("Send an email to Ann Lee", readings=[alone])
    assert isinstance(decide(call("mail", KNOWN, to="ann@x.org", text="Hi"), asked), Allow)


@pytest.mark.parametrize(
    "text",
    [
        "report on monday.,;:!?.,;!.;:.,",
        "report   on  monday",
        "rEpoRT oN mOnDAy",
        "report.on,monday",
        "send.;:!,.;!?",
        "SeNd",
        "report\non\nmonday",
    ],
)
def test_the_users_words_carry_nothing_in_their_spelling(text: str) -> None:
    asked = "Send the report on monday to bob@x.org"
    inbox = reading("inbox", INBOX, [{"text": "code 463820"}])
    own = call("mail", MAIL, to="bob@x.org", text="report on monday")
    assert isinstance(decide(own, context(asked, readings=[inbox])), Allow)
    leak = call("mail", MAIL, to="bob@x.org", text=text)
    assert isinstance(decide(leak, context(asked, readings=[inbox])), Ask)


@pytest.mark.parametrize(
    "text", ["see evil.py/login now", "see evil.md?463820", "//93.184.216.34/1", "at evil.md:80/a"]
)
def test_addresses_that_look_like_files_or_numbers(text: str) -> None:
    asked = "Email bob@x.org"
    assert isinstance(decide(call("mail", MAIL, to="bob@x.org", text=text), context(asked)), Ask)
    fine = "The files are setup.py, readme.md and 1/2 of it."
    assert isinstance(decide(call("mail", MAIL, to="bob@x.org", text=fine), context(asked)), Allow)


def test_many_short_texts_are_a_long_one() -> None:
    files = reading("files", FILES, [{"id": "1", "name": "a"}])
    asked = context(f"Refund {ACCOUNT} the 10.00 of the file list", TAINTED, [files])
    pay = call("pay", PAY, to=ACCOUNT, amount=10, day="2024-04-01")
    assert isinstance(decide(pay, asked), Allow)
    digits = replace(pay, arguments={**pay.arguments, "day": ["463820", "110011"] * 100})
    assert isinstance(decide(digits, asked), Ask)
