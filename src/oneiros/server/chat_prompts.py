"""From a chat request to what the engine gets: token ids, a constraint, a parser of the reply."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import ConstraintSpec
from oneiros.model.chat_format import Message
from oneiros.model.json_schema import enforceable_schema
from oneiros.model.tool_call_parser import END_THINK, ToolCallParser
from oneiros.model.tool_calls import ToolCallFormat, tool_call_format
from oneiros.model.tool_prompts import with_tools
from oneiros.server.errors import ApiError

JsonObject = dict[str, Any]

LONG_BODY = 20_000
"""Bytes of a request from which templates, tokenisers and grammars take milliseconds, in which
other streams would stand still: they run in a thread."""


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, ready for the engine."""

    ids: tuple[int, ...]
    constraint: ConstraintSpec | None
    calls: ToolCallFormat
    tools: list[JsonObject]  # that the model may call

    def parser(self) -> ToolCallParser | None:
        """A parser of one reply; None where all of it is text."""
        if not self.tools and self.calls.reasoning == "none":
            return None
        return self.calls.parser(self.tools, constrained=bool(self.tools))


@dataclass(frozen=True, slots=True)
class Question:
    """What a chat request asks, whatever its endpoint calls the fields."""

    messages: list[Message]
    tools: list[JsonObject]  # that the model may call now
    choice: str = "auto"  # or "required", or the name of the one tool to call
    parallel: bool = True  # whether a reply may hold several calls
    schema: JsonObject | None = None  # JSON schema that the reply matches


async def chat_prompt(model: LocalModel, question: Question, size: int) -> ChatPrompt:
    """Render the messages and the tools of a request, whose body has `size` bytes.

    Raises:
        ApiError: 400; the model has no chat format, or fields do not go together.
        ChatFormatError, TokenizationError, ConstraintError: the messages or tools do not do.
    """
    if size < LONG_BODY:
        return _chat_prompt(model, question)
    return await asyncio.to_thread(_chat_prompt, model, question)


def _chat_prompt(model: LocalModel, question: Question) -> ChatPrompt:
    chat_format, tools = model.chat_format, question.tools
    if chat_format is None:
        message = f"{model.name} has no chat format: use /v1/completions."
        raise ApiError(400, message, param="model", code="wrong_kind_of_model")
    calls = tool_call_format(chat_format.template)
    if tools and question.schema is not None:
        message = (
            "A format of the reply and tools cannot be asked for together here: "
            "leave one out, or set tool_choice to none."
        )
        raise ApiError(400, message, param="tools", code="unsupported_combination")
    constraint = None
    if tools:
        grammar = calls.grammar(tools, question.choice, question.parallel)
        constraint = ConstraintSpec("lark", grammar)
    elif question.schema is not None:
        constraint = _schema_constraint(question.schema, calls)
    told, printed = with_tools(calls, question.messages, tools)
    ids = chat_format.render(told, tools=printed)
    return ChatPrompt(tuple(ids), constraint, calls, tools)


def _schema_constraint(schema: JsonObject, calls: ToolCallFormat) -> ConstraintSpec:
    if calls.reasoning != "open":
        return ConstraintSpec("json_schema", json.dumps(schema))
    # The prompt ends within the model's thoughts: the answer comes after them.
    answer = json.dumps(enforceable_schema(schema))
    return ConstraintSpec(
        "lark",
        "start: thought /\\s*/ answer\n"
        f"answer: %json {answer}\n"
        f'thought[lazy]: /(?s:.*)/ "{END_THINK}"\n',
    )
