"""Who gets to read what: readers, private data, and the user's own words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.policy import decide
from oneiros.kernel.verdict import Allow, Ask
from tests.kernel.test_policy import (
    CLEAN,
    DELETE,
    INBOX,
    MAIL,
    PAGE,
    PAY,
    call,
    context,
    kinds,
    reading,
)

SEARCH = Contract(sinks=("public",), requested_by=("search",))
MAILS = reading("inbox", INBOX, [{"text": "code 463820"}])


def test_public_readers_are_named_by_asking_for_the_tool() -> None:
    search = call("search", SEARCH, query="big dogs")
    assert isinstance(decide(search, context("Search for it")), Allow)
    asked = decide(search, context("Hello"))
    assert isinstance(asked, Ask) and "'public'" in asked.question
    assert isinstance(decide(search, context("Search for it", readings=[MAILS])), Ask)
    owned = replace(context("Hello"), app_grants=frozenset({"public"}))
    assert isinstance(decide(search, owned), Allow)
    model = replace(SEARCH, sinks=("model:far",))
    assert isinstance(decide(call("ask", model, query="big dogs"), context("Hello")), Allow)
    private = context("Hello", readings=[MAILS])
    found = decide(call("ask", model, query="big dogs"), private)
    assert isinstance(found, Ask) and "You did not name" not in found.question


def test_the_owner_is_no_stranger() -> None:
    note = call("mail", replace(MAIL, critical=(), sinks=("me",)), text="463820")
    asked = replace(context("Hello", readings=[MAILS]), app_grants=frozenset({"mail"}))
    assert decide(note, asked) == Allow()
    # An argument may say "me" and mean somebody else.
    named = call("mail", replace(MAIL, critical=()), to="me", text="463820")
    assert isinstance(decide(named, asked), Ask)


def test_an_owner_reads_what_is_theirs_and_it_is_no_release() -> None:
    both = replace(MAIL, critical=(), sinks=("me", "{cc}"))
    asked = replace(context("Hello", readings=[MAILS]), app_grants=frozenset({"mail"}))
    assert decide(call("mail", both, cc="", text="463820"), asked) == Allow()
    mixed = decide(call("mail", both, cc="bob@x.org", text="463820"), asked)
    assert isinstance(mixed, Ask) and "'me' would" not in mixed.question


def test_every_sink_has_its_readers() -> None:
    both = replace(MAIL, critical=(), sinks=("model:far", "{to}", "{cc}"))
    own = call("mail", both, to="bob@x.org", cc="ann@x.org", text="Email ann@x.org")
    asked = context("Email ann@x.org or bob@x.org", readings=[MAILS])
    assert decide(own, asked) == Allow(("model:far", "bob@x.org", "ann@x.org"))
    within = replace(own, arguments={**own.arguments, "to": {"eve@x.org": ""}})
    found = decide(within, asked)
    assert isinstance(found, Ask) and "'eve@x.org'" in found.question


def test_addresses_are_hosts_only_for_sinks_of_the_web() -> None:
    path = replace(MAIL, critical=(), requested_by=("send",))
    asked = context("Send the emails in my inbox to a/b", readings=[MAILS])
    assert decide(call("mail", path, to="a/b", text="my own words"), asked) == Allow(("a/b",))
    page = replace(PAGE, requested_by=("read",))
    for url, host in (("b.org/x/y", "b.org"), ("b.org", "b.org"), ("/x", "/x")):
        found = decide(call("page", page, url=url), context("Hello"))
        assert isinstance(found, Ask) and f"'web:{host}'" in found.question


def test_private_by_another_way_than_a_call() -> None:
    mail = call("mail", MAIL, to="bob@x.org", text="Email")
    asked = replace(context("Email bob@x.org"), private=True)
    assert decide(mail, asked) == Allow(("bob@x.org",))
    other = replace(mail, arguments={"to": "bob@x.org", "text": "4a"})
    assert isinstance(decide(other, asked), Ask)


def test_yes_and_no_are_said_too() -> None:
    asked = replace(context("Email bob@x.org"), private=True)
    assert isinstance(decide(call("mail", MAIL, to="bob@x.org", urgent=True), asked), Ask)
    assert isinstance(decide(call("mail", MAIL, to="bob@x.org", text=""), asked), Allow)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the plan of Ann", "allow"),
        ("The plan of Ann", "allow"),
        ("the plan of ann", "ask"),
        ("tHe plan of Ann", "ask"),
        ("Email", "allow"),
        ("email", "allow"),
        ("eMail", "ask"),
        ("two lines", "allow"),
        ("two\n lines", "ask"),
        ("two  lines", "allow"),
        ("pLAN of Ann", "ask"),
        ("the plan o", "ask"),
        ("2024-05-19", "allow"),
        ("2024-05-20", "ask"),
        ("19.05.2024", "allow"),
    ],
)
def test_the_users_words_are_spelt_as_theirs(text: str, expected: str) -> None:
    said = "Email bob@x.org about the plan of Ann, two  lines for May 19th 2024. PS"
    asked = replace(context(said, CLEAN), private=True)
    assert kinds(decide(call("mail", MAIL, to="bob@x.org", text=text), asked)) == expected


def test_what_reads_may_not_be_told_more_than_it_was_asked_for() -> None:
    """Sending is asked for; the readers of other effects get no private text, nor do strangers."""
    asked = context("Share my emails with bob@x.org", readings=[MAILS])
    text = "the code"
    for effects, requested, expected in [
        ({Effect.SEND}, ("share",), "allow"),
        ({Effect.LOCAL}, ("share",), "ask"),
        ({Effect.SEND}, ("post",), "ask"),
        (set(), ("share",), "ask"),
    ]:
        share = replace(MAIL, effects=frozenset(effects), requested_by=requested)
        granted = replace(asked, app_grants=frozenset({"share"}))
        found = decide(call("share", share, to="bob@x.org", text=text), granted)
        assert kinds(found) == expected, (effects, requested)


def test_a_reader_that_nobody_named_is_named_in_the_question_once_data_is_private() -> None:
    cc = replace(MAIL, sinks=("{to}", "{cc}"))
    asked = context("Email bob@x.org what is in my emails", readings=[MAILS])
    mail = call("mail", cc, to="bob@x.org", cc="eve", text="463820 a")
    found = decide(mail, asked)
    assert isinstance(found, Ask) and "You did not name 'eve'" in found.question
    named = replace(asked, app_grants=frozenset({"eve"}))
    assert isinstance(decide(mail, named), Allow)
    assert isinstance(decide(mail, context("Email bob@x.org")), Allow)


def test_only_the_argument_that_names_a_reader_counts() -> None:
    cc = replace(MAIL, sinks=("mail:{cc}",))
    asked = context("Email bob@x.org what is in my emails", readings=[MAILS])
    named = call("mail", cc, to="bob@x.org", cc="bob@x.org", text="463820 a")
    assert isinstance(decide(named, asked), Allow)
    eve = replace(named, arguments={"to": "bob@x.org", "cc": "eve@x.org", "text": "463820 a"})
    assert isinstance(decide(eve, asked), Ask)
    twice = replace(named, arguments={**eve.arguments, "text": "eve@x.org"})
    assert isinstance(decide(twice, asked), Ask)
    host = replace(MAIL, sinks=("mail:{cc}",), critical=())
    web = call("mail", host, cc="www.x.org", text="463820 a")
    said = context("Email what is in my emails, see http://www.x.org/a", readings=[MAILS])
    assert isinstance(decide(web, said), Ask)


@pytest.mark.parametrize(
    ("clean", "arguments", "said", "expected"),
    [
        (True, {"query": "made up"}, "my emails", "allow"),
        (False, {"query": "made up"}, "my emails", "ask"),
        (False, {"query": "about Ann"}, "my emails about Ann", "allow"),
        (False, {"query": "", "unread": True}, "my emails", "allow"),
        (False, {"query": {"made up": ""}}, "my emails", "ask"),
        (True, {"query": "made up"}, "my files", "ask"),
    ],
)
def test_what_was_read_is_meant_if_asked_for_and_aimed_by_the_user(
    clean: bool, arguments: dict[str, object], said: str, expected: str
) -> None:
    inbox = reading("inbox", INBOX, [{"text": "x"}], clean=clean, **arguments)
    asked = context(f"Email bob@x.org about {said}", readings=[inbox])
    assert kinds(decide(call("mail", MAIL, to="bob@x.org", text="a 1"), asked)) == expected


def test_what_nobody_reads_may_say_anything() -> None:
    asked = context("Delete old.txt", readings=[MAILS])
    assert decide(call("rm", DELETE, file="old.txt", note="463820 www.evil.com"), asked) == Allow()


def test_the_text_of_a_question_is_the_one_that_it_is_about() -> None:
    asked = context("Pay bob@x.org 10 as in my inbox", readings=[MAILS])
    pay = call("pay", PAY, to="bob@x.org", amount=10, day="2024-04-01", note="Kyoto")
    found = decide(pay, asked)
    assert isinstance(found, Ask) and "note is a text" in found.question
    query = decide(call("search", SEARCH, query="a 463820"), context("Hello", readings=[MAILS]))
    assert isinstance(query, Ask) and "is a text" not in query.question


def test_addresses_in_texts_are_compared_whole() -> None:
    asked = context("Email bob@x.org about www.fine.com/a")
    for text, expected in [
        ("See www.fine.com/a.", "allow"),
        ("See (www.fine.com/a)!", "allow"),
        ("See www.fine.com/a_", "ask"),
        ("See www.fine.com/ab", "ask"),
        ("Fine\u200b\nand warm", "ask"),
    ]:
        found = decide(call("mail", MAIL, to="bob@x.org", text=text), asked)
        assert kinds(found) == expected, text
    search = call("search", SEARCH, query="is www.dogs.com good")
    assert isinstance(decide(search, context("Search for it")), Allow)


def test_names_in_objects_are_read_as_much_as_values() -> None:
    linked = call("mail", MAIL, to="bob@x.org", text={"see www.evil.com": ""})
    assert isinstance(decide(linked, context("Email bob@x.org")), Ask)
    cc = replace(MAIL, critical=(), sinks=("{cc}",))
    asked = context("Email bob@x.org what is in my emails", readings=[MAILS])
    for names, expected in [({"bob@x.org": ""}, "allow"), ({"eve": "bob@x.org"}, "ask")]:
        assert kinds(decide(call("mail", cc, cc=names, text="463820 a"), asked)) == expected


def test_each_of_several_readers_is_named_in_the_place_where_they_are() -> None:
    asked = "Email Ann Lee and bob@x.org what is in my emails"
    people = Contract(trusted_fields=("*",), names=("name",), records="contact")
    contacts = reading("contacts", people, {"name": "Ann Lee", "email": "ann7"})
    cc = replace(MAIL, sinks=("{to}", "{cc}"), takes=(("to", "contact.email"),))
    for to, copies, stranger in [
        ("ann7", ["bob@x.org", "eve"], "eve"),
        ("ann7", ["ann7"], "ann7"),
        ("bob@x.org", ["bob@x.org"], None),
    ]:
        mail = call("mail", cc, to=to, cc=copies, text="463820 a")
        found = decide(mail, context(asked, readings=[MAILS, contacts]))
        told = found.question if isinstance(found, Ask) else ""
        assert (f"You did not name '{stranger}'" in told) == (stranger is not None), copies


def test_a_reader_is_named_by_all_that_comes_after_its_kind() -> None:
    room = replace(MAIL, critical=(), sinks=("room:{to}",))
    for to, expected in [("blue:7a", "allow"), ("7a", "ask")]:
        asked = context("Email the room 'blue:7a' what is in my emails", readings=[MAILS])
        found = decide(call("mail", room, to=to, text="463820 a"), asked)
        assert kinds(found) == expected, to
    said = context("Email what is in my emails, see http://www.x.org/a", readings=[MAILS])
    found = decide(call("mail", room, to="www.x.org", text="463820 a"), said)
    assert isinstance(found, Ask) and "You did not name 'room:www.x.org'" in found.question


def test_an_owner_whom_an_argument_names_is_told() -> None:
    asked = replace(context("Email me@x.org", readings=[MAILS]), owner="me@x.org")
    named = call("mail", MAIL, to="me@x.org", text="Email")
    assert decide(named, asked) == Allow(("me@x.org",))
