import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from oneiros.engine.local_model import LocalModel
from oneiros.server import models
from tests.server.asgi import Connection, until
from tests.server.conftest import NAME, FakeServer, fake_server

pytestmark = pytest.mark.anyio

CHAT = {"model": NAME, "messages": [{"role": "user", "content": "Hi!"}]}


async def test_the_models_are_listed_and_described(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == [NAME]
    assert (await client.get(f"/v1/models/{NAME}")).json() == listed["data"][0]
    assert (await client.get("/v1/models/other/name")).status_code == 404


async def test_health_is_that_of_the_engine(
    server: FakeServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.get("/health")).status_code == 200  # nothing is loaded yet
    await client.post("/v1/chat/completions", json=CHAT)
    assert (await client.get("/health")).status_code == 200
    monkeypatch.setattr(models, "_ANSWER_SECONDS", 0.01)
    server.service.healthy = False
    sick = await client.get("/health")
    assert sick.status_code == 503
    assert sick.json()["error"]["code"] == "engine_failed"
    assert (await client.get("/metrics")).status_code == 200  # the rest is still told


async def test_a_server_that_ends_finishes_its_replies_and_takes_no_others(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.service.hold.clear()
    connection = Connection(server.app, "/v1/chat/completions", {**CHAT, "stream": True})
    await until(lambda: b"Hello" in connection.body)
    server.app.state.serving.draining = True
    refused = await client.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert (await client.get("/health")).status_code == 503
    server.service.hold.set()
    await connection.task
    assert connection.body.endswith(b"data: [DONE]\n\n")


async def test_metrics_count_what_happened(server: FakeServer, client: httpx.AsyncClient) -> None:
    for fields in ({}, {"stream": True}, {"model": "other"}):
        await client.post("/v1/chat/completions", json={**CHAT, **fields})
    await client.post("/v1/chat/completions", headers={"host": "evil.example"})
    await client.get("/invented")
    page = await client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }
    assert samples["oneiros_requests_total", "/v1/chat/completions", "200"] == 2
    assert samples["oneiros_requests_total", "/v1/chat/completions", "404"] == 1
    assert samples["oneiros_requests_total", "/v1/chat/completions", "403"] == 1
    assert samples["oneiros_requests_total", "404", "other"] == 1
    assert samples["oneiros_time_to_first_token_seconds_count", NAME] == 2
    assert samples["oneiros_inter_token_seconds_count", NAME] == 8
    assert samples["oneiros_generated_tokens_total", NAME] == 10
    for name in ("requests_waiting", "kv_pages_used", "kv_pages_limit", "kv_pages_cached"):
        assert (f"oneiros_{name}", NAME) in samples
    for name in ("prefix_hit_tokens_total", "restarts_total", "rows_total", "steps_total"):
        assert (f"oneiros_{name}", NAME) in samples


async def test_two_apps_have_metrics_of_their_own(
    model_parts: LocalModel, client: httpx.AsyncClient
) -> None:
    await client.get("/v1/models")
    async with fake_server(model_parts).client() as other:
        assert "/v1/models" not in (await other.get("/metrics")).text
