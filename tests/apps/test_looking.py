"""What a message names is looked at before a small model speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from oneiros.apps.agent import Agent
from oneiros.apps.looking import HEAD, LONGEST, WHOLE, looks
from oneiros.apps.named import named, not_dealt_with
from oneiros.apps.prompts import Notice
from oneiros.kernel.program import Call, Generate
from oneiros.kernel.tools import Tool
from oneiros.model.answer_calls import ANSWER_NAME
from oneiros.model.chat_format import Message
from tests.apps.driver import Driver, Reply, tool

TOOLS = (tool("read_file"), tool("fetch_page"), tool("write_file"))
COMPUTING = (*TOOLS, tool("python"))
LINES = [f"line {number:03}" for number in range(200)]
FILES = {
    "a.txt": "Apples.",
    "whole.txt": "x" * WHOLE,
    "lines.txt": "\n".join(LINES),
    "doc.pdf": "A document.",
    "one.txt": "y" * (WHOLE + 1),
    "part.txt": "\n".join(["[Lines 1 to 179 of 5000.]", *LINES]),
}
PAGE, LONG_PAGE = "http://h.example/p.html", "http://h.example/long.html"
PAGES = {PAGE: "A page.", LONG_PAGE: "z" * (LONGEST + 1)}


def asked(
    request: str,
    *,
    guided: bool = True,
    tools: Sequence[Tool] = TOOLS,
    model: Callable[[Sequence[Message], Generate], Reply] = lambda messages, asked: Reply("Done."),
) -> Driver:
    """A process that was asked something, over files and pages."""

    def results(name: str, arguments: str) -> str:
        given = json.loads(arguments)
        if name == "python":
            return "200"
        return PAGES[given["url"]] if "url" in given else FILES.get(given["path"], "Error: none.")

    models = frozenset({"scripted"}) if guided else frozenset[str]()
    driver = Driver(Agent(guided=models), tools, model)
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


def test_who_may_compute_sees_the_beginning_of_a_long_file_and_how_much_there_is() -> None:
    (notice,) = asked("How many lines has lines.txt?", tools=COMPUTING).notices()
    shown, whole = "\n".join(LINES[: HEAD // 9]), len(FILES["lines.txt"])
    opened = "in Python: open('lines.txt').read()"
    said = f"[… these are {len(shown)} of {whole:,} characters in 200 lines]"
    assert f"\nlines.txt (its beginning; {opened}):\n{shown}\n{said}\n" in notice
    (notice,) = asked("Count what is in one.txt.", tools=COMPUTING).notices()
    assert f"\n{'y' * HEAD}\n[… these are {HEAD} of 1,001 characters in 1 lines]\n" in notice
    # What is a part already says how much there is.
    (notice,) = asked("How many lines has part.txt?", tools=COMPUTING).notices()
    assert "\n[Lines 1 to 179 of 5000.]\nline 000\n" in notice
    assert "characters" not in notice and "\n[…]\n" in notice
    (notice,) = asked("What is in whole.txt?", tools=COMPUTING).notices()
    assert f"\nwhole.txt (in Python: open('whole.txt').read()):\n{FILES['whole.txt']}\n" in notice
    # Python opens no such file.
    (notice,) = asked("What is in doc.pdf?", tools=COMPUTING).notices()
    assert "\ndoc.pdf:\nA document.\n" in notice


def test_who_cannot_compute_sees_all_of_it() -> None:
    (notice,) = asked("How many lines has lines.txt?").notices()
    assert f"\nlines.txt:\n{FILES['lines.txt']}\n" in notice


@pytest.mark.parametrize(("name", "may_answer"), [("lines.txt", False), ("whole.txt", True)])
def test_nobody_answers_from_the_beginning_of_a_file(name: str, may_answer: bool) -> None:
    driver = asked(f"What does {name} say?", tools=COMPUTING)
    first = next(action for action in driver.actions if isinstance(action, Generate))
    assert (ANSWER_NAME in first.tools) is may_answer


def test_a_file_of_which_the_beginning_was_seen_is_dealt_with_by_a_call() -> None:
    def model(messages: Sequence[Message], asked: Generate) -> Reply:
        if "tool" in messages[-1]["role"]:
            return Reply("200 lines.")
        return Reply(calls=(("python", json.dumps({"x": "open('lines.txt').read()"})),))

    driver = asked("How many lines has lines.txt?", tools=COMPUTING, model=model)
    second = [action for action in driver.actions if isinstance(action, Generate)][1]
    assert ANSWER_NAME in second.tools
    assert driver.answer == "200 lines."


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
