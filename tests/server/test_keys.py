import hashlib
import json
import stat
from pathlib import Path

import httpx
import pytest

from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import BACKGROUND
from oneiros.errors import OverloadedError
from oneiros.server.keys import (
    KeyFileError,
    KeyRing,
    create_key,
    read_keys,
    revoke_key,
)
from oneiros.server.limits import RateLimits, TokenBucket
from oneiros.server.settings import Settings
from tests.server.conftest import NAME, FakeServer, fake_server

CHAT = {"model": NAME, "messages": [{"role": "user", "content": "Hi!"}]}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_key_is_stored_as_its_hash_for_the_owner_alone(path: Path) -> None:
    secret = create_key(path, "laptop")
    text = path.read_text()
    assert secret not in text
    assert secret.removeprefix("sk-oneiros-") not in text
    assert hashlib.sha256(secret.encode()).hexdigest() in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({create_key(path, str(number)) for number in range(20)}) == 20
    assert list(path.parent.glob(".keys.json.[0-9a-f]*")) == []


def test_a_ring_knows_its_keys_and_no_others(path: Path) -> None:
    first, second = create_key(path, "a"), create_key(path, "b", priority="background")
    ring = KeyRing(path)
    one, other = ring.principal_of(first), ring.principal_of(second)
    assert one is not None
    assert other is not None
    assert (one.name, one.priority) == ("a", 0)
    assert (other.name, other.priority) == ("b", BACKGROUND)
    assert one.id != other.id
    for wrong in ("", first[:-1], first + "x", first.upper(), "sk-oneiros-", "\udcff"):
        assert ring.principal_of(wrong) is None


def test_a_running_ring_notices_new_and_revoked_keys(path: Path, clock: Clock) -> None:
    ring = KeyRing(path, clock)
    assert ring.empty
    secret = create_key(path, "a")
    clock.now += 2
    assert ring.principal_of(secret) is not None
    revoke_key(path, "a")
    clock.now += 2
    assert ring.principal_of(secret) is None


def test_limits_survive_the_creation_of_other_keys(path: Path, clock: Clock) -> None:
    secret = create_key(path, "a", requests_per_minute=1)
    ring = KeyRing(path, clock)
    principal = ring.principal_of(secret)
    assert principal is not None
    assert principal.limits.admit() is None
    create_key(path, "b")
    clock.now += 2
    again = ring.principal_of(secret)
    assert again is not None
    assert again.limits.admit() is not None


def test_names_are_used_once_and_can_be_used_again(path: Path) -> None:
    create_key(path, "a")
    with pytest.raises(KeyFileError, match="already"):
        create_key(path, "a")
    revoke_key(path, "a")
    create_key(path, "a")
    assert [key.name for key in read_keys(path)] == ["a"]
    with pytest.raises(KeyFileError, match="no key named"):
        revoke_key(path, "b")
    for bad in ("", "x" * 101, "a\nb", "\x1b[2J"):
        with pytest.raises(KeyFileError, match="printable"):
            create_key(path, bad)


def test_an_unsafe_or_damaged_file_is_refused(path: Path) -> None:
    create_key(path, "a")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyRing(path)
    path.chmod(0o600)
    good = json.loads(path.read_text())
    for bad in ("", "{}", "[]", '{"keys": 1}', '{"keys": [{"id": "x"}]}', "\udcff"):
        path.write_text(bad, errors="surrogateescape")
        with pytest.raises(KeyFileError, match="damaged"):
            read_keys(path)
    good["keys"][0]["priority"] = "urgent"
    path.write_text(json.dumps(good))
    with pytest.raises(KeyFileError, match="priority"):
        read_keys(path)


def test_a_bucket_refills_steadily_and_may_be_overdrawn(clock: Clock) -> None:
    bucket = TokenBucket(60, clock)
    bucket.take(90)
    assert bucket.level == -30
    assert bucket.seconds_until(1) == pytest.approx(31)
    clock.now += 31
    assert bucket.level == pytest.approx(1)
    clock.now += 1000
    assert bucket.level == 60


def test_limits_admit_until_one_is_used_up(clock: Clock) -> None:
    limits = RateLimits(2, 100, clock)
    assert limits.admit() is None
    limits.spend(150)
    assert limits.admit() == ("tokens", pytest.approx(30.6))
    clock.now += 31
    assert limits.admit() is None
    assert limits.admit() is None
    assert limits.admit() == ("requests", pytest.approx(30))
    assert RateLimits(None, None, clock).admit() is None


def keyed_server(parts: LocalModel, path: Path, host: str = "127.0.0.1") -> FakeServer:
    return fake_server(parts, Settings(host=host, keys=KeyRing(path)))


