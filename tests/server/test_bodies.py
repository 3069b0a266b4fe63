import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.engine.local_model import LocalModel
from oneiros.server import bodies, errors
from oneiros.server.bodies import DEEPEST_JSON, parse_json
from oneiros.server.errors import ApiError, validation_error
from oneiros.server.settings import Settings
from tests.server.conftest import NAME, FakeServer, fake_server

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
JSON = {"content-type": "application/json"}


@pytest.mark.anyio
@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"model": }',
        b"\xff\xfe{}",
        b'{"model": "\xc3"}',
        b'{"model": NaN}',
        b'{"model": Infinity}',
        b'{"model": 1e999}',
        b'{"model": "fake", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "fake", "prompt": "\\udfff", "input": "\\udfff"}',
        b'{"model": "fake", "seed": ' + b"9" * 5000 + b"}",
        b'{"model": "fake", "seed": ' + b"9" * 400 + b"}",
        b"[" * 100_000,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b'{"tools": ' + b"[" * 70 + b"]" * 70 + b"}",
        b"{" * 3000,
        b"x" * 1_000_000,
        b'{"model": "a", "model": "fake", "messages": [], "prompt": "x", "input": "x"}',
        b'{"model": "fake", "tools": [{"type": 1, "type": 2}], "prompt": "x", "input": "x"}',
        b"[" + b"[]," * 3_000_000 + b"0]",
        b"[" + b'"",' * 3_000_000 + b"0]",
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_hostile_bodies_are_the_clients_mistake(
    client: httpx.AsyncClient, url: str, body: bytes
) -> None:
    response = await client.post(url, content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_declared_as_json_is_refused(
    client: httpx.AsyncClient, kind: str | None
) -> None:
    headers = {"content-type": kind} if kind else {}
    body = f'{{"model": "{NAME}", "prompt": "x"}}'.encode()
    response = await client.post("/v1/completions", content=body, headers=headers)
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("declared", [True, False])
async def test_large_bodies_are_refused_before_they_are_read(
    model_parts: LocalModel, declared: bool
) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1000
            yield b" " * 1000

    server = fake_server(model_parts, Settings(largest_body=5000))
    async with server.client() as client:
        content = b" " * 100_000 if declared else pieces()
        response = await client.post(URLS[0], content=content, headers=JSON)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert sent <= 7000


@pytest.mark.anyio
async def test_a_body_that_does_not_come_is_not_waited_for(
    server: FakeServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)
    response = await client.post(URLS[0], content=pieces(), headers=JSON)
    assert response.status_code == 408
    assert response.json()["error"]["code"] == "body_too_slow"
    monkeypatch.undo()
    server.service.hold.clear()
    asyncio.get_running_loop().call_later(0.1, server.service.hold.set)
    body = {"model": NAME, "prompt": "x"}  # an answer may take as long as it takes
    assert (await client.post("/v1/completions", json=body)).status_code == 200


@pytest.mark.anyio
async def test_unknown_urls_and_methods_are_answered_in_the_same_shape(
    client: httpx.AsyncClient,
) -> None:
    missing = await client.get("/v2/chat")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_url")
    wrong = await client.put("/v1/models")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"


@pytest.mark.anyio
async def test_a_bug_is_a_500_without_its_inner_life(
    server: FakeServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, kind: str) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(server.app.state.serving.models, "lease", broken)
    body = {"model": NAME, "prompt": "x"}
    response = await client.post("/v1/completions", json=body)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]["type"] == "server_error"


def test_depth_is_bounded_exactly() -> None:
    def nested(levels: int) -> bytes:
        return b"[" * levels + b"]" * levels

    assert parse_json(nested(DEEPEST_JSON))
    with pytest.raises(ApiError, match="levels"):
        parse_json(nested(DEEPEST_JSON + 1))


@pytest.mark.parametrize(
    "list_of",
    [
        lambda count: b"[" + b"0," * (count - 1) + b"0]",
        lambda count: b"[" + b"[]," * (count - 2) + b"[]]",
        lambda count: b"[" + b'"",' * (count - 1) + b'""]',
    ],
    ids=["values", "lists", "strings"],
)
def test_numbers_of_things_are_bounded_exactly(
    list_of: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOST_VALUES", "MOST_CONTAINERS", "MOST_STRINGS"):
        monkeypatch.setattr(bodies, name, 100)
    assert parse_json(list_of(100))
    with pytest.raises(ApiError, match="more than 100"):
        parse_json(list_of(102))


def test_what_is_in_a_text_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_VALUES", "MOST_CONTAINERS", "MOST_STRINGS"):
        monkeypatch.setattr(bodies, name, 10)
    text = '{"a": [1, 2], \\"b\\\\": []},' * 1000
    assert parse_json(json.dumps([text, {"b": text}]).encode()) == [text, {"b": text}]


def test_a_name_twice_is_told() -> None:
    with pytest.raises(ApiError, match="'role' is there twice"):
        parse_json(b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}')


PLACES = {
    "/v1/chat/completions": ("messages", "tools", "modalities", "stop"),
    "/v1/completions": ("prompt",),
    "/v1/responses": ("input", "tools", "include"),
    "/v1/embeddings": ("input",),
    "/tokenize": ("messages", "tools"),
    "/detokenize": ("tokens",),
}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("url", "field"), [(url, field) for url, fields in PLACES.items() for field in fields]
)
async def test_of_many_mistakes_few_are_written_down(
    client: httpx.AsyncClient, url: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []

    def counting(errors: Sequence[Mapping[str, Any]], body: object) -> ApiError:
        found.append(len(errors))
        return validation_error(errors, body)

    monkeypatch.setattr(errors, "validation_error", counting)
    for items in ([-1] * 50_000, [None] * 50_000, [-1] + [{"role": 0}] * 9_000):
        response = await client.post(url, json={"model": NAME, field: items})
        assert response.status_code == 400
    names = {str(number): -1000 for number in range(50_000)}
    for fields in (names, {"logit_bias": names}, {"metadata": names}):
        response = await client.post(url, json={"model": NAME, **fields})
        assert response.status_code == 400
    assert max(found) < 40


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse_json(data)
    except ApiError as error:
        assert error.status_code == 400


@given(st.text(alphabet='{}[]":,\\u0dDfaeE+-.019 \n', max_size=60))
def test_any_near_json_is_json_or_refused(text: str) -> None:
    try:
        parse_json(text.encode())
    except ApiError as error:
        assert error.status_code == 400
