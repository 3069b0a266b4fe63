"""POST /tokenize and /detokenize: what a model makes of a text, and of token ids."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from oneiros.model.tokenizer import Tokenizer
from oneiros.server.answers import json_response
from oneiros.server.bodies import StrictRoute
from oneiros.server.chat_prompts import Question, chat_prompt
from oneiros.server.chat_requests import ChatMessage, Tools, described_function, plain_message
from oneiros.server.errors import ApiError
from oneiros.server.requests import FIRST_MISTAKE, SOME_ITEMS, Strict
from oneiros.server.serving import serving_of
from oneiros.server.sse import unless_disconnected

router = APIRouter(route_class=StrictRoute)

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class TokenizeRequest(Strict):
    """The body of POST /tokenize: a text, or a conversation as the model reads it."""

    model: ModelName
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], SOME_ITEMS] | None = None
    tools: Tools | None = None
    add_special_tokens: bool | None = Field(
        None, description="Begin a text as the model begins one; default: true."
    )
    return_token_strs: bool | None = None


class TokenizeAnswer(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None


class DetokenizeRequest(Strict):
    """The body of POST /detokenize."""

    model: ModelName
    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], FIRST_MISTAKE]


class DetokenizeAnswer(BaseModel):
    prompt: str


@router.post(
    "/tokenize",
    summary="Turn a text or a conversation into token ids",
    response_model=None,
    responses={200: {"model": TokenizeAnswer}},
)
async def tokenize(request: Request, body: TokenizeRequest) -> Response:
    if (body.prompt is None) == (body.messages is None):
        message = "Give either prompt or messages."
        raise ApiError(400, message, param="prompt", code="invalid_value")
    lease = await unless_disconnected(
        request.receive, serving_of(request).models.lease(body.model, "language")
    )
    try:
        model = lease.language_model
        if body.prompt is not None:
            begin = body.add_special_tokens is not False
            encode = model.tokenizer.prompt_ids if begin else model.tokenizer.encode
            ids = await asyncio.to_thread(encode, body.prompt)
        else:
            messages = [plain_message(m, index) for index, m in enumerate(body.messages or ())]
            functions = [tool.function for tool in body.tools or ()]
            tools = [described_function(f.name, f.description, f.parameters) for f in functions]
            size = len(await request.body())
            ids = [*(await chat_prompt(model, Question(messages, tools), size)).ids]
        strings = None
        if body.return_token_strs:
            strings = await asyncio.to_thread(_strings, model.tokenizer, ids)
        answer = {"tokens": ids, "count": len(ids), "max_model_len": model.context}
        return json_response(answer | {"token_strs": strings})
    finally:
        lease.release()


@router.post(
    "/detokenize",
    summary="Turn token ids into a text",
    response_model=None,
    responses={200: {"model": DetokenizeAnswer}},
)
async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
    lease = await unless_disconnected(
        request.receive, serving_of(request).models.lease(body.model, "language")
    )
    try:
        tokenizer = lease.language_model.tokenizer
        if max(body.tokens, default=0) >= tokenizer.vocabulary_size:
            message = f"Token ids are below {tokenizer.vocabulary_size}."
            raise ApiError(400, message, param="tokens", code="invalid_value")
        text = await asyncio.to_thread(tokenizer.decode, body.tokens)
        return json_response({"prompt": text})
    finally:
        lease.release()


def _strings(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_text(token) for token in ids]