async def chat(server: FakeServer, key: str | None, **fields: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with server.client(headers=headers) as client:
        return await client.post("/v1/chat/completions", json={**CHAT, **fields})


@pytest.mark.anyio
async def test_without_keys_loopback_is_open_and_nothing_else(
    model_parts: LocalModel, path: Path
) -> None:
    server = keyed_server(model_parts, path)
    response = await chat(server, None)
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("x-ratelimit")]
    assert (await chat(server, "anything")).status_code == 200
    assert {request.principal for request in server.service.requests} == {"local"}
    beyond = keyed_server(model_parts, path, host="0.0.0.0")
    assert (await chat(beyond, None)).status_code == 401


@pytest.mark.anyio
async def test_with_keys_each_request_needs_one(model_parts: LocalModel, path: Path) -> None:
    secrets = [create_key(path, "a"), create_key(path, "b")]
    server = keyed_server(model_parts, path)
    for wrong in (None, "sk-oneiros-wrong", secrets[0][:-1]):
        response = await chat(server, wrong)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["type"] == "authentication_error"
    for secret in secrets:
        assert (await chat(server, secret)).status_code == 200
    one, other = (request.principal for request in server.service.requests)
    assert one != other
    async with server.client() as client:
        assert (await client.get("/health")).status_code == 200
        for closed in ("/metrics", "/v1/models", "/nothing"):
            assert (await client.get(closed)).status_code == 401


@pytest.mark.anyio
@pytest.mark.parametrize("running", [True, False])
async def test_revoking_the_last_key_lets_nobody_in(
    model_parts: LocalModel, path: Path, clock: Clock, running: bool
) -> None:
    secret = create_key(path, "a")
    ring = KeyRing(path, clock)
    revoke_key(path, "a")
    ring = ring if running else KeyRing(path, clock)
    clock.now += 2
    server = fake_server(model_parts, Settings(keys=ring))
    for key in (None, secret):
        assert (await chat(server, key)).status_code == 401


@pytest.mark.anyio
@pytest.mark.parametrize("there_at_first", [True, False])
async def test_a_file_that_disappears_lets_nobody_in(
    model_parts: LocalModel, path: Path, clock: Clock, there_at_first: bool
) -> None:
    if there_at_first:
        create_key(path, "a")
    ring = KeyRing(path, clock)
    server = fake_server(model_parts, Settings(keys=ring))
    if not there_at_first:
        assert (await chat(server, None)).status_code == 200
        create_key(path, "a")
        clock.now += 2
        assert (await chat(server, None)).status_code == 401
    path.unlink()
    for _ in range(2):
        clock.now += 2
        assert (await chat(server, None)).status_code == 401
    # A server that is started now finds no file.
    again = fake_server(model_parts, Settings(keys=KeyRing(path)))
    assert (await chat(again, None)).status_code == 200


@pytest.mark.anyio
async def test_a_keys_class_is_the_best_priority_of_its_requests(
    model_parts: LocalModel, path: Path
) -> None:
    secret = create_key(path, "batch", priority="background")
    server = keyed_server(model_parts, path)
    for asked in (None, 0, BACKGROUND + 5):
        assert (await chat(server, secret, priority=asked)).status_code == 200
    priorities = [request.priority for request in server.service.requests]
    assert priorities == [BACKGROUND, BACKGROUND, BACKGROUND + 5]


@pytest.mark.anyio
async def test_requests_beyond_the_limit_are_told_when_to_come_back(
    model_parts: LocalModel, path: Path
) -> None:
    secret, free = create_key(path, "a", requests_per_minute=2), create_key(path, "b")
    server = keyed_server(model_parts, path)
    first = await chat(server, secret)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    await chat(server, secret)
    refused = await chat(server, secret)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert (await chat(server, free)).status_code == 200  # everybody has limits of their own


@pytest.mark.anyio
async def test_tokens_of_prompts_and_replies_are_counted(
    model_parts: LocalModel, path: Path
) -> None:
    secret = create_key(path, "a", tokens_per_minute=50)
    server = keyed_server(model_parts, path)
    usage = (await chat(server, secret)).json()["usage"]
    response = await chat(server, secret, stream=True)
    left = 50 - usage["total_tokens"] - usage["prompt_tokens"]
    assert int(response.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(
        max(0, left), abs=2
    )
    assert (await chat(server, secret)).status_code == 429


@pytest.mark.anyio
async def test_a_request_that_was_refused_costs_no_tokens(
    model_parts: LocalModel, path: Path
) -> None:
    secret = create_key(path, "a", tokens_per_minute=50)
    server = keyed_server(model_parts, path)
    server.service.error = OverloadedError("full")
    for _ in range(5):
        response = await chat(server, secret)
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "overloaded"
        assert response.headers["x-ratelimit-remaining-tokens"] == "50"
