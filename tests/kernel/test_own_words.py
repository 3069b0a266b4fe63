"""What says nothing but the user's words: in no form that could say more, and not all the time."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from pathlib import Path

import pytest

from oneiros.kernel.contract import Contract
from oneiros.kernel.flows import MOST_LOOK_UPS
from oneiros.kernel.policy import decide, decide_all
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.verdict import Allow, Ask
from tests.kernel.running import Calls, ScriptedModels, idle, running, tool, until
from tests.kernel.test_policy import INBOX, MAIL, call, context, reading

SEARCH = Contract(sinks=("web:engine.example",), origins=("web:engine.example",))
SAID = "Find 2 hotels in Kyoto for 99.5, read my inbox and email bob@x.org."
READ = [reading("inbox", INBOX, [{"text": "code 463820"}])]


async def _search(arguments, context):
    return "Nothing."


async def _inbox(arguments, context):
    return "The code is 463820."


_OPEN = {"type": "object", "properties": {"query": {"type": "string"}}}
TOOLS = (tool("inbox", _inbox, INBOX), tool("search", _search, SEARCH, parameters=_OPEN))


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ({"query": "hotels in Kyoto"}, True),
        ({"query": ["hotels", "Kyoto"], "where": None}, True),
        ({"query": ["hotels", 2, 99.5]}, True),
        ({"query": ("hotels", "hotels")}, False),
        ({"query": ["hotels", None]}, False),
        ({"query": ["hotels", ""]}, False),
        ({"query": ["hotels", "Kyoto", "hotels"]}, False),
        ({"query": ["hotels", "", ""]}, False),
        ({"query": "hotels", "more": [[], [[]], []]}, False),
        ({"query": "hotels", "more": [None, None]}, False),
        ({"query": "hotels", "more": {}}, False),
        ({"query": "hotels", "more": {"code463820": ""}}, False),
    ],
)
def test_the_form_of_arguments_says_nothing(arguments: dict[str, object], allowed: bool) -> None:
    asked = decide(call("search", SEARCH, **arguments), context(SAID, readings=READ))
    assert isinstance(asked, Allow) == allowed


def test_which_words_and_how_often_says_little() -> None:
    made = [call("search", SEARCH, query="hotels")] * (MOST_LOOK_UPS - 1)
    again = call("search", SEARCH, query="Kyoto")
    first, second = decide_all([again, again], context(SAID, readings=READ, lately=made))
    assert isinstance(first, Allow) and isinstance(second, Ask)
    assert "8 times" in second.question
    earlier = context(SAID, readings=READ, made=made * 3)  # for other messages of the user's
    assert isinstance(decide(again, earlier), Allow)
    nothing_private = context(SAID, lately=made * 3)
    assert isinstance(decide(again, nothing_private), Allow)


def test_only_what_looks_up_is_counted() -> None:
    search, inbox = call("search", SEARCH, query="hotels"), call("inbox", INBOX)
    mail = call("mail", MAIL, to="bob@x.org", text="hotels")
    often = [search] * MOST_LOOK_UPS
    assert isinstance(decide(mail, context(SAID, readings=READ, lately=often)), Allow)
    mails = context(SAID, readings=READ, lately=[mail] * MOST_LOOK_UPS)
    assert isinstance(decide(search, mails), Allow)
    *_, last = decide_all([*[inbox] * MOST_LOOK_UPS, search], context(SAID, readings=READ))
    assert isinstance(last, Allow)


def test_names_that_a_tool_does_not_take_are_the_processes_words(tmp_path: Path) -> None:
    calls = [("inbox", {}), ("search", {"query": ""}), ("search", {"query": "", "x463820": ""})]

    async def main() -> None:
        requests = [(name, json.dumps(arguments)) for name, arguments in calls]
        programs = {"calls": Calls(requests)}
        async with running(tmp_path, *TOOLS, programs=programs) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", program="calls", text=SAID))
            await until(kernel, lambda: bool(kernel.questions(pid)))
            (question,) = kernel.questions(pid)
            assert "x463820" in question.text
            assert [call.tool for call in kernel.state(pid).readings] == ["inbox", "search"]

    asyncio.run(main())


def test_looking_up_is_counted_anew_with_each_message_of_the_user(tmp_path: Path) -> None:
    search = ("search", json.dumps({"query": "hotels"}))
    often = [search] * MOST_LOOK_UPS
    models = ScriptedModels(
        deque([[("inbox", "{}")], often, "Nothing.", often, "Again nothing.", often, [search]])
    )

    async def main() -> None:
        async with running(tmp_path, *TOOLS, models=models) as kernel:
            pid = await kernel.start(ProcessSpec(owner="me", text=SAID))
            await until(kernel, lambda: idle(kernel, pid))
            for _ in range(2):
                await kernel.send(pid, "Look once more.")
                await until(kernel, lambda: idle(kernel, pid) or bool(kernel.questions(pid)))
            # The last message's own eight were allowed, and one more is asked about.
            (question,) = kernel.questions(pid)
            assert f"{MOST_LOOK_UPS} times" in question.text
            assert len(kernel.state(pid).made) == 3 * MOST_LOOK_UPS + 1

    asyncio.run(main())
