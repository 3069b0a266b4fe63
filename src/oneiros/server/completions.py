"""POST /v1/completions: raw texts, and the log-probabilities that evaluations read."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import Completed, ReplyStream, TextDelta
from oneiros.engine.requests import GenerationRequest, TokenLogprob
from oneiros.server.answers import (
    CompletionAnswer,
    finish_reason,
    json_response,
    new_id,
    streaming_or,
    usage_of,
)
from oneiros.server.bodies import StrictRoute
from oneiros.server.chat_prompts import LONG_BODY
from oneiros.server.errors import ApiError
from oneiros.server.generating import Caller, Reply
from oneiros.server.logprobs import CompletionLogprobs
from oneiros.server.requests import MOST_TOP_LOGPROBS, SamplingFields
from oneiros.server.serving import Serving, caller_of, priority_of, serving_of
from oneiros.server.sse import DONE, EventStream, gather, json_text, unless_disconnected

MOST_PROMPTS = 256
_DEFAULT_TOKENS = 16
_AT_ONCE = 16
"""Replies of one request that are generated at the same time; the rest waits here."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
_PROMPTS = Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)

router = APIRouter(route_class=StrictRoute)


class CompletionRequest(SamplingFields):
    """The body of POST /v1/completions."""

    prompt: str | TokenIds | Annotated[list[str], _PROMPTS] | Annotated[list[TokenIds], _PROMPTS]
    max_tokens: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Default: 16. 0 is for `echo`."
    )
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    best_of: int | None = Field(None, ge=1, description="Must equal `n` where it is given.")
    suffix: None = None

    @property
    def token_limit(self) -> int:
        return _DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's own tokens are asked for."""
        return bool(self.echo) and self.logprobs is not None

    def check(self) -> None:
        """Raise ApiError where fields do not go together."""
        if self.best_of is not None and self.best_of != self.choices:
            raise ApiError(400, "best_of must equal n.", param="best_of", code="unsupported_field")
        if self.token_limit == 0 and not self.echo:
            message = "max_tokens is 0 and echo is not set: there would be nothing to answer."
            raise ApiError(400, message, param="max_tokens", code="invalid_value")
        if self.stream and self.scores_prompt:
            message = "logprobs with echo cannot be streamed: set stream to false."
            raise ApiError(400, message, param="stream", code="unsupported_combination")


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of the answers: its prompt, and the reply to it."""

    index: int
    prompt: tuple[int, ...]
    reply: Reply


@router.post(
    "/v1/completions",
    summary="Continue texts",
    response_model=None,
    responses=streaming_or(CompletionAnswer, "A text_completion; the last one is [DONE]."),
)
async def create_completion(request: Request, body: CompletionRequest) -> Response:
    body.check()
    caller, serving = caller_of(request), serving_of(request)
    # All is given back when this block is left, unless a stream takes it over.
    async with AsyncExitStack() as held:
        lease = await unless_disconnected(
            request.receive, serving.models.lease(body.model, "language")
        )
        held.callback(lease.release)
        model = lease.language_model
        if len(await request.body()) < LONG_BODY:
            prompts = _prompts(model, body)
        else:
            prompts = await asyncio.to_thread(_prompts, model, body)
        choices = _choices(serving, model, body, prompts, caller)
        for choice in choices:
            held.push_async_callback(choice.reply.close)
        if not body.stream:
            work = _answer(choices, model, body)
            return json_response(await unless_disconnected(request.receive, work))
        first = [choice.reply.start() for choice in choices[:_AT_ONCE]]
        await unless_disconnected(request.receive, gather(first))
        chunks = CompletionChunks(model, body)
        at_once = asyncio.Semaphore(_AT_ONCE)
        sources = [chunks.of(choice, at_once) for choice in choices]
        return EventStream(sources, lambda: chunks.ending(choices), held.pop_all().aclose)


def _prompts(model: LocalModel, body: CompletionRequest) -> list[tuple[int, ...]]:
    """The prompts as token ids.

    Raises:
        ApiError: 400; a token does not exist, or a text has none.
    """
    given = body.prompt
    if isinstance(given, str):
        texts: list[str | list[int]] = [given]
    elif isinstance(given[0], int):
        texts = [[token for token in given if isinstance(token, int)]]
    else:
        texts = [text for text in given if not isinstance(text, int)]
    prompts = []
    for text in texts:
        ids = text if isinstance(text, list) else model.tokenizer.prompt_ids(text)
        if not ids:
            # What begins a document is also what ends one.
            start = model.tokenizer.bos_id
            ids = [start] if start is not None else sorted(model.end_ids)[:1]
        size = model.tokenizer.vocabulary_size
        if not ids or max(ids) >= size:
            message = f"prompt: token ids are below {size}, and there is at least one."
            raise ApiError(400, message, param="prompt", code="invalid_value")
        prompts.append(tuple(ids))
    return prompts


def _choices(
    serving: Serving,
    model: LocalModel,
    body: CompletionRequest,
    prompts: Sequence[tuple[int, ...]],
    caller: Caller,
) -> list[_Choice]:
    sampling = body.sampling(model.tokenizer.vocabulary_size, max(1, body.token_limit))
    # A prompt that is scored gets exactly one token after it, whatever that is: evaluations take
    # the last entry off.
    one_token = body.scores_prompt and body.token_limit <= 1
    choices: list[_Choice] = []
    for prompt in prompts:
        request = GenerationRequest(
            prompt=prompt,
            sampling=sampling,
            end_ids=frozenset() if one_token else model.end_ids,
            principal=caller.principal.id,
            priority=priority_of(caller, body.priority),
            public_prefix=serving.public_prompts(model).length_in(prompt),
            top_logprobs=body.logprobs,
            prompt_logprobs=body.logprobs if body.scores_prompt else None,
        )
        for number in range(body.choices):
            stream = ReplyStream(model.tokenizer, stop=body.stop_texts)
            reply = Reply(model, request, stream, caller, choice=number)
            choices.append(_Choice(len(choices), prompt, reply))
    return choices


async def _answer(
    choices: Sequence[_Choice], model: LocalModel, body: CompletionRequest
) -> dict[str, object]:
    at_once = asyncio.Semaphore(_AT_ONCE)
    answers = await gather([_choice(choice, model, body, at_once) for choice in choices])
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model.name,
        "choices": answers,
        "usage": _usage(choices, body),
    }


async def _choice(
    choice: _Choice, model: LocalModel, body: CompletionRequest, at_once: asyncio.Semaphore
) -> dict[str, object]:
    text = ""
    generated: list[TokenLogprob] = []
    async with at_once:
        async for events in choice.reply.events():
            for each in events:
                if isinstance(each, TextDelta):
                    text += each.text
                    generated += each.logprobs
    completed = choice.reply.completed
    assert completed is not None
    if body.token_limit == 0:
        text, generated = "", []
    if body.scores_prompt and generated and generated[0].token in model.end_ids:
        text = ""  # generated as any other token, see _choices
    logprobs = None
    if body.logprobs is not None:
        logprobs = CompletionLogprobs(model.tokenizer)
        if body.echo:
            logprobs.add_unscored(choice.prompt[0])
            logprobs.add(choice.reply.prompt_logprobs)
        logprobs.add(generated)
    return {
        "index": choice.index,
        "text": (model.tokenizer.decode(choice.prompt) if body.echo else "") + text,
        "logprobs": logprobs.take() if logprobs else None,
        "finish_reason": finish_reason(completed),
    }


def _usage(choices: Sequence[_Choice], body: CompletionRequest) -> dict[str, object]:
    completed = [choice.reply.completed for choice in choices if choice.reply.completed]
    usage = usage_of(completed, len(choices) // body.choices)
    if body.token_limit == 0:  # the engine generates at least one token, which nobody asked for
        usage |= {"completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
    return usage


class CompletionChunks:
    """Replies as chunks of a stream."""

    def __init__(self, model: LocalModel, body: CompletionRequest) -> None:
        self._tokenizer = model.tokenizer
        self._body = body
        head = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }
        self._head = "data: " + json.dumps(head, separators=(",", ":"))[:-1] + ',"choices":['
        self._tail = '}],"usage":null}\n\n' if body.with_usage else "}]}\n\n"

    async def of(self, choice: _Choice, at_once: asyncio.Semaphore) -> AsyncIterator[bytes]:
        """The chunks of one choice; those that are ready together in one piece."""
        head = f'{self._head}{{"index":{choice.index},"text":'
        end = ',"logprobs":null,"finish_reason":null' + self._tail
        echo = self._tokenizer.decode(choice.prompt) if self._body.echo else ""
        if echo:
            yield f"{head}{json_text(echo)}{end}".encode()
        logprobs = None
        if self._body.logprobs is not None:
            logprobs = CompletionLogprobs(self._tokenizer, len(echo))
        async with at_once:
            async for events in choice.reply.events():
                pieces = []
                for each in events:
                    if isinstance(each, TextDelta) and self._body.token_limit:
                        if logprobs is not None:
                            logprobs.add(each.logprobs)
                            entries = json.dumps(logprobs.take())
                            end = f',"logprobs":{entries},"finish_reason":null{self._tail}'
                        pieces.append(f"{head}{json_text(each.text)}{end}")
                    elif isinstance(each, Completed):
                        reason = finish_reason(each)
                        pieces.append(
                            f'{head}"","logprobs":null,"finish_reason":"{reason}"{self._tail}'
                        )
                if pieces:
                    yield "".join(pieces).encode()

    def ending(self, choices: Sequence[_Choice]) -> bytes:
        """What follows the last choice's last chunk."""
        if not self._body.with_usage:
            return DONE
        text = json.dumps(_usage(choices, self._body), separators=(",", ":"))
        return f'{self._head}],"usage":{text}}}\n\n'.encode() + DONE
