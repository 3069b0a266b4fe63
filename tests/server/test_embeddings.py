import asyncio
import base64

import httpx
import numpy as np
import pytest

from oneiros.engine.embedding import Embedder, load_embedder
from oneiros.server import embeddings
from oneiros.server.app import create_app
from oneiros.server.model_pool import ModelPool, ModelSource
from oneiros.server.settings import Settings

pytestmark = pytest.mark.anyio

NAME = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder(NAME)


@pytest.fixture
async def client(embedder: Embedder) -> httpx.AsyncClient:
    async def load() -> Embedder:
        return embedder

    app = create_app(ModelPool([ModelSource(NAME, "embedding", load)]), Settings())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def embed(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": NAME, "input": "a cat", **fields})


async def test_vectors_come_as_numbers_or_as_bytes(
    client: httpx.AsyncClient, embedder: Embedder
) -> None:
    expected = embedder.embed(["a cat", "two dogs"])
    body = (await embed(client, input=["a cat", "two dogs"])).json()
    assert [entry["index"] for entry in body["data"]] == [0, 1]
    assert np.array_equal(
        np.array([entry["embedding"] for entry in body["data"]], np.float32), expected
    )
    packed = (await embed(client, input=["a cat", "two dogs"], encoding_format="base64")).json()
    rows = [np.frombuffer(base64.b64decode(e["embedding"]), "<f4") for e in packed["data"]]
    assert np.array_equal(np.array(rows), expected)
    tokens = sum(embedder.count_tokens(["a cat", "two dogs"]))
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


async def test_one_text_gives_one_vector(client: httpx.AsyncClient) -> None:
    body = (await embed(client, dimensions=384)).json()
    assert len(body["data"]) == 1
    assert len(body["data"][0]["embedding"]) == 384


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [1, 2, 3]}, "input[0]"),
        ({"input": [[1, 2]]}, "input[0]"),
        ({"input": ["x"] * 2049}, "input"),
        ({"dimensions": 100}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict, param: str
) -> None:
    response = await embed(client, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_text_that_is_too_long_is_refused(client: httpx.AsyncClient) -> None:
    response = await embed(client, input=["short", "long " * 1000])
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "Text 2 of 2" in error["message"]


async def test_embedding_models_do_not_chat(client: httpx.AsyncClient) -> None:
    body = {"model": NAME, "prompt": "x"}
    response = await client.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"


async def test_many_requests_wait_for_each_other_but_not_without_end(
    client: httpx.AsyncClient, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_MOST_WAITING", 3)
    answers = await asyncio.gather(*(embed(client) for _ in range(10)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 4 + [429] * 6
    assert (await embed(client)).status_code == 200
