"""GET /v1/models, /v1/models/{name}, /health and /metrics."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import EngineStatistics
from oneiros.errors import EngineFailedError
from oneiros.server.answers import json_response
from oneiros.server.errors import ApiError
from oneiros.server.metrics import CONTENT_TYPE
from oneiros.server.serving import Serving, serving_of

_ANSWER_SECONDS = 5.0
"""An engine that is well answers between two steps, of which a long one takes a second."""

router = APIRouter()


class ModelAnswer(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(BaseModel):
    object: Literal["list"]
    data: list[ModelAnswer]


class HealthAnswer(BaseModel):
    status: Literal["ok"]


@router.get(
    "/v1/models",
    summary="List the models",
    responses={200: {"model": ModelsAnswer}},
    response_model=None,
)
async def list_models(request: Request) -> Response:
    serving = serving_of(request)
    data = [_described(serving, source.name) for source in serving.models.sources]
    return json_response({"object": "list", "data": data})


@router.get(
    "/v1/models/{name:path}",
    summary="Describe a model",
    responses={200: {"model": ModelAnswer}},
    response_model=None,
)
async def describe_model(request: Request, name: str) -> Response:
    serving = serving_of(request)
    return json_response(_described(serving, serving.models.find(name).name))


@router.get(
    "/health",
    summary="Say whether the engines answer",
    responses={200: {"model": HealthAnswer}},
    response_model=None,
)
async def health(request: Request) -> Response:
    serving = serving_of(request)
    if serving.draining:
        raise ApiError(503, "The server is shutting down.", code="shutting_down")
    for model in serving.models.language_models:
        if await _statistics(serving, model) is None:
            raise ApiError(
                503, f"The engine of {model.name} does not answer.", code="engine_failed"
            )
    return json_response({"status": "ok"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_model=None,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    serving = serving_of(request)
    models = serving.models.language_models
    answers = await asyncio.gather(*[_statistics(serving, model) for model in models])
    known = {model.name: found for model, found in zip(models, answers, strict=True) if found}
    return Response(serving.metrics.page(known), headers={"Content-Type": CONTENT_TYPE})


def _described(serving: Serving, name: str) -> dict[str, object]:
    created = serving.models.created
    return {"id": name, "object": "model", "created": created, "owned_by": "oneiros"}


async def _statistics(serving: Serving, model: LocalModel) -> EngineStatistics | None:
    """None where the engine does not answer."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await model.service.statistics()
    except EngineFailedError:
        serving.models.suspect(model)
    except TimeoutError:  # it is busy
        pass
    return None
