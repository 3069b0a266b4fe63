import httpx
import pytest

from tests.server.conftest import NAME, FakeServer
from tests.server.streams import events_of

pytestmark = pytest.mark.anyio

URL = "/v1/completions"


async def complete(client: httpx.AsyncClient, **fields: object) -> dict:
    response = await client.post(URL, json={"model": NAME, "prompt": "Once upon", **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_text_is_continued(server: FakeServer, client: httpx.AsyncClient) -> None:
    body = await complete(client)
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "Hello there, friend.", "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["total_tokens"] == 7
    (request,) = server.service.requests
    assert list(request.prompt) == server.tokenizer.prompt_ids("Once upon")
    assert request.end_ids == server.tokenizer.end_ids
    assert request.sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ([5, 6, 7], [(5, 6, 7)]),
        ([[5, 6], [7]], [(5, 6), (7,)]),
        (["ab", "cd"], ["ab", "cd"]),
        ("", [(1,)]),  # what begins a document
    ],
)
async def test_prompts_come_as_texts_or_tokens_one_or_many(
    server: FakeServer, client: httpx.AsyncClient, prompt: object, prompts: list
) -> None:
    body = await complete(client, prompt=prompt, n=2)
    expected = [
        tuple(server.tokenizer.prompt_ids(each)) if isinstance(each, str) else each
        for each in prompts
        for _ in range(2)
    ]
    assert [request.prompt for request in server.service.requests] == expected
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(prompts)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, expected[::2]))


async def test_many_prompts_wait_for_each_other(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    body = await complete(client, prompt=["a"] * 100)
    assert len(body["choices"]) == 100
    assert server.service.running == 0


async def test_echo_puts_the_prompt_before_the_reply(client: httpx.AsyncClient) -> None:
    (choice,) = (await complete(client, echo=True))["choices"]
    assert choice["text"] == "Once uponHello there, friend."
    response = await client.post(
        URL, json={"model": NAME, "prompt": "Once upon", "echo": True, "stream": True}
    )
    texts = [chunk["choices"][0]["text"] for chunk in events_of(response.text)]
    assert "".join(texts) == choice["text"]


@pytest.mark.parametrize("max_tokens", [0, 1])
async def test_a_prompt_is_scored_token_by_token(
    server: FakeServer, client: httpx.AsyncClient, max_tokens: int
) -> None:
    text = "The cat sat."
    fields = {"echo": True, "logprobs": 1, "max_tokens": max_tokens, "temperature": 0}
    body = await complete(client, prompt=text, **fields)
    (choice,) = body["choices"]
    scores = choice["logprobs"]
    ids = server.tokenizer.prompt_ids(text)
    count = len(ids) + max_tokens
    assert {name: len(values) for name, values in scores.items()} == {
        "tokens": count,
        "token_logprobs": count,
        "top_logprobs": count,
        "text_offset": count,
    }
    assert scores["token_logprobs"][0] is scores["top_logprobs"][0] is None
    assert all(value < 0 for value in scores["token_logprobs"][1:])
    assert "".join(scores["tokens"]) == choice["text"]
    ends = [*scores["text_offset"][1:], len(choice["text"])]
    for token, start, end in zip(scores["tokens"], scores["text_offset"], ends, strict=True):
        assert choice["text"][start:end] == token
    for token, top in zip(scores["tokens"][1:], scores["top_logprobs"][1:], strict=True):
        assert token in top
    assert body["usage"]["completion_tokens"] == max_tokens


async def test_scoring_has_a_last_token_even_where_the_model_would_stop(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.service.ids = [min(server.tokenizer.end_ids)]
    body = await complete(client, prompt="A b", echo=True, logprobs=0, max_tokens=1)
    assert server.service.requests[0].end_ids == frozenset()
    (choice,) = body["choices"]
    assert len(choice["logprobs"]["tokens"]) == 3
    assert choice["text"] == "A b"


async def test_logprobs_of_a_stream_are_those_of_the_whole(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.says("naïve 你好")
    (choice,) = (await complete(client, logprobs=2))["choices"]
    response = await client.post(
        URL, json={"model": NAME, "prompt": "Once upon", "logprobs": 2, "stream": True}
    )
    pieces = [chunk["choices"][0]["logprobs"] for chunk in events_of(response.text)]
    for name, values in choice["logprobs"].items():
        assert [value for piece in pieces if piece for value in piece[name]] == values


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [49152]}, "prompt"),
        ({"prompt": ["x"] * 257}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1, "echo": True, "stream": True}, "stream"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict, param: str
) -> None:
    response = await client.post(URL, json={"model": NAME, "prompt": "x", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
