import httpx
import pytest

from tests.server.conftest import NAME, FakeServer

pytestmark = pytest.mark.anyio


async def test_a_text_goes_to_tokens_and_back(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    text = "Strawberry <|im_end|> 你好"
    response = await client.post(
        "/tokenize", json={"model": NAME, "prompt": text, "return_token_strs": True}
    )
    body = response.json()
    assert body["tokens"] == server.tokenizer.prompt_ids(text)
    assert body["count"] == len(body["tokens"]) == len(body["token_strs"])
    assert body["max_model_len"] == 2048
    back = await client.post("/detokenize", json={"model": NAME, "tokens": body["tokens"]})
    assert back.json() == {"prompt": text}


async def test_a_conversation_is_counted_as_it_is_generated_from(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    messages = [{"role": "user", "content": "Hi!"}]
    tool = {"type": "function", "function": {"name": "add"}}
    for tools in ([], [tool]):
        fields = {"model": NAME, "messages": messages, "tools": tools}
        counted = (await client.post("/tokenize", json=fields)).json()
        await client.post("/v1/chat/completions", json=fields)
        assert tuple(counted["tokens"]) == server.service.requests[-1].prompt


@pytest.mark.parametrize(
    ("url", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [49152]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: httpx.AsyncClient, url: str, fields: dict, param: str
) -> None:
    response = await client.post(url, json={"model": NAME, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
