"""Summaries of what left a context."""

from __future__ import annotations

import asyncio

from oneiros.memory.summaries import summarize
from oneiros.model.chat_format import Message


class Writer:
    """A model that answers with what it is told to."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.prompts: list[str] = []

    async def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.answers.pop(0)


def said(*texts: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def test_a_summary_is_of_the_messages_and_of_the_notes_before_them() -> None:
    writer = Writer(" Ada sails\n on Friday. ")
    found = asyncio.run(summarize(writer, said("I sail on Friday.", "Good!"), "She is Ada."))
    assert found == "Ada sails on Friday."
    (prompt,) = writer.prompts
    for part in ("Notes: She is Ada.", "user: I sail on Friday.\nassistant: Good!"):
        assert part in prompt


def test_much_is_read_piece_by_piece_and_nothing_is_left_out() -> None:
    texts = [f"Fact {number}. " + "word " * 500 for number in range(8)]
    texts.append("end " * 3_000)
    writer = Writer(*(f"notes {number}" for number in range(20)))
    found = asyncio.run(summarize(writer, said(*texts)))
    assert found == f"notes {len(writer.prompts) - 1}"
    for number, prompt in enumerate(writer.prompts):
        assert len(prompt) < 8_000
        assert number == 0 or f"Notes: notes {number - 1}\n" in prompt
    read = "".join(writer.prompts)
    assert all(f"Fact {number}." in read for number in range(8))
    assert read.count("end") == 3_000


def test_small_contexts_read_less_at_once() -> None:
    writer = Writer(*(f"notes {number}" for number in range(20)))
    asyncio.run(summarize(writer, said(*["水" * 300] * 4), piece=600))
    assert len(writer.prompts) == 4 * 3
    assert sum(prompt.count("水") for prompt in writer.prompts) == 1_200


def test_a_model_that_says_nothing_does_not_cost_what_was_known() -> None:
    assert asyncio.run(summarize(Writer(" "), said("Hi"), "She is Ada.")) == "She is Ada."
    assert asyncio.run(summarize(Writer(), said(" "), None)) is None
    long = asyncio.run(summarize(Writer("x" * 9_000), said("Hi")))
    assert long is not None
    assert len(long) == 1_000
