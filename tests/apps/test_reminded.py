"""A question that has brought back what was said before is answered by a small model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from oneiros.apps.agent import Agent
from oneiros.kernel import events as e
from oneiros.kernel.program import Generate
from oneiros.kernel.tools import Tool
from oneiros.memory.pages import PageKind
from oneiros.model.answer_calls import ANSWER_NAME
from tests.apps.driver import Driver, Reply, tool

RECALL = tool("recall", "Find and quote earlier messages of this conversation.")
OTHERS = (
    tool("python", "Run Python code."),
    tool("read_file", "Read a file."),
    tool("calculate", "Compute an exact number."),
    tool("send_mail", "Send a mail to somebody."),
)


def first_reply(
    request: str, *, reminded: bool = True, tools: Sequence[Tool] = (RECALL,)
) -> Generate:
    """What the model may do first, after a message that has brought something back."""
    driver = Driver(
        Agent(guided=frozenset({"scripted"})), tools, lambda messages, asked: Reply("Okonkwo.")
    )
    driver.deliver(request)
    driver.step()
    if reminded:
        message = {"role": "user", "content": "[This was said earlier:]\nMy dentist is Okonkwo."}
        driver.append(e.Noticed(page=driver.page(PageKind.RECALLED, message)))
    driver.run()
    return next(action for action in driver.actions if isinstance(action, Generate))


@pytest.mark.parametrize("tools", [(RECALL,), (RECALL, *OTHERS)])
def test_a_question_with_a_reminder_is_answered(tools: Sequence[Tool]) -> None:
    first = first_reply("Who is the dentist that we go to?", tools=tools)
    assert first.tool_choice == ANSWER_NAME and ANSWER_NAME in first.tools


@pytest.mark.parametrize(
    ("request_", "reminded"),
    [
        ("Who is the dentist that we go to?", False),  # nothing came back
        ("Who is my dentist?", True),  # that may be in a file, too
        ("Tell my dentist that I am late.", True),  # something is to be done
        ("Can you use Recall to find out who my dentist is?", True),  # the user names the tool
        ("What is 12 plus 30 together?", True),  # another tool offers itself
        ("How many lines of visits.log contain the word mobile?", True),
        ("What is the median of our measurements?", True),
        ("Can you sort these numbers?", True),
        ("Who is my dentist? Write to them that I am late.", True),
    ],
)
def test_other_messages_leave_the_choice(request_: str, reminded: bool) -> None:
    first = first_reply(request_, reminded=reminded, tools=(RECALL, *OTHERS))
    assert first.tool_choice == "required"
