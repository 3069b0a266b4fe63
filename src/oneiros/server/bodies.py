"""Reading request bodies that strangers send: bounded, and JSON that means one thing only."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneiros.server.errors import ApiError, error_response

DEEPEST_JSON = 64
"""Levels of lists and objects; templates and grammars recurse over what is in a request."""

BODY_SECONDS = 60.0
"""In which a whole body has to come."""


class BodyLimit:
    """Refuses bodies that are too large, by their declared length or as they come, or too slow."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app = app
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self._largest:
            await error_response(self._too_large())(scope, receive, send)
            return
        received, complete = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:  # what still comes is the end of the connection, whenever that is
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise ApiError(408, "The body took too long.", code="body_too_slow") from error
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._largest:
                raise self._too_large()
            return message

        await self._app(scope, bounded, send)

    def _too_large(self) -> ApiError:
        message = f"The body has more than {self._largest:,} bytes."
        return ApiError(413, message, code="body_too_large")


class StrictRequest(Request):
    """A request whose JSON is strict: finite numbers, Unicode text, bounded depth."""

    async def json(self) -> Any:
        return parse_json(await self.body())


class StrictRoute(APIRoute):
    """A route that reads its body with `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def parse_json(body: bytes) -> Any:
    """A JSON text as Python objects.

    Raises:
        ApiError: 400; it is no UTF-8 or no JSON, has numbers that are not finite, strings that
            are no Unicode text, or more levels than `DEEPEST_JSON`.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_not_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _malformed(f"byte {error.start:,} is not UTF-8") from error
    except RecursionError as error:
        raise _malformed(f"more than {DEEPEST_JSON} levels") from error
    except ValueError as error:
        raise _malformed(str(error)) from error
    if body.count(b"[") + body.count(b"{") > DEEPEST_JSON:
        _check_depth(value)
    # Only an escape can bring in half of a surrogate pair: the bytes were valid UTF-8.
    if b"\\ud" in body or b"\\uD" in body:
        _check_text(value)
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise _malformed(f"more than {DEEPEST_JSON} levels")


def _children(value: object) -> list[object]:
    """The lists and objects in a value."""
    items = value.values() if isinstance(value, dict) else value
    if not isinstance(items, Iterable) or isinstance(items, str):
        return []
    return [child for child in items if isinstance(child, dict | list)]


def _check_text(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _malformed("a string holds half of a surrogate pair") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _malformed(what: str) -> ApiError:
    return ApiError(400, f"The body is not usable JSON: {what}.", code="invalid_json")
