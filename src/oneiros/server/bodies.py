"""Reading request bodies that strangers send: bounded, and JSON that means one thing only."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NoReturn

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneiros.server.errors import ApiError, error_response

DEEPEST_JSON = 64
"""Levels of lists and objects; templates and grammars recurse over what is in a request."""

MOST_CONTAINERS = 20_000
"""Lists and objects in a body: each costs microseconds, in which other streams stand still."""

MOST_STRINGS = 200_000
"""Names of fields, and texts."""

MOST_VALUES = 1_000_000
"""What all lists and objects of a body may hold together: token ids, above all."""

_STRINGS = re.compile(rb'"[^"]*"?')

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
    """A request whose JSON is strict: finite numbers, Unicode text, bounded depth and number."""

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
            are no Unicode text, a name twice in an object, or more levels than `DEEPEST_JSON`,
            lists and objects than `MOST_CONTAINERS`, strings than `MOST_STRINGS`, or values
            than `MOST_VALUES`.
    """
    _check_size(body)
    try:
        value = json.loads(
            body.decode(),
            parse_constant=_not_finite,
            parse_float=_finite,
            object_pairs_hook=_with_unique_names,
        )
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


def _with_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; readers disagree about which of two fields of one name counts."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise ValueError(f"the name {max(times, key=times.__getitem__)[:50]!r} is there twice")
    return fields


def _check_size(body: bytes) -> None:
    """Refuse what would take seconds to parse; large texts are none of it."""
    if not any(_excesses(body)):
        return
    body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if body.count(b'"') > 2 * MOST_STRINGS:
        raise _malformed(f"more than {MOST_STRINGS:,} strings")
    for what in _excesses(_STRINGS.sub(b"", body)):
        raise _malformed(f"more than {what}")


def _excesses(body: bytes) -> Iterator[str]:
    """What there is too much of, where texts count as if they were JSON."""
    if body.count(b'"') > 2 * MOST_STRINGS:
        yield f"{MOST_STRINGS:,} strings"
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        yield f"{MOST_CONTAINERS:,} lists and objects"
    if body.count(b",") > MOST_VALUES:
        yield f"{MOST_VALUES:,} values"


def _check_depth(value: object) -> None:
    level = _containers([value])
    for _ in range(DEEPEST_JSON):
        if not level:
            return
        level = [
            child
            for parent in level
            for child in _containers(parent.values() if isinstance(parent, dict) else parent)
        ]
    if level:
        raise _malformed(f"more than {DEEPEST_JSON} levels")


def _containers(values: Iterable[object]) -> list[dict[str, object] | list[object]]:
    return [value for value in values if isinstance(value, dict | list)]


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
