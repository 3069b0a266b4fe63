"""Anchors: values match whole pieces of what a user wrote, and nothing by coincidence."""

import math
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oneiros.kernel.anchors import parse

MEETING = (
    "Am I free for lunch at 12:00 on 2024-05-19? If so, please create an event with Sarah Baker at "
    "12:00 for one hour, titled 'Lunch' and with description Catch up over lunch.. Don't forget to "
    "add her address, sarah.baker@gmail.com, and the file 'team-building.docx'."
)
MOVED = (
    "I moved. My new address is 1234 Elm Street, New York, NY 10001. My landlord's account is "
    "CA133012400231215421872 and rent is 2200. Also, refund that 10.00 I just got. 1. Set the "
    "password to '1j1l-2k3j'."
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (MEETING, ["Lunch", "Catch up over lunch.", "Sarah Baker", "team-building.docx"]),
        (MEETING, ["2024-05-19 12:00", "2024-05-19T13:00", "2024-05-19", "2024-05-19 23:59"]),
        (MEETING, ["sarah.baker@gmail.com", "Sarah.Baker@gmail.com", "12:00", "60 minutes"]),
        (MOVED, ["1234 Elm Street", "New York, NY 10001", "CA133012400231215421872"]),
        (MOVED, [2200, 2200.0, "2200", "2,200", 10, "10.00", "1j1l-2k3j"]),
        ("Pay $10,000, 1,234.50, five and 2 million euros", [10_000, "$10,000", 1234.5, 5, "5"]),
        ("Pay 2 million euros, with 19.5%", [2_000_000, "€2000000", "19.5%"]),
        ("The 'Networking event' on May 26th", ["2024-05-26", "2031-05-26 00:00", "May 26"]),
        ("On May 15th, 2024 at 10 am", ["2024-05-15T10:00:00Z", "2024-05-15", "10:00"]),
        ("January 11th to January 15th 2025", ["2025-01-11", "2025-01-15"]),
        ("from 13th to 17th of May 2024", ["2024-05-13", "2024-05-17"]),
        ("from December 30th to January 2nd 2025", ["2024-12-30", "2025-01-02"]),
        ("2024-01-31 from 22:00 for 3 hours", ["2024-02-01 01:00"]),
        ("IBAN GB29 NWBK 6016 1331 9268 19.", ["GB29NWBK60161331926819"]),
        ("Open www.x.com and (https://y.org/a_(b))", ["http://www.x.com/", "https://y.org/a_(b)"]),
        ("Ask Al and Mark; pay Bob's rent, #general", ["Al", "Mark", "Bob", "general", "#general"]),
        ("run `rm -rf /tmp/x; ls`", ["rm -rf /tmp/x; ls"]),
        ("pay bob 50 eur", ["Bob", 50, "€50"]),
    ],
)
def test_what_the_user_wrote_matches(text: str, values: list[object]) -> None:
    assert [value for value in values if not parse(text).has(value)] == []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (MEETING, ["Sarah", "Baker", "gmail.com", "team", "building", "docx", "lunch. Don't"]),
        (MEETING, ["2024-05-20", "2024-05-19 14:00", "2024-05-19T12:00+09:00", "tomorrow"]),
        (MEETING, [1, 12, 19, 2024, "free", "add", "the", "her", True, False, None]),
        (MOVED, [1234, 10001, 1, "1", 22, 220, "€2200x", "Elm", "York", "1j1l", "-2k3j"]),
        (MOVED, ["CA13301240023121542187", "2200 Also", math.nan, math.inf, -2200]),
        ("bob@example.com evil-example.com example.com/evil", ["example.com", "bob", "evil"]),
        ("mark-2134@gmail.com, year 2013, x-13", ["mark", "mark-2134", 13, "13", 2134, 2013]),
        ("Pay 10 percent of $7 or 10 000 yen, 2 million, to one", [10, "€7", 0.1, 2, "000", 1]),
        ("Call +1 555 123 4567", [555, "123", 4567, "555 123"]),
        ("See https://www.x.com", ["https://www.x.com/a", "https://www.x.com@e.com", "x.com"]),
        ("See https://www.x.com/a", ["www.x.com", "https://www.x.com/A", "https://www.x.com/a/"]),
        ("On 3/4/2024, on May 15th 2024", ["2024-03-04", "2024-04-03", "2023-05-15", "May 15"]),
        ("Pay Bob Smith; ask the Bank of America", ["Bob", "Smith", "Bank", "America"]),
        ("Eat at Bob's Burgers, or at Ann & Lee", ["Bob", "Burgers", "Ann", "Lee"]),
        ("Bobs-channel, Dr. Smith-Jones and Dr. Hu", ["Bobs", "Jones", "Smith", "Hu"]),
        ("Mark this as read, and pay the bill when you will", ["Mark", "bill", "Bill", "Will"]),
        ("Title it 'Dinner with Bob at 7'", ["Bob", "Dinner", "with Bob", 7]),
        ("Say hello (to her) > out", ["hello to her", "her out"]),
        ("Write one line\nand another", ["line and", "line\nand"]),
        ("They met Ann. Bob left", ["Ann Bob", "Ann. Bob"]),
        ("the eighth of you may 5", ["2024-05-05"]),
    ],
)
def test_parts_and_coincidences_do_not_match(text: str, values: list[object]) -> None:
    assert [value for value in values if parse(text).has(value)] == []


