"""POST /v1/responses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import ReplyStream
from oneiros.engine.requests import GenerationRequest
from oneiros.server.answers import finish_reason, json_response, streaming_or
from oneiros.server.bodies import StrictRoute
from oneiros.server.chat_prompts import ChatPrompt, chat_prompt
from oneiros.server.generating import Caller, Reply
from oneiros.server.responses_output import ResponseOutput
from oneiros.server.responses_requests import ResponsesRequest
from oneiros.server.serving import Serving, caller_of, priority_of, serving_of
from oneiros.server.sse import EventStream, named_event, unless_disconnected

router = APIRouter(route_class=StrictRoute)


class IncompleteAnswer(BaseModel):
    reason: Literal["max_output_tokens"]


class InputDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ItemAnswer(BaseModel):
    """A message, a piece of reasoning, or a call."""

    type: Literal["message", "reasoning", "function_call"]
    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"] | None = None
    content: list[dict[str, Any]] | None = None
    summary: list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class ResponseAnswer(BaseModel):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: IncompleteAnswer | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[ItemAnswer]
    parallel_tool_calls: bool
    previous_response_id: None
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    metadata: dict[str, str]
    usage: ResponseUsage


@router.post(
    "/v1/responses",
    summary="Answer a conversation, as items",
    response_model=None,
    responses=streaming_or(ResponseAnswer, "An event of the Responses API."),
)
async def create_response(request: Request, body: ResponsesRequest) -> Response:
    caller, serving = caller_of(request), serving_of(request)
    # All is given back when this block is left, unless a stream takes it over.
    async with AsyncExitStack() as held:
        lease = await unless_disconnected(
            request.receive, serving.models.lease(body.model, "language")
        )
        held.callback(lease.release)
        model = lease.language_model
        prompt = await chat_prompt(model, body.question(), len(await request.body()))
        reply = _reply(serving, model, body, prompt, caller)
        held.push_async_callback(reply.close)
        output = ResponseOutput(body, model.name, model.tokenizer)
        if not body.stream:
            await unless_disconnected(request.receive, _consume(reply, output))
            return json_response(output.response)
        await unless_disconnected(request.receive, reply.start())
        return EventStream([_events(reply, output)], lambda: b"", held.pop_all().aclose)


def _reply(
    serving: Serving,
    model: LocalModel,
    body: ResponsesRequest,
    prompt: ChatPrompt,
    caller: Caller,
) -> Reply:
    request = GenerationRequest(
        prompt=prompt.ids,
        sampling=body.sampling(),
        end_ids=model.end_ids,
        principal=caller.principal.id,
        priority=priority_of(caller, body.priority),
        public_prefix=serving.public_prompts(model).length_in(prompt.ids),
        constraint=prompt.constraint,
        top_logprobs=(body.top_logprobs or 0) if body.with_logprobs else None,
    )
    stream = ReplyStream(model.tokenizer, parser=prompt.parser())
    return Reply(model, request, stream, caller)


async def _consume(reply: Reply, output: ResponseOutput) -> None:
    async for events in reply.events():
        for event in events:
            for _ in output.push(event, reply.reasoning_tokens):
                pass
    assert reply.completed is not None
    finish_reason(reply.completed)


async def _events(reply: Reply, output: ResponseOutput) -> AsyncIterator[bytes]:
    yield b"".join([named_event(data["type"], data) for data in output.begin()])
    async for events in reply.events():
        if reply.completed is not None:
            finish_reason(reply.completed)
        frames = [
            named_event(data["type"], data)
            for event in events
            for data in output.push(event, reply.reasoning_tokens)
        ]
        if frames:
            yield b"".join(frames)
