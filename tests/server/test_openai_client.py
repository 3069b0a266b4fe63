"""The `openai` package, and others that are written for OpenAI's API, against a running server."""

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from tests.server.running import EMBEDDER, MODEL, RunningServer, running_server

QUESTION = [{"role": "user", "content": "Name three colours."}]
NEVER_ENDS = {"0": -100, "2": -100}  # the tokens that would
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def running(default_model_path: Path) -> Iterator[RunningServer]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def client(running: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=running.url, api_key="none", max_retries=0)


def test_a_chat_can_be_repeated_from_its_seed(client: openai.OpenAI) -> None:
    def ask(stream: bool) -> str:
        answer = client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=24, seed=5, stream=stream
        )
        if stream:
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        return answer.choices[0].message.content

    assert ask(stream=False) == ask(stream=True) == ask(stream=False) != ""


def test_a_stream_tells_its_usage_and_what_was_cached(client: openai.OpenAI) -> None:
    text = "List the words that follow: " + "alpha beta gamma delta " * 20
    for expect_cached in (False, True):
        *chunks, last = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            max_tokens=4,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        assert last.usage.completion_tokens <= 4
        assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
        assert (last.usage.prompt_tokens_details.cached_tokens >= 32) is expect_cached
        assert chunks[-1].choices[0].finish_reason in ("length", "stop")


def test_log_probabilities_and_the_greedy_choice_agree(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=8,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    (choice,) = answer.choices
    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content
    for entry in choice.logprobs.content:
        best = max(entry.top_logprobs, key=lambda top: top.logprob)
        assert best.token == entry.token
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1.000001


def test_many_clients_at_once(running: RunningServer) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=16, seed=number, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def ask_all() -> tuple[list[str], str]:
        async with openai.AsyncOpenAI(base_url=running.url, api_key="x") as client:
            together = await asyncio.gather(*(ask(client, number) for number in range(8)))
            return together, await ask(client, 3)

    together, alone = asyncio.run(ask_all())
    assert all(together)
    assert together[3] == alone  # a seed's reply does not depend on the load


def test_a_required_tool_is_called_with_valid_arguments(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "How warm is it in Paris?"}]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=question,
        tools=[WEATHER],
        tool_choice="required",
        parallel_tool_calls=False,  # a model this small may go on with calls until its limit
        max_tokens=200,
        temperature=0,
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    for call in choice.message.tool_calls:
        arguments = json.loads(call.function.arguments)
        assert call.function.name == "get_weather"
        assert set(arguments) == {"city", "unit"}
        assert arguments["unit"] in ("celsius", "fahrenheit")
    # And the conversation goes on with what the tool says.
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
        for call in choice.message.tool_calls
    ]
    said = choice.message.model_dump(exclude_none=True)
    after = client.chat.completions.create(
        model=MODEL,
        messages=[*question, said, *results],
        tools=[WEATHER],
        tool_choice="none",
        max_tokens=8,
        temperature=0,
    )
    assert after.choices[0].message.content
    assert after.choices[0].message.tool_calls is None


def test_tool_calls_can_be_put_together_from_a_stream(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    stream = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice=choice,
        stream=True,
        max_tokens=200,
        temperature=0,
    )
    name, arguments, pieces, reason = "", "", 0, None
    for chunk in stream:
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.index == 0
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
            pieces += 1
        reason = chunk.choices[0].finish_reason
    assert name == "get_weather"
    assert set(json.loads(arguments)) == {"city", "unit"}
    assert pieces > 2  # they came as they were made
    assert reason == "tool_calls"