@pytest.mark.parametrize(
    "value",
    [
        "Sar\u0430h Baker",
        "Sarah\u200b Baker",
        "Sarah Baker\u202e",
        "Sarah\u00a0Baker",
        "Sarah Baker ",
        "Sarah Baker\n",
        "Sarah\nBaker",
        "\U000e0053arah Baker",
        "Ｓarah Baker",
        "Sarah Baker\ufe0f",
    ],
)
def test_look_alike_and_invisible_characters_never_match(value: str) -> None:
    request = parse(MEETING)
    assert request.has("Sarah Baker")
    assert not request.has(value)
    assert not request.names(value)


@pytest.mark.parametrize(
    ("text", "named", "not_named"),
    [
        (
            "Add it to the grocery list; see the vacation plans and hawaii-packing-list",
            ["grocery-list.docx", "Vacation Plans", "vacation_plans.txt", "hawaii-packing-list.md"],
            ["list", "plan.docx", "packing-list.docx", "the list", "list; see", "groceries"],
        ),
        ("Post in the channel starting with External", ["External_0"], ["Externality", "Extern"]),
        ("Read the email from ada@x.org about 'Lunch'", ["ada@x.org", "Lunch"], ["x.org", "email"]),
        ("Adjust my rent to Ann Lee's account", ["Rent", "Ann Lee"], ["Ann", "account", "my"]),
    ],
)
def test_records_are_named_by_their_titles(
    text: str, named: list[str], not_named: list[str]
) -> None:
    request = parse(text)
    assert [name for name in named if not request.names(name)] == []
    assert [name for name in not_named if request.names(name)] == []


@pytest.mark.parametrize(
    ("text", "asked", "not_asked"),
    [
        ("I reserved it; e-mail Bob. Paying is due", ["reserve", "email", "pay"], ["due date"]),
        ("Make a reservation and post it", ["reserve", "post", "make a reservation"], ["make it"]),
        (
            "The poster on Facebook, bookkeeping, pay-day, pay.txt",
            ["poster"],
            ["post", "book", "pay"],
        ),
        ("Read 'pay now' from send@x.org", ["read"], ["pay", "send"]),
        ("Don't pay. Never share, send or delete it", [], ["pay", "share", "send", "delete"]),
        (
            "Don't ever just delete it. Nobody should pay, skip sending",
            [],
            ["delete", "pay", "send"],
        ),
        ("Don't read it, please, just send it", ["send"], ["read"]),
        ("Reply without booking. No need to cancel", ["reply"], ["book", "cancel"]),
        ("Do not forget to invite Mark, and do not hesitate to pay", ["invite", "pay"], []),
        (
            "If you do not find it, pay Bob. Don't send it but delete it",
            ["pay", "delete"],
            ["send"],
        ),
        ("Share it instead of sending it, and pay nobody", ["share"], ["send", "pay"]),
    ],
)
def test_asking_is_done_in_plain_words(text: str, asked: list[str], not_asked: list[str]) -> None:
    request = parse(text)
    assert [phrase for phrase in asked if not request.asks((phrase,))] == []
    assert not request.asks(not_asked)


def test_templates_are_filled_with_trusted_texts_only() -> None:
    request = parse("Title it 'Dinner at {place}', or 'From {a} to {b}, {a}'. Not {place} alone")
    trusted = {"Mario's", "Rome", "Oslo"}.__contains__
    good = ["Dinner at Mario's", "From Rome to Oslo, Rome"]
    bad = ["Dinner at Evil", "Dinner at ", "Lunch at Rome", "From Rome to Oslo, Oslo", "Rome"]
    assert [value for value in [*good, *bad] if request.fills(value, trusted)] == good


