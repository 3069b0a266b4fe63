"""The app: endpoints, and what every request passes before it gets to one."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from oneiros import __version__
from oneiros.server import (
    chat_completions,
    completions,
    embeddings,
    models,
    responses,
    tokenization,
)
from oneiros.server.bodies import BodyLimit
from oneiros.server.errors import ERROR_RESPONSES, ApiError, add_error_handlers, error_response
from oneiros.server.mcp_endpoint import McpEndpoint
from oneiros.server.metrics import Observation
from oneiros.server.model_pool import ModelPool
from oneiros.server.scanning import ScanCounts
from oneiros.server.security import OPEN_PATHS, Authentication, HostsAndOrigins
from oneiros.server.serving import Serving
from oneiros.server.settings import Settings
from oneiros.server.sse import ClientDisconnected

_ALWAYS_ANSWERED = frozenset({"/health", "/metrics"})
_MCP_PATH = "/mcp"


def create_app(
    pool: ModelPool,
    settings: Settings,
    mcp: McpEndpoint | None = None,
    scans: ScanCounts | None = None,
) -> FastAPI:
    """The server as an ASGI app; `app.state.serving` is its state.

    Args:
        pool: the models.
        settings: who may ask, and how much.
        mcp: tools at /mcp; None: there are none.
        scans: what detectors see in what these tools bring, for /metrics.
    """
    app = FastAPI(
        title="Oneiros",
        version=__version__,
        summary="Language models on this machine, through OpenAI's API.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses=ERROR_RESPONSES,
    )
    serving = Serving(pool, settings)
    if scans is not None:
        serving.metrics.count_scans(scans)
    app.state.serving = serving
    for module in (chat_completions, completions, responses, embeddings, models, tokenization):
        app.include_router(module.router)
    if mcp is not None:
        app.router.routes.append(Route(_MCP_PATH, mcp))
    add_error_handlers(app)
    app.add_exception_handler(ClientDisconnected, _nobody_there)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    # The last one added sees a request first.
    app.add_middleware(BodyLimit, largest=settings.largest_body)
    app.add_middleware(Authentication, settings=settings)
    app.add_middleware(Draining, serving=serving)
    app.add_middleware(HostsAndOrigins, settings=settings)
    paths = frozenset(get_openapi(title="", version="", routes=app.routes)["paths"])
    app.add_middleware(Observation, metrics=serving.metrics, paths=paths | {_MCP_PATH})
    return app


class Draining:
    """Counts running requests, and refuses new ones while the server waits for their end."""

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._serving.draining and scope["path"] not in _ALWAYS_ANSWERED:
            error = ApiError(503, "The server is shutting down.", code="shutting_down")
            await error_response(error)(scope, receive, send)
            return
        self._serving.running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._serving.running -= 1


async def _nobody_there(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # what nginx writes; nobody reads it


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The document, with the keys that requests may need."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        document["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "Of `oneiros keys create`."}
        }
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in OPEN_PATHS else [{"key": []}, {}]
        app.openapi_schema = document
    return app.openapi_schema
