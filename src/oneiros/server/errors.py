"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from oneiros.errors import (
    ConstraintError,
    ContextLengthError,
    EngineFailedError,
    InvalidSamplingError,
    NotEnoughMemoryError,
    OneirosError,
    OverloadedError,
    TokenizationError,
)
from oneiros.model.chat_format import ChatFormatError

RETRY_SECONDS = 1
"""What a client that met a full queue is told to wait: a few replies end in that time."""

_FINDINGS = 100
"""Of a body that is wrong in many places, so many are looked at to name one."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
_REQUEST_ERRORS: dict[type[OneirosError], str] = {
    ContextLengthError: "context_length_exceeded",
    ConstraintError: "invalid_constraint",
    InvalidSamplingError: "invalid_value",
    TokenizationError: "invalid_text",
    ChatFormatError: "invalid_messages",
}


class ErrorDetail(BaseModel):
    """What went wrong, and with which field of the request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "The request cannot be answered."},
    "5XX": {"model": ErrorResponse, "description": "The server cannot answer now."},
}


class ApiError(HTTPException):
    """An answer that is an error; `param` names the field of the request that it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param = param
        self.code = code


def api_error(error: OneirosError) -> ApiError:
    """What a client is told about an error of the engine or the model."""
    for kind, code in _REQUEST_ERRORS.items():
        if isinstance(error, kind):
            return ApiError(400, str(error), code=code)
    if isinstance(error, OverloadedError):
        headers = {"Retry-After": str(RETRY_SECONDS)}
        return ApiError(429, str(error), code="overloaded", headers=headers)
    if isinstance(error, NotEnoughMemoryError):
        return ApiError(503, str(error), code="out_of_memory")
    code = "engine_failed" if isinstance(error, EngineFailedError) else "internal_error"
    return ApiError(500, str(error), code=code)


def error_body(error: HTTPException) -> dict[str, object]:
    """The JSON of an error, for an answer or in the middle of a stream."""
    param, code = (error.param, error.code) if isinstance(error, ApiError) else (None, None)
    kind = _TYPES.get(error.status_code, "invalid_request_error")
    detail = {"message": error.detail, "type": kind, "param": param, "code": code}
    return {"error": detail}


def error_response(error: HTTPException) -> Response:
    content = json.dumps(error_body(error)).encode()
    return Response(content, error.status_code, error.headers, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Have every error of an app answered in OpenAI's shape."""

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and error.detail == "Not Found":
            message = f"There is no {request.method} {request.url.path} here."
            error = ApiError(404, message, code="unknown_url")
        elif error.status_code == 405:
            message = f"{request.url.path} does not take {request.method}."
            error = ApiError(405, message, code="method_not_allowed", headers=error.headers)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        return error_response(validation_error(error.errors(), error.body))

    @app.exception_handler(OneirosError)
    async def _known(request: Request, error: OneirosError) -> Response:
        return error_response(api_error(error))

    @app.exception_handler(Exception)
    async def _unknown(request: Request, error: Exception) -> Response:
        # The traceback goes to the log, not to the client.
        return error_response(ApiError(500, "Internal error.", code="internal_error"))


def validation_error(errors: Sequence[Mapping[str, Any]], body: object) -> ApiError:
    """A 400 for what pydantic found, naming the field as in `messages[0].content`.

    Of several findings (each member of a union gives its own) one that is not merely about
    another type tells most, and of these the one deepest in the body. The names of union members
    in pydantic's path are no part of the body and are left out.
    """
    if not isinstance(body, dict):
        return ApiError(
            400,
            "The body must be a JSON object, sent as Content-Type: application/json.",
            code="invalid_json",
        )
    found = [(_place(error["loc"][1:], body, error["type"]), error) for error in errors[:_FINDINGS]]
    place, error = max(
        found, key=lambda entry: (not entry[1]["type"].endswith("_type"), len(entry[0]))
    )
    param = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    param = param.removeprefix(".")
    match error["type"]:
        case "extra_forbidden":
            message, code = f"{param} is not known to this server.", "unknown_field"
        case "none_required":
            message, code = f"{param} is not supported by this server.", "unsupported_field"
        case "missing":
            message, code = f"{param} is missing.", "missing_field"
        case "value_error":
            message, code = f"{param or 'The body'}: {error['ctx']['error']}", "invalid_value"
        case _:
            message, code = f"{param}: {error['msg']}.", "invalid_value"
    return ApiError(400, message, param=param or None, code=code)


def _place(steps: Sequence[int | str], body: object, kind: str) -> list[int | str]:
    """The steps of pydantic's path that the body has too."""
    place: list[int | str] = []
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(body, dict) and (step in body or (last and kind == "missing")):
            place.append(step)
            body = body.get(step)
        elif isinstance(body, list) and isinstance(step, int) and step < len(body):
            place.append(step)
            body = body[step]
    return place
