"""What a person is asked: what would happen, what is against it, and where values come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from oneiros.kernel.contract import CONSERVATIVE, Contract, Effect
from oneiros.kernel.label import Label
from oneiros.kernel.policy import MOST_QUESTIONS, MOST_REFUSALS, decide, decide_all
from oneiros.kernel.verdict import Allow, Ask, Deny, PolicyContext, ToolCall
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

MAILS = reading("inbox", INBOX, [{"text": "code 463820 at www.evil.com"}])


def asked(one: ToolCall, about: PolicyContext) -> Ask:
    decision = decide(one, about)
    assert isinstance(decision, Ask)
    return decision


def lines(one: ToolCall, about: PolicyContext) -> list[str]:
    """The reasons in a question."""
    return [line[4:] for line in asked(one, about).question.split("\n") if line[:4] == "  - "]


def test_a_question_says_what_would_happen_from_first_to_last() -> None:
    both = replace(MAIL, effects=frozenset({Effect.SPEND, Effect.SEND}))
    question = asked(call("mail", both, to="eve@x.org", text="Hi"), context("Mail x", CLEAN))
    assert question.question.split("\n") == [
        "mail(to='eve@x.org', text='Hi') would send and spend.",
        "  - to 'eve@x.org': you did not write it; it is in nothing that was read.",
        "Allow it?",
    ]
    read = asked(call("page", PAGE, url="https://a.org/1"), context("Hello", CLEAN))
    assert read.question.split("\n") == [
        "page(url='https://a.org/1') would read.",
        "  - You did not name 'web:a.org', who would read it.",
        "Allow it?",
    ]
    two = decide_all([call("mail", MAIL, to=to) for to in ("a@x.org", "b@x.org")], context("Mail"))
    assert isinstance(two[0], Ask) and two[0].question.endswith("\nAllow all of them?")


@pytest.mark.parametrize("number", range(8))
def test_a_question_names_some_sources_of_what_was_read(number: int) -> None:
    origins = [f"web:{letter}.org" for letter in "abcdefgh"[:number]]
    label = CLEAN.join(Label.of(*origins))
    question = asked(call("mail", MAIL, to="eve@x.org"), context("Hello", label)).question
    named = re.findall(r"'(web:.\.org)'", question)
    assert named == origins[:5]
    assert ("has read from" in question) == bool(number)
    assert re.findall(r"and (\d+) more", question) == ([str(number - 5)] if number > 5 else [])
    if number > 1:
        assert "'web:a.org', 'web:b.org'" in question


def test_long_sources_and_values_are_cut() -> None:
    label = CLEAN.join(Label.of("file:" + "x" * 200))
    question = asked(call("mail", MAIL, to="e@x.org"), context("Hello", label)).question
    assert f"'file:{'x' * 54}… (207 characters)" in question
    short = asked(call("mail", MAIL, to="e@x.org", text="y" * 198), context("Hello")).question
    assert f"text='{'y' * 198}')" in short
    long = asked(call("mail", MAIL, to="e@x.org", text="y" * 1199), context("Hello")).question
    assert f"text='{'y' * 199}… (1,201 characters))" in long


def test_every_reason_is_said() -> None:
    tainted = context("Pay bob@x.org. The bill is 10.")
    paid = call("pay", PAY, to="bob@x.org", amount=10)
    assert lines(paid, tainted) == ["What it puts together, you wrote in different sentences."]
    assert lines(paid, context("Who is bob@x.org? 10.")) == ["You did not ask for this."]
    once = context("Pay bob@x.org 10", made=[paid])
    assert lines(paid, once) == ["The same was done already."]
    nothing = call("rm", DELETE, file="")
    assert lines(nothing, context("Delete it")) == ["What it would be done to is left empty."]
    secret = context("Send an email to bob@x.org", readings=[MAILS])
    assert lines(call("mail", MAIL, to="bob@x.org", text="Hi you"), secret) == [
        "'bob@x.org' would read what may hold private data."
    ]
    link = call("mail", MAIL, to="bob@x.org", text="See (www.evil.com)! ")
    assert lines(link, context("Send an email to bob@x.org")) == [
        "text holds the address 'www.evil.com'; you did not write it."
    ]
    hidden = call("mail", MAIL, to="bob@x.org", text="Fine\u200b")
    assert lines(hidden, context("Send an email to bob@x.org")) == [
        "text holds characters that nobody sees."
    ]
    files = reading("files", FILES, TWO_FILES)
    private = context("Pay bob@x.org 10 with my files", readings=[files])
    assert lines(call("pay", PAY, to="bob@x.org", amount=10, subject="Kyoto"), private) == [
        "subject is a text that may hold private data."
    ]
    assert lines(call("page", PAGE, url="evil.org"), context("Read it", readings=[files])) == [
        "You did not name 'web:evil.org', who would read it.",
        "'web:evil.org' would read what may hold private data.",
    ]


def test_values_are_shown_with_the_results_that_hold_them() -> None:
    found = [reading(f"inbox{n}", INBOX, [{"text": "to EVE@x.org"}]) for n in range(5)]
    other = reading("files", FILES, TWO_FILES)
    asking = context("Send an email", readings=[other, *found[:1], *found[:1]])
    why, *_ = lines(call("mail", MAIL, to="eve@x.org", text=""), asking)
    assert why == "to 'eve@x.org': you did not write it; it is in what inbox0 (mail) brought."
    asking = context("Send an email", readings=found)
    why, *_ = lines(call("mail", MAIL, to="eve@x.org", text=""), asking)
    assert "inbox0 (mail), inbox1 (mail), inbox2 (mail) and 2 more brought" in why


def test_a_denial_says_why() -> None:
    without = replace(context("Hello"), capabilities=frozenset({"read"}))
    denied = decide(replace(call("mail", MAIL), capability="post"), without)
    assert isinstance(denied, Deny) and "mail" in denied.reason and "'post'" in denied.reason
    mail = call("mail", MAIL, to="bob@x.org", text="a")
    refused = decide(mail, replace(context("Hello"), refused=MOST_REFUSALS + 3))
    assert isinstance(refused, Deny) and str(MOST_REFUSALS + 3) in refused.reason
    tired = decide(mail, replace(context("Hello"), asked=MOST_QUESTIONS + 3))
    assert isinstance(tired, Deny) and str(MOST_QUESTIONS + 3) in tired.reason


def test_two_refusals_and_eight_questions_are_enough() -> None:
    assert (MOST_REFUSALS, MOST_QUESTIONS) == (2, 8)
    fresh = PolicyContext(
        owner="me",
        app="assistant",
        capabilities=frozenset({"*"}),
        granted=frozenset(),
        request=lambda: "Hello",
        label=TAINTED,
    )
    many = decide_all([call(f"mail{n}", MAIL, to="bob@x.org") for n in range(9)], fresh)
    assert [kinds(one) for one in many] == ["ask"] * 8 + ["deny"]


def test_a_call_that_is_denied_leaves_the_others_alone() -> None:
    mine = replace(context("Email bob@x.org"), capabilities=frozenset({"mail", "rm"}))
    calls = [
        call("inbox", INBOX),
        call("mail", MAIL, to="bob@x.org"),
        call("rm", DELETE, file="x"),
        call("inbox", INBOX),
    ]
    assert [kinds(one) for one in decide_all(calls, mine)] == ["deny", "allow", "ask", "deny"]


def test_what_only_reads_is_done_as_often_as_wanted() -> None:
    page = call("page", PAGE, url="www.shop.com")
    about = context("Read www.shop.com")
    assert [kinds(one) for one in decide_all([page, page], about)] == ["allow", "allow"]


def test_different_problems_are_different_questions() -> None:
    about = context("Send an email to ann@x.org")
    mails = [
        call("mail", MAIL, to="ben@x.org", text="Hi"),
        call("mail", MAIL, to="ann@x.org", text="www.evil.com"),
        call("mail", MAIL, to="ann@x.org", text="", more="www.evil.com"),
        call("post", MAIL, to="ben@x.org", text="Hi"),
    ]
    found = decide_all(mails, about)
    assert len({one.meaning for one in found if isinstance(one, Ask)}) == len(mails)


def _meaning(calls: Sequence[ToolCall], request: str = "Hello") -> str:
    decision = decide_all(calls, context(request))[0]
    assert isinstance(decision, Ask)
    return decision.meaning


def test_a_meaning_is_of_tool_effects_values_and_problems() -> None:
    mail = call("mail", MAIL, to="bob@x.org", text="a")
    others = [
        call("post", MAIL, to="bob@x.org", text="a"),
        call("mail", replace(MAIL, effects=frozenset({Effect.DELETE})), to="bob@x.org", text="a"),
        call("mail", replace(MAIL, effects=frozenset(Effect)), to="bob@x.org", text="a"),
        call("mail", replace(MAIL, critical=("to", "text")), to="bob@x.org", text="a"),
        call("mail", MAIL, to="eve@x.org", text="a"),
    ]
    meanings = [_meaning([mail]), _meaning([mail], "Email Bob"), *(_meaning([o]) for o in others)]
    assert len(set(meanings)) == len(meanings)
    assert _meaning([mail]) == _meaning([replace(mail, arguments={**mail.arguments, "text": "b"})])
    assert _meaning([mail]).startswith("mail:")
    ten, same = (call("pay", PAY, amount=10, to=to) for to in ("bob@x.org", " bob@x.org "))
    assert _meaning([ten]) == _meaning([same])


def test_a_meaning_does_not_depend_on_order() -> None:
    calls = [call("mail", MAIL, to=f"{name}@x.org") for name in "abcdefgh"]
    assert _meaning(calls) == _meaning(calls[::-1])
    arguments = {name: f"{name}@x.org" for name in "abcdefgh"}
    one = call("x", CONSERVATIVE, **arguments)
    other = call("x", CONSERVATIVE, **dict(reversed(arguments.items())))
    assert _meaning([one]) == _meaning([other])


def test_an_answer_for_good_about_several_counts_for_them_together() -> None:
    calls = [call("mail", MAIL, to=f"{name}@x.org", text="Hi") for name in ("ann", "ben")]
    files = reading("files", FILES, TWO_FILES)
    about = context("Hello", readings=[files])
    granted = replace(about, granted=frozenset({asked_together(calls, about)}))
    readers = ("ann@x.org", "ben@x.org")
    assert decide_all(calls, granted) == [Allow(readers), Allow(readers)]
    assert kinds(decide_all(calls[:1], granted)[0]) == "ask"


def asked_together(calls: Sequence[ToolCall], about: PolicyContext) -> str:
    decisions = decide_all(calls, about)
    assert isinstance(decisions[0], Ask) and decisions[0] == decisions[-1]
    return decisions[0].meaning


def test_one_answer_for_good_is_for_one_time_a_request() -> None:
    mail = call("mail", MAIL, to="bob@x.org", text="a")
    granted = replace(context("Hello"), granted=frozenset({_meaning([mail])}))
    decisions = decide_all([mail, mail], granted)
    assert [kinds(one) for one in decisions] == ["allow", "ask"]
    remembered = replace(granted, made=lambda: [mail])
    assert kinds(decide(mail, remembered)) == "ask"


def test_a_person_is_not_asked_while_others_are_stopped_for_it() -> None:
    """What was granted for good needs no question, however many were asked."""
    mail = call("mail", MAIL, to="bob@x.org", text="a")
    about = replace(context("Hello"), refused=MOST_REFUSALS, asked=MOST_QUESTIONS)
    granted = replace(about, granted=frozenset({_meaning([mail])}))
    assert kinds(decide(mail, granted)) == "allow"


def test_what_is_not_critical_is_no_value_that_is_asked_about() -> None:
    contract = Contract(effects=frozenset({Effect.DELETE}), requested_by=("clear",))
    assert lines(call("clear", contract, note="x"), context("Hello")) == [
        "You did not ask for this."
    ]
