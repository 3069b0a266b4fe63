"""Asking a person."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.kernel.contract import Contract
from oneiros.kernel.tools import CallContext, Tool, ToolError, Wake

LONGEST_QUESTION = 4_000  # characters that a person is asked to read


def human() -> Tool:
    """The tool. The call waits for the answer, across restarts too, and holds nothing meanwhile."""
    return ask_person


@device(
    contract=Contract(idempotent=True, private=True, origins=("user",), requested_by=("ask me",))
)
async def ask_person(
    context: CallContext,
    question: Annotated[str, Field(description="All that is needed to answer it.")],
    choices: Annotated[tuple[str, ...], Field(description="Answers to choose from.")] = (),
) -> Wake:
    """Ask the person a question that only they can answer, and wait for the answer."""
    if not question.strip():
        raise ToolError("ask_person: the question is empty.")
    lines = [question.strip(), *(f"{n}. {choice}" for n, choice in enumerate(choices, 1))]
    text = "\n".join(lines)
    if len(text) > LONGEST_QUESTION:
        raise ToolError(
            f"ask_person: the question has {len(text):,} characters; nobody reads more than "
            f"{LONGEST_QUESTION:,}. Shorten it."
        )
    return Wake(question=text)
