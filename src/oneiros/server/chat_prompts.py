"""From a chat request to what the engine gets: token ids, a constraint, a parser of the reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import ConstraintSpec
from oneiros.model.chat_format import ChatFormat, Message
from oneiros.model.tool_call_parser import CLOSING, OPENING, ToolCallParser
from oneiros.model.tool_calls import ToolCallFormat, tool_call_format
from oneiros.server.errors import ApiError

JsonObject = dict[str, Any]

_LONG_TEXT = 20_000
"""Characters from which tokenising takes milliseconds, in which other streams would stand still."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, ready for the engine."""

    ids: tuple[int, ...]
    constraint: ConstraintSpec | None
    calls: ToolCallFormat
    tools: list[JsonObject]  # that the model may call

    def parser(self) -> ToolCallParser | None:
        """A parser of one reply; None where all of it is text."""
        if self.tools:
            return self.calls.parser(self.tools, constrained=True)
        if self.constraint is None and self.calls.reasoning != "none":
            return self.calls.parser(())
        return None


@dataclass(frozen=True, slots=True)
class Question:
    """What a chat request asks, whatever its endpoint calls the fields."""

    messages: list[Message]
    tools: list[JsonObject]  # that the model may call now
    choice: str = "auto"  # or "required", or the name of the one tool to call
    parallel: bool = True  # whether a reply may hold several calls
    constraint: ConstraintSpec | None = None


async def chat_prompt(model: LocalModel, question: Question) -> ChatPrompt:
    """Render the messages and the tools of a request.

    Raises:
        ApiError: 400; the model has no chat format, or fields do not go together.
        ChatFormatError, TokenizationError, ConstraintError: the messages or tools do not do.
    """
    chat_format, tools = model.chat_format, question.tools
    if chat_format is None:
        message = f"{model.name} has no chat format: use /v1/completions."
        raise ApiError(400, message, param="model", code="wrong_kind_of_model")
    calls = tool_call_format(chat_format.template)
    constraint = question.constraint
    if tools and constraint is not None:
        message = (
            "A format of the reply and tools cannot be asked for together here: "
            "leave one out, or set tool_choice to none."
        )
        raise ApiError(400, message, param="tools", code="unsupported_combination")
    if tools:
        grammar = calls.grammar(tools, question.choice, question.parallel)
        constraint = ConstraintSpec("lark", grammar)
    if sum(len(message["content"]) for message in question.messages) < _LONG_TEXT:
        ids = _render(chat_format, calls, question.messages, tools)
    else:
        ids = await asyncio.to_thread(_render, chat_format, calls, question.messages, tools)
    return ChatPrompt(tuple(ids), constraint, calls, tools)


def _render(
    chat_format: ChatFormat,
    calls: ToolCallFormat,
    messages: list[Message],
    tools: list[JsonObject],
) -> list[int]:
    if calls.described:
        messages = [_spelled_out(message) for message in messages]
    described = calls.describe(tools) if tools else None
    if described is None:
        return chat_format.render(messages, tools=tools or None)
    first, rest = messages[:1], messages
    system = ""
    if first[0]["role"] == "system":
        system, rest = first[0]["content"] + "\n\n", messages[1:]
    return chat_format.render([{"role": "system", "content": system + described}, *rest])


def _spelled_out(message: Message) -> Message:
    """A message with its calls as text, for templates that leave them out."""
    called = message.get("tool_calls")
    if not called:
        return message
    pieces = [message["content"]] if message["content"] else []
    for call in called:
        function = call["function"]
        assert isinstance(function, Mapping)
        name = json.dumps(function["name"])
        text = f'{{"name": {name}, "arguments": {function["arguments"]}}}'
        pieces.append(f"{OPENING['hermes']}\n{text}\n{CLOSING}")
    return {"role": message["role"], "content": "\n".join(pieces)}
