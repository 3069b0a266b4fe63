"""POST /v1/chat/completions."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import (
    Completed,
    Event,
    ReasoningDelta,
    ReplyStream,
    TextDelta,
    ToolCallDelta,
)
from oneiros.engine.requests import GenerationRequest, TokenLogprob
from oneiros.model.tokenizer import Tokenizer
from oneiros.server.answers import (
    ChatCompletionAnswer,
    finish_reason,
    json_response,
    new_id,
    streaming_or,
    usage_of,
)
from oneiros.server.bodies import StrictRoute
from oneiros.server.chat_prompts import ChatPrompt, chat_prompt
from oneiros.server.chat_requests import ChatRequest
from oneiros.server.generating import Caller, Reply
from oneiros.server.logprobs import chat_logprobs
from oneiros.server.serving import Serving, caller_of, priority_of, serving_of
from oneiros.server.sse import DONE, EventStream, gather, json_text, unless_disconnected

router = APIRouter(route_class=StrictRoute)


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    response_model=None,
    responses=streaming_or(
        ChatCompletionAnswer, "A chat.completion.chunk; the last one is [DONE]."
    ),
)
async def create_chat_completion(request: Request, body: ChatRequest) -> Response:
    body.check()
    caller, serving = caller_of(request), serving_of(request)
    # All is given back when this block is left, unless a stream takes it over.
    async with AsyncExitStack() as held:
        lease = await unless_disconnected(
            request.receive, serving.models.lease(body.model, "language")
        )
        held.callback(lease.release)
        model = lease.language_model
        prompt = await chat_prompt(model, body.question(), len(await request.body()))
        replies = _replies(serving, model, body, prompt, caller)
        for reply in replies:
            held.push_async_callback(reply.close)
        if not body.stream:
            work = _answer(replies, model, body)
            return json_response(await unless_disconnected(request.receive, work))
        await unless_disconnected(request.receive, gather([reply.start() for reply in replies]))
        chunks = ChatChunks(model.name, model.tokenizer, body)
        sources = [chunks.of(reply, index) for index, reply in enumerate(replies)]
        return EventStream(sources, lambda: chunks.ending(replies), held.pop_all().aclose)


def _replies(
    serving: Serving, model: LocalModel, body: ChatRequest, prompt: ChatPrompt, caller: Caller
) -> list[Reply]:
    """One reply for each choice; nothing is generated yet."""
    request = GenerationRequest(
        prompt=prompt.ids,
        sampling=body.sampling(model.tokenizer.vocabulary_size, body.token_limit),
        end_ids=model.end_ids,
        principal=caller.principal.id,
        priority=priority_of(caller, body.priority),
        public_prefix=serving.public_prompts(model).length_in(prompt.ids),
        constraint=prompt.constraint,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return [
        Reply(
            model,
            request,
            ReplyStream(model.tokenizer, stop=body.stop_texts, parser=prompt.parser()),
            caller,
            choice=index,
        )
        for index in range(body.choices)
    ]


async def _answer(
    replies: Sequence[Reply], model: LocalModel, body: ChatRequest
) -> dict[str, object]:
    choices = await gather(
        [_choice(reply, index, model, body) for index, reply in enumerate(replies)]
    )
    return {
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model.name,
        "choices": choices,
        "usage": _usage(replies),
    }


def _usage(replies: Sequence[Reply]) -> dict[str, object]:
    usage = usage_of([reply.completed for reply in replies if reply.completed])
    thoughts = sum(reply.reasoning_tokens for reply in replies)
    return usage | {"completion_tokens_details": {"reasoning_tokens": thoughts}}


async def _choice(
    reply: Reply, index: int, model: LocalModel, body: ChatRequest
) -> dict[str, object]:
    logprobs: list[TokenLogprob] = []
    async for events in reply.events():
        for each in events:
            if isinstance(each, TextDelta):
                logprobs += each.logprobs
    completed = reply.completed
    assert completed is not None
    said = completed.message
    calls = said.get("tool_calls")
    message: dict[str, object] = {
        "role": "assistant",
        "content": said["content"] if said["content"] or not calls else None,
        "refusal": None,
    }
    if "reasoning_content" in said:
        message["reasoning_content"] = said["reasoning_content"]
    if calls:
        message["tool_calls"] = calls
    return {
        "index": index,
        "message": message,
        "logprobs": chat_logprobs(logprobs, model.tokenizer) if body.logprobs else None,
        "finish_reason": finish_reason(completed),
    }


class ChatChunks:
    """Replies as chunks of a stream.

    A chunk is put together from prepared bytes: at hundreds of tokens per second this work is
    taken from the engine, which shares the processor.
    """

    def __init__(self, model_name: str, tokenizer: Tokenizer, body: ChatRequest) -> None:
        self._tokenizer = tokenizer
        self._logprobs = bool(body.logprobs)
        self._with_usage = body.with_usage
        head = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model_name,
        }
        self._head = "data: " + json.dumps(head, separators=(",", ":"))[:-1] + ',"choices":['
        self._tail = '}],"usage":null}\n\n' if body.with_usage else "}]}\n\n"

    async def of(self, reply: Reply, index: int) -> AsyncIterator[bytes]:
        """The chunks of one choice; those that are ready together in one piece."""
        head = f'{self._head}{{"index":{index},"delta":{{'
        end = '},"logprobs":null,"finish_reason":null' + self._tail
        text_head = head + '"content":'
        yield f'{head}"role":"assistant","content":""{end}'.encode()
        async for events in reply.events():
            if len(events) == 1 and type(events[0]) is TextDelta and not self._logprobs:
                yield f"{text_head}{json_text(events[0].text)}{end}".encode()
            else:
                yield "".join([self._chunk(each, head, end) for each in events]).encode()

    def ending(self, replies: Sequence[Reply]) -> bytes:
        """What follows the last choice's last chunk."""
        if not self._with_usage:
            return DONE
        usage = _usage(replies)
        text = json.dumps(usage, separators=(",", ":"))
        return f'{self._head}],"usage":{text}}}\n\n'.encode() + DONE

    def _chunk(self, each: Event, head: str, end: str) -> str:
        match each:
            case TextDelta(text=text, logprobs=logprobs):
                if self._logprobs:
                    entries = json.dumps(chat_logprobs(logprobs, self._tokenizer))
                    end = f'}},"logprobs":{entries},"finish_reason":null{self._tail}'
                return f'{head}"content":{json_text(text)}{end}'
            case ReasoningDelta(text=text):
                return f'{head}"reasoning_content":{json_text(text)}{end}'
            case ToolCallDelta():
                return f'{head}"tool_calls":[{json.dumps(_call_delta(each))}]{end}'
            case Completed():
                reason = finish_reason(each)
                return f'{head}}},"logprobs":null,"finish_reason":"{reason}"{self._tail}'


def _call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    function = {"arguments": delta.arguments}
    if delta.id is None:
        return {"index": delta.index, "function": function}
    return {
        "index": delta.index,
        "id": delta.id,
        "type": "function",
        "function": {"name": delta.name, **function},
    }
