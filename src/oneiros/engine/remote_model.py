"""A model behind an endpoint that speaks the OpenAI API."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import count

import httpx

from oneiros.engine.server_sent_events import EventParser
from oneiros.errors import ContextLengthError, RemoteError

Chunk = Mapping[str, object]

# How OpenAI, Oneiros and llama.cpp name it; vLLM only says it in words.
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}

_LONGEST_ERROR = 1 << 16  # bytes read of a refusal
_SHOWN = 500  # characters of it that a message quotes


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a request that failed before its first event is made again.

    The n-th wait is drawn evenly from 0 to `first_delay * 2**(n-1)` (full jitter: Brooker 2015,
    "Exponential Backoff And Jitter"), so that clients that failed together do not come back
    together. What the endpoint asks for with Retry-After is waited in addition.
    """

    attempts: int = 5  # in all
    first_delay: float = 0.5  # seconds
    longest_delay: float = 30.0
    longest_wait: float = 120.0  # an endpoint that wants more is not waited for


@dataclass(frozen=True, slots=True)
class Timing:
    """Time and chance, for tests to replace."""

    clock: Callable[[], float] = time.perf_counter
    now: Callable[[], float] = time.time  # seconds since the epoch
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random  # from [0, 1)


class RemoteModel:
    """A model at an OpenAI-compatible endpoint, and the connections to it.

    Attributes:
        name: of the model, as the endpoint calls it.
        endpoint: the address, without credentials.
        timing: where time and chance come from.
    """

    def __init__(
        self,
        base_url: str,
        name: str,
        *,
        api_key: str | None = None,
        api_key_variable: str | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 120.0,
        retries: RetryPolicy | None = None,
        extra: Mapping[str, object] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Prepare to talk to an endpoint; nothing is sent yet.

        Args:
            base_url: up to and with the version, such as "http://127.0.0.1:8000/v1".
            name: of the model there.
            api_key: sent as a bearer token.
            api_key_variable: the environment variable that holds the key instead. There is no
                default: a key must not go to an endpoint that it is not for.
            connect_timeout: seconds.
            read_timeout: seconds without a byte after which an endpoint counts as dead.
            retries: when a failed request is made again.
            extra: fields for the body of every request, for what an endpoint knows beyond the API.
            transport: what carries the requests; default: the network.
            timing: time and chance.

        Raises:
            RemoteError: the address is no HTTP address, or the variable is not set.
        """
        try:
            url = httpx.URL(base_url)
        except (httpx.InvalidURL, TypeError) as error:
            raise RemoteError(f"The endpoint's address cannot be read: {error}.") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise RemoteError(
                'An endpoint\'s address begins with "http://" or "https://" and names a host, '
                'such as "http://127.0.0.1:8000/v1".'
            )
        self.name = name
        self.endpoint = str(url.copy_with(username=None, password=None, query=None, fragment=None))
        self.timing = timing or Timing()
        self._url = url.copy_with(path=url.path.rstrip("/") + "/chat/completions")
        self._key_from = api_key_variable or "api_key"
        self._key = _key(api_key, api_key_variable)
        self._retries = retries or RetryPolicy()
        self._extra = dict(extra or {})
        self._client = httpx.AsyncClient(
            transport=transport,
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
            limits=httpx.Limits(max_connections=None),
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"}
            | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def stream(self, body: Mapping[str, object]) -> AsyncGenerator[Chunk, None]:
        """The chunks of a streamed chat completion; closing the iterator closes the connection.

        Args:
            body: the request, without the model.

        Raises:
            RemoteError: the endpoint cannot be reached, refuses, or breaks off.
            ContextLengthError: it says that the messages do not fit its context.
        """
        content = json.dumps({**body, "model": self.name, **self._extra}).encode()
        for attempt in count(1):
            begun = False
            try:
                async with aclosing(self._attempt(content)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except RemoteError as error:
                # What was said once is not said again: whoever listens has it already.
                if begun or not error.transient or attempt >= self._retries.attempts:
                    raise
                delay = self._delay(attempt, error.retry_after)
                if delay is None:
                    raise
            await self.timing.sleep(delay)

    def failure(
        self,
        what: str,
        *,
        status: int | None = None,
        transient: bool = False,
        retry_after: float | None = None,
    ) -> RemoteError:
        """An error of this endpoint."""
        return RemoteError(
            self._message(what), status=status, transient=transient, retry_after=retry_after
        )

    def _message(self, what: str) -> str:
        """With the endpoint's address, and without the key, which some endpoints repeat."""
        return f"{self.endpoint}: {what.replace(self._key, '[key]') if self._key else what}"

    def _delay(self, attempt: int, retry_after: float | None) -> float | None:
        """Seconds before the next attempt; None: too long to wait for."""
        policy = self._retries
        limit = min(policy.longest_delay, policy.first_delay * 2.0 ** (attempt - 1))
        if retry_after is not None and retry_after > policy.longest_wait:
            return None
        return self.timing.uniform() * limit + (retry_after or 0.0)

    async def _attempt(self, content: bytes) -> AsyncGenerator[Chunk, None]:
        try:
            async with self._client.stream("POST", self._url, content=content) as response:
                if response.status_code != 200:
                    raise await self._refusal(response)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "text/event-stream":
                    reason, _ = _reason(await _beginning(response))
                    raise self.failure(
                        f"answered with {kind or 'no content type'} instead of a stream of "
                        f"events: {reason} Check that base_url is that of an OpenAI-compatible "
                        "API.",
                        status=200,
                    )
                empty = True
                async with aclosing(self._data(response)) as events:
                    async for data in events:
                        if data.strip() == "[DONE]":
                            return
                        yield self._chunk(data)
                        empty = False
                if empty:
                    raise self.failure("ended its answer before it began.", transient=True)
        except httpx.ConnectTimeout as error:
            raise self.failure(
                "did not accept a connection in time. Check the address and the network.",
                transient=True,
            ) from error
        except httpx.TimeoutException as error:
            raise self.failure(
                f"sent nothing for {self._client.timeout.read:g} seconds. Give it a longer "
                "read_timeout if its replies begin that late."
            ) from error
        except httpx.ConnectError as error:
            raise self.failure(
                f"cannot be reached ({error}). Check the address, and that a server runs there.",
                transient=True,
            ) from error
        except httpx.RequestError as error:
            raise self.failure(
                f"broke the connection off ({type(error).__name__}: {error}). Try again.",
                transient=True,
            ) from error

    async def _data(self, response: httpx.Response) -> AsyncGenerator[str, None]:
        """The data of the events of an answer."""
        parser = EventParser()
        async for piece in response.aiter_bytes():
            try:
                events = parser.push(piece)
            except ValueError as error:
                raise self.failure(f"sent what cannot be read: {error}.") from error
            for data in events:
                yield data
        for data in parser.flush():
            yield data

    def _chunk(self, data: str) -> Chunk:
        """A chunk that is no error."""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.failure(f"sent an event that is not JSON: {data[:_SHOWN]}") from error
        if not isinstance(chunk, dict):
            raise self.failure(f"sent an event that is no JSON object: {data[:_SHOWN]}")
        if chunk.get("error") or chunk.get("object") == "error":
            reason, codes = _reason(data)
            status = next((int(code) for code in codes if code.isdecimal()), None)
            raise self._failed(reason, codes, status, None)
        return chunk

    async def _refusal(self, response: httpx.Response) -> Exception:
        """What an answer other than 200 is for the caller."""
        reason, codes = _reason(await _beginning(response))
        after = _retry_after(response.headers.get("retry-after"), self.timing.now())
        return self._failed(reason, codes, response.status_code, after)

    def _failed(
        self, reason: str, codes: set[str], status: int | None, retry_after: float | None
    ) -> Exception:
        if codes & _TOO_LONG or "maximum context length" in reason:
            return ContextLengthError(
                self._message(f"{reason} Shorten the message, or evict earlier ones.")
            )
        named = "" if status is None else f" with status {status}"
        transient = status in (408, 429) or (status is not None and status >= 500)
        return self.failure(
            f"refused{named}: {reason}{self._advice(status, transient, retry_after)}",
            status=status,
            transient=transient,
            retry_after=retry_after,
        )

    def _advice(self, status: int | None, transient: bool, retry_after: float | None) -> str:
        if status in (401, 403):
            return f" Check the key ({self._key_from})."
        if status == 404:
            return f' Check the address, and that there is a model "{self.name}".'
        if transient and retry_after is not None:
            return f" Try again after {retry_after:,.0f} seconds."
        return " Try again later." if transient else ""


def _key(key: str | None, variable: str | None) -> str | None:
    if variable is not None:
        key = os.environ.get(variable)
        if not key:
            raise RemoteError(
                f"The environment variable {variable} holds no API key. Set it, or give api_key."
            )
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise RemoteError("The API key holds characters that cannot be sent. Copy it again.")
    return key


async def _beginning(response: httpx.Response) -> str:
    """The first bytes of an answer, as text."""
    read = b""
    async for piece in response.aiter_bytes():
        read += piece
        if len(read) >= _LONGEST_ERROR:
            break
    return read[:_LONGEST_ERROR].decode("utf-8", "replace")


def _reason(text: str) -> tuple[str, set[str]]:
    """What an endpoint says is wrong, and its codes for that, from the shapes that are in use."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = text
    codes: set[str] = set()
    while isinstance(said, dict):
        codes |= {str(said[key]) for key in ("code", "type") if said.get(key)}
        said = next((said[key] for key in ("error", "message", "detail") if said.get(key)), "")
    reason = " ".join(str(said).split())[:_SHOWN] or "it gave no reason"
    return reason if reason.endswith((".", "!", "?")) else f"{reason}.", codes


def _retry_after(header: str | None, now: float) -> float | None:
    """Seconds, from the header's two forms: a number, or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
