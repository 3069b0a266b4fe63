"""What a message names is looked at before a small model speaks."""

from __future__ import annotations

import json

import pytest

from oneiros.apps.agent import Agent
from oneiros.apps.looking import HEAD, LONGEST, WHOLE, looks
from oneiros.apps.named import named, not_dealt_with
from oneiros.apps.prompts import Notice
from oneiros.kernel.program import Call, Generate
from oneiros.model.answer_calls import ANSWER_NAME
from tests.apps.driver import Driver, Reply, tool

TOOLS = (tool("read_file"), tool("fetch_page"), tool("write_file"))
LINES = [f"line {number:03}" for number in range(200)]
FILES = {
    "a.txt": "Apples.",
    "whole.txt": "x" * WHOLE,
    "lines.txt": "\n".join(LINES),
    "one.txt": "y" * (WHOLE + 1),
    "part.txt": "\n".join(["[Lines 1 to 179 of 5000.]", *LINES]),
}
PAGE, LONG_PAGE = "http://h.example/p.html", "http://h.example/long.html"
PAGES = {PAGE: "A page.", LONG_PAGE: "z" * (LONGEST + 1)}


def asked(request: str, *, guided: bool = True) -> Driver:
    """A process that was asked something, over files and a page."""

    def results(name: str, arguments: str) -> str:
        given = json.loads(arguments)
        return PAGES[given["url"]] if "url" in given else FILES.get(given["path"], "Error: none.")

    model = frozenset({"scripted"}) if guided else frozenset[str]()
    driver = Driver(Agent(guided=model), TOOLS, lambda messages, asked: Reply("Done."))
    driver.results = results
    driver.deliver(request)
    driver.run()
    return driver


def test_what_is_named_is_looked_at_once_and_shown() -> None:
    request = f"Is a.txt, as {PAGE}? says, in new.txt or on {LONG_PAGE}?"
    driver = asked(request)
    calls = [action for action in driver.actions if isinstance(action, Call)]
    assert [[one.tool for one in call.requests] for call in calls] == [
        ["fetch_page", "fetch_page", "read_file", "read_file"]
    ]
    # What is not there, or too long, is not shown.
    shown = f"{PAGE}:\nA page.\n\na.txt:\nApples."
    assert driver.notices() == [
        f"{Notice.SEEN} what is here now]\n{shown}\n\n[The message again:]\n{request}"
    ]


def test_of_a_long_file_the_beginning_is_shown_and_how_much_there_is() -> None:
    (notice,) = asked("How many lines has lines.txt?").notices()
    shown, whole = "\n".join(LINES[: HEAD // 9]), len(FILES["lines.txt"])
    said = f"[… these are {len(shown)} of {whole:,} characters in 200 lines]"
    assert f"\nlines.txt:\n{shown}\n{said}\n" in notice
    (notice,) = asked("What is in one.txt?").notices()
    assert (
        f"\none.txt:\n{'y' * HEAD}\n[… these are {HEAD} of 1,001 characters in 1 lines]\n" in notice
    )
    # What is a part already says how much there is.
    (notice,) = asked("How many lines has part.txt?").notices()
    assert notice.split("\npart.txt:\n")[1].startswith("[Lines 1 to 179 of 5000.]\nline 000\n")
    assert "characters" not in notice and "\n[…]\n" in notice
    (notice,) = asked("What is in whole.txt?").notices()
    assert f"\nwhole.txt:\n{FILES['whole.txt']}\n" in notice and "[…" not in notice


@pytest.mark.parametrize("request_", ["How are you?", "Write it to new.txt.", f"See {LONG_PAGE}."])
def test_nothing_is_said_where_there_is_nothing_to_show(request_: str) -> None:
    assert asked(request_).notices() == []


def test_other_models_look_for_themselves() -> None:
    assert asked("What does a.txt say?", guided=False).calls == []


@pytest.mark.parametrize(
    ("request_", "may_answer"),
    [
        ("What does a.txt say?", True),
        ("Delete a.txt.", False),  # whoever has seen it has not done it
        ("Is a.txt the same as new.txt?", False),
    ],
)
def test_an_answer_may_follow_at_once_to_a_question_about_what_is_shown(
    request_: str, may_answer: bool
) -> None:
    driver = asked(request_)
    first = next(action for action in driver.actions if isinstance(action, Generate))
    assert (ANSWER_NAME in first.tools) is may_answer


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ("See https://h.example/a?b=1, then a/b.csv.", ("https://h.example/a?b=1", "a/b.csv")),
        ("Is it in notes.txt? Or in 'Notes.md'!", ("notes.txt", "Notes.md")),
        ("Write to ann@h.example.md about 3.5 of e.g. a.b", ()),
    ],
)
def test_names_of_files_and_addresses_are_found(request_: str, names: tuple[str, ...]) -> None:
    assert named(request_) == names


def test_a_file_is_dealt_with_wherever_it_is_said_to_lie() -> None:
    assert not_dealt_with(["A.txt", "b.txt"], ['{"path": "notes/a.txt"}']) == ("b.txt",)
    assert list(looks(["a.txt", PAGE], {"read_file"})) == ["a.txt"]
