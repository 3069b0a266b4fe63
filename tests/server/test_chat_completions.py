import json
from dataclasses import replace

import httpx
import pytest

from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import BACKGROUND, ConstraintSpec
from oneiros.errors import ContextLengthError, EngineFailedError, OverloadedError
from oneiros.model.chat_format import ChatFormat
from oneiros.server.settings import Settings
from tests.server.conftest import NAME, FakeServer, fake_server
from tests.server.streams import events_of

pytestmark = pytest.mark.anyio

URL = "/v1/chat/completions"
HELLO = {"model": NAME, "messages": [{"role": "user", "content": "Hi!"}]}


async def answer(client: httpx.AsyncClient, **fields: object) -> dict:
    response = await client.post(URL, json={**HELLO, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def refusal(client: httpx.AsyncClient, status: int, **fields: object) -> dict:
    response = await client.post(URL, json={**HELLO, **fields})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_a_reply_comes_with_its_usage(server: FakeServer, client: httpx.AsyncClient) -> None:
    server.service.cached_tokens = 3
    body = await answer(client)
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there, friend.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    prompt = len(server.service.requests[0].prompt)
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 5,
        "total_tokens": prompt + 5,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def test_a_stream_says_what_a_whole_answer_says(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    text = 'Übergrößenträger: 你好 \U0001f9d1\u200d\U0001f680 "quoted" \\ <tag>\n\x0b end'
    server.says(text)
    whole = await answer(client)
    response = await client.post(URL, json={**HELLO, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events_of(response.text)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    said = "".join(delta.get("content", "") for delta in deltas)
    assert said == whole["choices"][0]["message"]["content"] == text
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert all("usage" not in chunk for chunk in chunks)


async def test_a_stream_ends_with_the_usage_if_asked(client: httpx.AsyncClient) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    response = await client.post(URL, json={**HELLO, **fields})
    *chunks, last = events_of(response.text)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 10
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_several_choices_have_seeds_of_their_own(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    body = await answer(client, n=3, seed=7)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [request.sampling.seed for request in server.service.requests] == [7, 8, 9]
    # The prompt was read once.
    assert body["usage"]["prompt_tokens"] == len(server.service.requests[0].prompt)


async def test_the_choices_of_a_stream_can_be_told_apart(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json={**HELLO, "stream": True, "n": 3})
    texts = ["", "", ""]
    for chunk in events_of(response.text):
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["Hello there, friend."] * 3


@pytest.mark.parametrize("stop", ["friend", ["xyz", " friend", "end"]])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_text_ends_a_reply_and_the_request(
    server: FakeServer, client: httpx.AsyncClient, stop: object, stream: bool
) -> None:
    server.says("Hello there, friend. And more and more of this.")
    response = await client.post(URL, json={**HELLO, "stop": stop, "stream": stream})
    if stream:
        chunks = [chunk["choices"][0] for chunk in events_of(response.text)]
        text = "".join(choice["delta"].get("content", "") for choice in chunks)
        reason = chunks[-1]["finish_reason"]
    else:
        (choice,) = response.json()["choices"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert text.rstrip() == "Hello there,"
    assert reason == "stop"
    assert server.service.running == 0
    assert server.service.produced < len(server.service.ids)


async def test_a_stop_text_does_not_lose_what_was_cached(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.service.cached_tokens = 7
    usage = (await answer(client, stop="there"))["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 7}
    assert usage["completion_tokens"] == 2


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_reply_that_is_cut_says_so(client: httpx.AsyncClient, field: str) -> None:
    (choice,) = (await answer(client, **{field: 2}))["choices"]
    assert choice["message"]["content"] == "Hello there"
    assert choice["finish_reason"] == "length"


async def test_logprobs_name_each_token_and_its_rivals(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.says("né!")
    body = await answer(client, logprobs=True, top_logprobs=2)
    entries = body["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == "né!"
    assert all(entry["logprob"] == pytest.approx(-0.693147) for entry in entries)
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    response = await client.post(URL, json={**HELLO, "logprobs": True, "stream": True})
    streamed = [
        entry
        for chunk in events_of(response.text)
        for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert [entry["token"] for entry in streamed] == [entry["token"] for entry in entries]


async def test_sampling_fields_reach_the_engine(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": -0.3,
        "repetition_penalty": 1.1,
        "seed": 3,
        "max_tokens": 9,
    }
    await answer(client, **fields, logit_bias={"5": -100, "6": 1.5})
    sampling = server.service.requests[0].sampling
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert dict(sampling.logit_bias) == {5: -100, 6: 1.5}


async def test_content_may_come_in_parts_and_developers_are_the_system(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    parts = [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]
    await answer(
        client,
        messages=[{"role": "developer", "content": parts}, {"role": "user", "content": "Hi!"}],
    )
    await answer(
        client,
        messages=[
            {"role": "system", "content": "Be\nbrief."},
            {"role": "user", "content": "Hi!"},
        ],
    )
    one, other = server.service.requests
    assert one.prompt == other.prompt
    assert "system\nBe\nbrief." in server.tokenizer.decode(one.prompt)


async def test_control_tokens_in_content_stay_text(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    await answer(client, messages=[{"role": "user", "content": "<|im_end|>"}])
    end = server.tokenizer.added_tokens["<|im_end|>"]
    plain = (await answer(client), server.service.requests[-1].prompt.count(end))[1]
    assert server.service.requests[0].prompt.count(end) == plain


async def test_a_schema_becomes_a_constraint(server: FakeServer, client: httpx.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}}
    await answer(client, response_format=wanted)
    await answer(client, response_format={"type": "json_object"})
    await answer(client, response_format={"type": "text"})
    first, second, third = (request.constraint for request in server.service.requests)
    assert first == ConstraintSpec("json_schema", json.dumps(schema))
    assert second == ConstraintSpec("json_schema", '{"type": "object"}')
    assert third is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"audio": {"voice": "x"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"functions": []}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"store": True}, "store"),
        ({"no_such_thing": 1}, "no_such_thing"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].type",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
async def test_what_cannot_be_served_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict, param: str
) -> None:
    error = await refusal(client, 400, **fields)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert param.partition("[")[0].partition(".")[0] in error["message"]


async def test_fields_that_change_nothing_are_accepted(client: httpx.AsyncClient) -> None:
    await answer(
        client,
        user="somebody",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        functions=None,
        modalities=["text"],
    )


async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    error = await refusal(client, 404, model="gpt-4o")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert NAME in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_is_a_429_that_says_when_to_come_back(
    server: FakeServer, client: httpx.AsyncClient, stream: bool
) -> None:
    server.service.error = OverloadedError("512 requests wait already.")
    response = await client.post(URL, json={**HELLO, "stream": stream})
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["error"]["code"] == "overloaded"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long_is_the_clients_mistake(
    server: FakeServer, client: httpx.AsyncClient, stream: bool
) -> None:
    server.service.error = ContextLengthError("The prompt has 9 tokens and the context 8.")
    error = await refusal(client, 400, stream=stream)
    assert error["code"] == "context_length_exceeded"
    assert "9 tokens" in error["message"]


async def test_a_failure_of_the_engine_is_the_servers(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.service.error = EngineFailedError("The engine's process ended.")
    server.service.error_after = 2
    error = await refusal(client, 500)
    assert error["code"] == "engine_failed"


async def test_a_stream_that_fails_midway_ends_with_the_error(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.service.error = EngineFailedError("The engine's process ended.")
    server.service.error_after = 2
    response = await client.post(URL, json={**HELLO, "stream": True})
    assert response.status_code == 200
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == "engine_failed"
    assert "[DONE]" not in response.text
    assert server.service.running == 0


async def test_one_failing_choice_ends_the_others(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    server.service.endless = True
    server.service.error = EngineFailedError("The engine's process ended.")
    server.service.error_after = 3
    await refusal(client, 500, n=4, max_tokens=1000)
    assert server.service.running == 0


async def test_a_request_may_lower_its_priority(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    await answer(client)
    await answer(client, priority=BACKGROUND)
    assert [request.priority for request in server.service.requests] == [0, BACKGROUND]


async def test_a_public_system_prompt_marks_the_tokens_that_it_covers(
    model_parts: LocalModel,
) -> None:
    public = "You answer questions about trains. " * 10
    server = fake_server(model_parts, Settings(public_prompts=(public,)))

    async def public_tokens(system: str, user: str) -> tuple[int, int]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        async with server.client() as client:
            await answer(client, messages=messages)
        request = server.service.requests[-1]
        return request.public_prefix, len(request.prompt)

    covered, length = await public_tokens(public, "When does my train leave?")
    again, _ = await public_tokens(public, "I live at 5 Secret Street.")
    assert covered == again
    text = server.tokenizer.decode(server.service.requests[-1].prompt[:covered])
    assert public.strip() in text
    assert "Secret" not in text
    assert covered < length
    changed, _ = await public_tokens(public.replace("trains", "planes"), "Hi")
    assert changed < covered
    assert "planes" not in server.tokenizer.decode(server.service.requests[-1].prompt[:changed])


async def test_without_declarations_no_token_is_public(
    server: FakeServer, client: httpx.AsyncClient
) -> None:
    await answer(client)
    assert server.service.requests[0].public_prefix == 0


async def test_a_base_model_has_no_chats(model_parts: LocalModel) -> None:
    base = replace(model_parts, chat_format=None)
    async with fake_server(base).client() as client:
        error = await refusal(client, 400)
    assert "/v1/completions" in error["message"]


async def test_reasoning_is_told_from_the_answer(model_parts: LocalModel) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    thinking = replace(model_parts, chat_format=ChatFormat(template, model_parts.tokenizer))
    server = fake_server(thinking)
    server.says('They greet me.\n</think>\n\n{"a": 1}')
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    async with server.client() as client:
        for fields in ({}, {"response_format": schema}):
            body = await answer(client, **fields)
            (choice,) = body["choices"]
            assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 4
            assert choice["message"]["reasoning_content"].strip() == "They greet me."
            assert choice["message"]["content"].strip() == '{"a": 1}'
        response = await client.post(URL, json={**HELLO, "stream": True})
    deltas = [chunk["choices"][0]["delta"] for chunk in events_of(response.text)]
    thought = "".join(delta.get("reasoning_content", "") for delta in deltas)
    said = "".join(delta.get("content") or "" for delta in deltas)
    assert (thought.strip(), said.strip()) == ("They greet me.", '{"a": 1}')
    constraint = server.service.requests[1].constraint
    assert constraint is not None
    assert "</think>" in constraint.value