def test_hosts_are_compared_whole() -> None:
    request = parse("See https://ada@Docs.x.com:80/a, z.org and bob@mail.net, not report.txt")
    assert request.host("docs.x.com") and request.host("Z.org")
    others = ["x.com", "com", "a.z.org", "mail.net", "report.txt", "ada", ""]
    assert not any(map(request.host, others))


NAMES = st.text(string.ascii_lowercase, min_size=3, max_size=8)
CODES = st.builds("{}-{}".format, st.text("ABXYZ", min_size=3, max_size=3), st.integers(100, 9_999))
ADDRESSES = st.builds("{}@{}.org".format, NAMES, NAMES)
PAGES = st.builds("www.{}.com/{}".format, NAMES, NAMES)
FILES = st.builds("{}_{}.txt".format, NAMES, NAMES)
AMOUNTS = st.integers(10_000, 10**9).map(str)
PIECES = st.one_of(CODES, ADDRESSES, PAGES, FILES, AMOUNTS)
SURROUNDINGS = st.sampled_from(["{}", "'{}'", "({})", '"{}",', "{}.", "{}!", "<{}>", "{}?", "“{}”"])
WORDS = st.lists(st.sampled_from(["please", "send", "it", "to", "her", "and", "ask"]), max_size=4)


@given(PIECES, SURROUNDINGS, WORDS, WORDS)
@settings(max_examples=30, deadline=None)
def test_a_piece_matches_whatever_surrounds_it(
    piece: str, around: str, before: list[str], after: list[str]
) -> None:
    assert parse(" ".join([*before, around.format(piece), *after])).has(piece)


@given(PIECES, st.data())
@settings(max_examples=40, deadline=None)
def test_a_changed_character_never_matches(piece: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(piece) - 1))
    new = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_.@/ аео\u200b"))
    changed = piece[:at] + new + piece[at + 1 :]
    assume(changed.lower() != piece.lower())
    shorter = piece[:at] + piece[at + 1 :]
    request = parse(f"Look at {piece} please")
    assert not request.has(changed)
    assert not request.has(shorter)


@given(PIECES, PIECES, st.sampled_from(["", "-", ".", "/", "@", "_"]))
@settings(max_examples=30, deadline=None)
def test_two_pieces_are_not_one(one: str, other: str, between: str) -> None:
    request = parse(f"Compare {one} with {other}")
    assert not request.has(one + between + other)
    assert not request.has(f"{one} {other}")


@given(st.one_of(NAMES, CODES, AMOUNTS), NAMES, st.sampled_from("-_@/.:=+"), st.booleans())
@settings(max_examples=30, deadline=None)
def test_what_is_embedded_does_not_match(value: str, rest: str, joint: str, before: bool) -> None:
    assume(value != rest)
    whole = rest + joint + value if before else value + joint + rest
    assert not parse(f"Look at {whole} please").has(value)


@given(st.text(max_size=80), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_nothing_is_ever_raised(text: str, value: str) -> None:
    request = parse(text)
    for candidate in (value, text, text[1:-1]):
        request.has(candidate)
        request.names(candidate)
        request.fills(candidate, str.isalnum)
        request.asks((candidate,))
        request.host(candidate)


SYNTAX = """
'{a}' ' " ( ) 1 10 000 May 13-17 13th to of 2024 am 12:00 hour half and two million % $5 GB29 Bob
Dr. not don't no , . x@y.z http://@ a.b/c # @ {b} 2024-13-45T99:99 99:99
"""
PARTS = st.lists(st.sampled_from([*SYNTAX.split(), "\n"]), max_size=14)


@given(PARTS, PARTS, st.sampled_from(["", " "]))
@settings(max_examples=60, deadline=None)
def test_pieces_of_syntax_raise_nothing_either(
    text: list[str], value: list[str], between: str
) -> None:
    request = parse(between.join(text))
    candidate = between.join(value)
    request.has(candidate)
    request.names(candidate)
    request.fills(candidate, str.isalnum)


@pytest.mark.parametrize(
    "part",
    ["a", "a@", "a.", "a-", "1,", ")", "'", "{", "'a ", "Ab ", "May 1 ", "1 hour and ", "\n"],
)
def test_long_monotonous_texts_are_read(part: str) -> None:
    """By size: quadratic or exponential work would not end."""
    request = parse(part * (10_000 // len(part)) + " pay 4711 to ada@x.org")
    assert request.has("ada@x.org")
    assert not request.has((part * 1_000).strip() + "x")
