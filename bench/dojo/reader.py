"""A scripted model that reads what is behind handles: it answers whether a text holds a word.

It answers from the text alone, whatever the text says, so that what an inspection is worth is
measured without a model's mistakes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NoReturn

from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.replies import Completed, Event, TextDelta
from oneiros.engine.requests import Usage
from oneiros.errors import ModelNotFoundError
from oneiros.model.chat_format import GeneratedReply, Message

_QUOTED = re.compile(r"'([^']+)'")


def question(word: str) -> str:
    """What is asked about a text: whether it speaks of something."""
    return f"Does it speak of '{word}'?"


class Reader:
    """The only model there is. It answers inspections, and nothing else."""

    default = "reader"

    def check(self, name: str) -> None:
        if name != self.default:
            raise ModelNotFoundError(name)

    def context(self, name: str) -> int:
        return 1_000_000

    def expressible(self, name: str, text: str) -> str:
        return text

    def count(self, name: str, text: str) -> int:
        return len(text) // 4

    def origin(self, name: str) -> str | None:
        return None

    def cost(self, name: str, usage: Usage) -> float:
        return 0.0

    def affordable(self, name: str, money: float, prompt_tokens: int) -> int | None:
        return None

    def conversation(
        self,
        name: str,
        messages: Sequence[Message],
        replies: Mapping[int, GeneratedReply],
        *,
        owner: str,
        priority: int,
    ) -> Conversation:
        return _Reading(messages)


class _Reading(Conversation):
    """One text, and one question about it."""

    async def _events(self, options: ConversationOptions) -> AsyncGenerator[Event, None]:
        *_, text, asked = (message["content"] for message in self.messages)
        wanted = _QUOTED.findall(asked)
        holds = bool(wanted) and all(word.casefold() in text.casefold() for word in wanted)
        said = "true" if holds else "false"
        yield TextDelta(said)
        message: Message = {"role": "assistant", "content": said}
        yield Completed("stop", message, Usage(self.prompt_tokens(), 0, 1))

    def prompt_tokens(
        self, tools: tuple[Mapping[str, object], ...] = (), message: Message | None = None
    ) -> int:
        said = [*self.messages, *([message] if message else [])]
        return sum(len(one["content"]) // 4 + 4 for one in said)

    def save(self) -> NoReturn:
        raise NotImplementedError("inspections are not kept")
