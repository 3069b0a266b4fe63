"""Who may ask at all: the Host header, web pages, and API keys.

A web page that a person visits can send requests to their own machine, and, by giving its own name
the address 127.0.0.1 (DNS rebinding), even read the answers. The first is seen by the Origin and
Sec-Fetch-Site headers, the second by the Host header, which holds the page's name.
"""

from __future__ import annotations

import ipaddress
import math
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oneiros.errors import OneirosError
from oneiros.server.errors import ApiError, api_error, error_response
from oneiros.server.keys import LOCAL, Principal
from oneiros.server.settings import LOOPBACK_NAMES, Settings, is_wildcard

OPEN_PATHS = frozenset({"/health", "/openapi.json"})
"""Answered without a key: load balancers ask the first, and the second says how to use one."""

_PREFLIGHT_SECONDS = "600"
_EXPOSED = (
    "retry-after, mcp-session-id, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-tokens"
)


class HostsAndOrigins:
    """Refuses requests to names that are not this server's, and those of foreign web pages."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._names = (
            LOOPBACK_NAMES | settings.allowed_hosts | {settings.host, socket.gethostname()}
        )
        self._origins = settings.allowed_origins
        # An address is never the result of a name that somebody else controls.
        self._any_address = is_wildcard(settings.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own_name(host):
            message = (
                f"This server is not known as {host[:100]!r}: start it with --allowed-host for "
                "each name that clients may use."
            )
            await error_response(ApiError(403, message, code="host_not_allowed"))(
                scope, receive, send
            )
            return
        if not self._may_ask(origin, host, headers.get("sec-fetch-site")):
            message = (
                f"The web page {(origin or 'that this comes from')[:100]} may not use this server: "
                "start it with --allowed-origin to permit that."
            )
            await error_response(ApiError(403, message, code="origin_not_allowed"))(
                scope, receive, send
            )
            return
        if origin is None or origin not in self._origins:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await _preflight(origin)(scope, receive, send)
        else:
            await self._app(scope, receive, _sharing(send, origin))

    def _is_own_name(self, host: str) -> bool:
        name = host_name(host)
        return name in self._names or (self._any_address and _is_address(name))

    def _may_ask(self, origin: str | None, host: str, site: str | None) -> bool:
        if origin is None:
            return site in (None, "none", "same-origin")
        return origin in self._origins or _origin_name(origin) == host.lower()


def host_name(host: str) -> str:
    """A Host header without port and brackets, in lower case; "" where it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _origin_name(origin: str) -> str | None:
    """Name and port of an Origin header, in lower case; None where it is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _preflight(origin: str) -> Response:
    headers = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": "authorization, content-type, mcp-session-id, "
        "mcp-protocol-version, mcp-method, mcp-name",
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        "Vary": "Origin",
    }
    return Response(status_code=204, headers=headers)


def _sharing(send: Send, origin: str) -> Send:
    """`send` that lets the web page read the answer."""

    async def sharing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = _EXPOSED
            headers.add_vary_header("Origin")
        await send(message)

    return sharing


class Authentication:
    """Finds out whose key a request brings, and counts it; `scope["state"]["principal"]`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            principal = self._principal(Headers(scope=scope).get("authorization", ""))
            _admit(principal)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        except OneirosError as error:  # the file of keys was damaged while the server ran
            await error_response(api_error(error))(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, _announcing(send, principal))

    def _principal(self, authorization: str) -> Principal:
        keys = self._settings.keys
        if keys is None or (self._settings.on_loopback and not keys.needed):
            return LOCAL
        scheme, _, secret = authorization.partition(" ")
        challenge = {"WWW-Authenticate": "Bearer"}
        if scheme.lower() != "bearer" or not secret.strip():
            message = "An API key is needed: send the header `Authorization: Bearer KEY`."
            raise ApiError(401, message, code="missing_api_key", headers=challenge)
        principal = keys.principal_of(secret.strip())
        if principal is None:
            message = "This API key is not known: `oneiros keys create NAME` makes one."
            raise ApiError(401, message, code="invalid_api_key", headers=challenge)
        return principal


def _admit(principal: Principal) -> None:
    refused = principal.limits.admit()
    if refused is None:
        return
    limit, seconds = refused
    raise ApiError(
        429,
        f"The limit of {limit} per minute of this key is used up: "
        f"try again in {math.ceil(seconds)} seconds.",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(math.ceil(seconds)), **principal.limits.headers()},
    )


def _announcing(send: Send, principal: Principal) -> Send:
    """`send` that adds the x-ratelimit headers of a limited principal."""
    if not principal.limits.headers():
        return send

    async def announcing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(principal.limits.headers())
        await send(message)

    return announcing