def test_a_call_that_is_cut_is_no_call(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=[WEATHER], tool_choice="required", max_tokens=8
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls is None


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int
    hobbies: list[Annotated[str, Field(max_length=20)]] = Field(max_length=2)


def test_answers_can_be_parsed_into_pydantic_models(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a person."}],
        response_format=Person,
        max_tokens=300,
        seed=1,
    )
    assert isinstance(completion.choices[0].message.parsed, Person)


def test_an_unsupported_schema_is_refused_with_its_path(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match=r"properties\.a\.not"):
        client.chat.completions.create(model=MODEL, messages=QUESTION, response_format=wanted)


def test_completions_score_texts(client: openai.OpenAI) -> None:
    def score(text: str) -> float:
        answer = client.completions.create(
            model=MODEL, prompt=text, echo=True, logprobs=1, max_tokens=0
        )
        return sum(answer.choices[0].logprobs.token_logprobs[1:])

    assert score("The capital of France is Paris") > score("The capital of France is Banana")


def test_embeddings_put_like_beside_like(client: openai.OpenAI) -> None:
    texts = ["A cat sleeps.", "A kitten is napping.", "Stock markets fell."]
    answer = client.embeddings.create(model=EMBEDDER, input=texts)
    cat, kitten, market = (entry.embedding for entry in answer.data)

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(cat, kitten) > near(cat, market)


def test_errors_are_the_packages_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="context"):
        client.completions.create(model=MODEL, prompt="word " * 9000)


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL, EMBEDDER]
    assert client.models.retrieve(MODEL).id == MODEL


def test_responses_answer_and_stream_alike(client: openai.OpenAI) -> None:
    fields = {
        "model": MODEL,
        "instructions": "Be brief.",
        "input": "Name three colours.",
        "max_output_tokens": 12,
        "temperature": 0,
    }
    whole = client.responses.create(**fields)
    assert whole.output_text
    assert whole.status in ("completed", "incomplete")
    text, last = "", None
    with client.responses.stream(**fields) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            last = event
    assert text == whole.output_text == last.response.output_text
    assert last.response.usage.output_tokens == whole.usage.output_tokens


def test_responses_call_functions_and_take_their_results(client: openai.OpenAI) -> None:
    tool = {"type": "function", **WEATHER["function"], "strict": True}
    question = {"role": "user", "content": "How warm is it in Paris?"}
    with client.responses.stream(
        model=MODEL,
        input=[question],
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
        max_output_tokens=200,
        temperature=0,
    ) as stream:
        deltas = [e for e in stream if e.type == "response.function_call_arguments.delta"]
        first = stream.get_final_response()
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls
    assert "".join(delta.delta for delta in deltas) == "".join(c.arguments for c in calls)
    assert set(json.loads(calls[0].arguments)) == {"city", "unit"}
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
        for call in calls
    ]
    second = client.responses.create(
        model=MODEL,
        input=[
            question,
            *(c.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for c in calls),
            *results,
        ],
        max_output_tokens=8,
        temperature=0,
    )
    assert second.output_text


def test_responses_can_be_parsed(client: openai.OpenAI) -> None:
    response = client.responses.parse(
        model=MODEL,
        input="Invent a person.",
        text_format=Person,
        max_output_tokens=300,
        temperature=0,
    )
    assert isinstance(response.output_parsed, Person)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_everything(running: RunningServer, stream: bool) -> None:
    before = running.metric("generated_tokens_total")
    body = {
        "model": MODEL,
        "prompt": "Count: 1 2 3",
        "max_tokens": 5000,
        "logit_bias": NEVER_ENDS,
        "stream": stream,
    }
    with httpx.Client(base_url=running.address) as client:
        if stream:
            with client.stream("POST", "/v1/completions", json=body) as response:
                next(response.iter_bytes())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/completions", json=body, timeout=httpx.Timeout(30, read=0.5))
    names = ("kv_pages_used", "sequences_running", "requests_waiting")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(running.metric(name) for name in names):
        time.sleep(0.05)
    for name in names:
        assert running.metric(name) == 0
    assert running.metric("generated_tokens_total") < before + 4000


def test_the_llm_command_line_talks_to_it(running: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: dream\n  model_name: {MODEL}\n  api_base: {running.url}\n"
    )
    command = [sys.executable, "-m", "llm", "-m", "dream", "-o", "max_tokens", "12"]
    command += ["-o", "temperature", "0", "Say hello."]
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    for extra in ([], ["--no-stream"]):
        done = subprocess.run(
            command + extra, capture_output=True, text=True, env=environment, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
