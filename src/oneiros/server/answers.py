"""The shapes of answers: for the OpenAPI document, and to build them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import Response

from oneiros.engine.replies import Completed
from oneiros.errors import EngineFailedError

FinishReason = Literal["stop", "length", "tool_calls"]


class PromptDetails(BaseModel):
    cached_tokens: int


class CompletionDetails(BaseModel):
    reasoning_tokens: int


class UsageAnswer(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails | None = None


class FunctionAnswer(BaseModel):
    name: str
    arguments: str


class ToolCallAnswer(BaseModel):
    id: str
    type: Literal["function"]
    function: FunctionAnswer


class MessageAnswer(BaseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallAnswer] | None = None


class TopLogprobAnswer(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobAnswer(TopLogprobAnswer):
    top_logprobs: list[TopLogprobAnswer]


class ChatLogprobsAnswer(BaseModel):
    content: list[TokenLogprobAnswer]
    refusal: None


class ChatChoiceAnswer(BaseModel):
    index: int
    message: MessageAnswer
    logprobs: ChatLogprobsAnswer | None
    finish_reason: FinishReason


class ChatCompletionAnswer(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoiceAnswer]
    usage: UsageAnswer


class CompletionLogprobsAnswer(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoiceAnswer(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobsAnswer | None
    finish_reason: FinishReason


class CompletionAnswer(BaseModel):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoiceAnswer]
    usage: UsageAnswer


def streaming_or(answer: type[BaseModel], chunks: str) -> dict[int | str, dict[str, Any]]:
    """How OpenAPI is told of an answer that can also be a stream of events."""
    event = {
        "type": "object",
        "properties": {"data": {"type": "string", "description": chunks}},
        "required": ["data"],
    }
    return {
        200: {
            "model": answer,
            "description": "The answer; a stream of events where `stream` is true.",
            "content": {"text/event-stream": {"itemSchema": event}},
        }
    }


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(16)}"


def json_response(content: object) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), media_type="application/json")


def finish_reason(completed: Completed) -> FinishReason:
    """Raises EngineFailedError for a reply that nobody ended but the engine."""
    if completed.reason == "cancelled":
        raise EngineFailedError("The reply was cancelled: the engine is being stopped. Try again.")
    return completed.reason


def usage_of(replies: Sequence[Completed], prompts: int = 1) -> dict[str, object]:
    """The usage of replies that share prompts: each prompt counts once.

    `replies` are in the order of the prompts, equally many for each.
    """
    each = len(replies) // prompts
    first = [reply.usage for reply in replies[::each]]
    prompt = sum(usage.prompt_tokens for usage in first)
    completion = sum(reply.usage.generated_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in first)},
    }
