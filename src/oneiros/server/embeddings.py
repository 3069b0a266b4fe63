"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from oneiros.engine.embedding import Embedder
from oneiros.errors import OverloadedError
from oneiros.server.answers import json_response
from oneiros.server.bodies import StrictRoute
from oneiros.server.errors import ApiError
from oneiros.server.requests import Ignored, Strict
from oneiros.server.serving import Serving, caller_of, serving_of
from oneiros.server.sse import unless_disconnected

MOST_TEXTS = 2048
_MOST_WAITING = 128

router = APIRouter(route_class=StrictRoute)


class EmbeddingRequest(Strict):
    """The body of POST /v1/embeddings.

    Token ids are refused: clients that send them counted with another model's tokenizer.
    """

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="Must be the model's own number.")
    user: Ignored = None


class EmbeddingAnswer(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"]
    data: list[EmbeddingAnswer]
    model: str
    usage: EmbeddingUsage


@router.post(
    "/v1/embeddings",
    summary="Turn texts into vectors",
    response_model=None,
    responses={200: {"model": EmbeddingsAnswer}},
)
async def create_embeddings(request: Request, body: EmbeddingRequest) -> Response:
    serving, caller = serving_of(request), caller_of(request)
    texts = [body.input] if isinstance(body.input, str) else body.input
    lease = await unless_disconnected(
        request.receive, serving.models.lease(body.model, "embedding")
    )
    try:
        embedder = lease.embedder
        if body.dimensions not in (None, embedder.dimensions):
            message = f"{body.model} has {embedder.dimensions} dimensions, and no other number."
            raise ApiError(400, message, param="dimensions", code="invalid_value")
        await unless_disconnected(request.receive, _turn(serving))
        try:
            # Computed to its end also where the client goes away: NumPy cannot be interrupted.
            vectors, tokens = await asyncio.to_thread(
                _embed, embedder, texts, body.encoding_format == "base64"
            )
        finally:
            serving.embedding.release()
    finally:
        lease.release()
    caller.principal.limits.spend(tokens)
    caller.metrics.embedded_tokens.labels(body.model).inc(tokens)
    data = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})


async def _turn(serving: Serving) -> None:
    """Wait until no other request is being embedded; each uses all cores.

    Raises:
        OverloadedError: too many wait already.
    """
    if serving.embeddings_waiting >= _MOST_WAITING:
        raise OverloadedError(f"{serving.embeddings_waiting} requests wait already.")
    serving.embeddings_waiting += 1
    try:
        await serving.embedding.acquire()
    finally:
        serving.embeddings_waiting -= 1


def _embed(embedder: Embedder, texts: list[str], as_base64: bool) -> tuple[list[Any], int]:
    """Vectors as lists or as base64 of little-endian float32, and the number of tokens."""
    ids = [embedder.tokenizer.encode(text) for text in texts]
    vectors = embedder.embed_ids(ids)
    count = sum(map(len, ids))
    if as_base64:
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors], count
    return vectors.tolist(), count
