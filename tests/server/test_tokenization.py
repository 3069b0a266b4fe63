import threading

import httpx
import pytest

from oneiros.engine.local_model import LocalModel
from oneiros.server import chat_prompts
from oneiros.server.chat_prompts import ChatPrompt, Question
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
    "fields",
    [
        {"messages": [{"role": "user", "content": "x" * 30_000}]},
        {"messages": [{"role": "user", "content": ""}] * 2000},
        {
            "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "f", "description": "x" * 30_000}}],
        },
        {
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"enum": ["x" * 30_000]}},
            },
        },
    ],
    ids=["text", "messages", "tools", "schema"],
)
async def test_the_prompts_of_long_requests_are_made_in_a_thread(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, fields: dict
) -> None:
    threads: list[threading.Thread] = []
    make = chat_prompts._chat_prompt

    def noting(model: LocalModel, question: Question) -> ChatPrompt:
        threads.append(threading.current_thread())
        return make(model, question)

    monkeypatch.setattr(chat_prompts, "_chat_prompt", noting)
    response = await client.post("/v1/chat/completions", json={"model": NAME, **fields})
    assert response.status_code == 200
    short = {"model": NAME, "messages": [{"role": "user", "content": "x"}]}
    assert (await client.post("/v1/chat/completions", json=short)).status_code == 200
    assert [thread is threading.main_thread() for thread in threads] == [False, True]


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
