"""The default model, whatever it draws, writes arguments and calls that are valid."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.replies import Completed, ReplyStream
from oneiros.engine.requests import ConstraintSpec, Finished, GenerationRequest, Tokens
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.scheduler import SchedulerSettings
from oneiros.engine.service import EngineService, ThreadedEngine
from oneiros.model.tool_calls import tool_call_format
from oneiros.model.tool_prompts import with_tools
from tests.engine.tool_schemas import UNSUPPORTED, JsonObject, functions, servers, validate

MOST_TOKENS = 256
AT_ONCE = 16


@pytest.fixture
def compiler(model: LanguageModel) -> ConstraintCompiler:
    return ConstraintCompiler(model.tokenizer, model.engine.vocabulary, model.tokenizer.end_ids)


@pytest.fixture
def service(
    model: LanguageModel, compiler: ConstraintCompiler, tmp_path: Path
) -> Iterator[ThreadedEngine]:
    settings = SchedulerSettings(kv_memory=1 << 30, spool=tmp_path / "spool", max_batch=AT_ONCE)
    engine = ThreadedEngine(model.engine, compiler, None, settings)
    yield engine
    asyncio.run(engine.close())


def request(
    model: LanguageModel, messages: list[JsonObject], constraint: ConstraintSpec, seed: int
) -> GenerationRequest:
    """A reply drawn from the whole distribution."""
    chat_format = model.chat_format
    assert chat_format is not None
    sampling = SamplingOptions(
        temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed, max_tokens=MOST_TOKENS
    )
    return GenerationRequest(
        tuple(chat_format.render(messages)),
        sampling,
        model.tokenizer.end_ids,
        constraint=constraint,
    )


async def generate(service: EngineService, wanted: GenerationRequest) -> tuple[list[int], Finished]:
    ids: list[int] = []
    async for output in service.generate(wanted):
        if isinstance(output, Tokens):
            ids += output.ids
        elif isinstance(output, Finished):
            return ids, output
    raise AssertionError("a reply without an end")


async def generate_all(
    service: EngineService, wanted: list[GenerationRequest]
) -> list[tuple[list[int], Finished]]:
    places = asyncio.Semaphore(AT_ONCE)

    async def one(request_: GenerationRequest) -> tuple[list[int], Finished]:
        async with places:
            return await generate(service, request_)

    return await asyncio.gather(*map(one, wanted))


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.long)])
def test_complete_arguments_of_real_tools_are_valid(
    model: LanguageModel, service: ThreadedEngine, count: int
) -> None:
    tools = functions()
    assert len(tools) >= 60
    random.Random(count).shuffle(tools)
    chosen = list(itertools.islice(itertools.cycle(tools), count))
    wanted = [
        request(
            model,
            [
                {
                    "role": "user",
                    "content": f"Make up arguments for {tool['name']} ({tool['description']}).",
                }
            ],
            ConstraintSpec("json_schema", json.dumps(tool["parameters"])),
            seed,
        )
        for seed, tool in enumerate(chosen)
    ]
    complete = 0
    for tool, (ids, finished) in zip(
        chosen, asyncio.run(generate_all(service, wanted)), strict=True
    ):
        assert finished.reason in ("stop", "length")
        if finished.reason == "length":
            assert len(ids) == MOST_TOKENS
            continue
        validate(json.loads(model.tokenizer.decode(ids)), tool["parameters"])
        complete += 1
    assert complete > count / 2


def test_required_calls_among_a_servers_tools_are_valid(
    model: LanguageModel, service: ThreadedEngine
) -> None:
    assert model.chat_format is not None
    style = tool_call_format(model.chat_format.template)
    wanted, offered = [], []
    for seed, tools in enumerate(servers().values()):
        some = [tool for tool in tools if tool["function"]["name"] != UNSUPPORTED][:12]
        ask = {"role": "user", "content": "Use one of the tools."}
        messages, _ = with_tools(style, [ask], some[:2])
        grammar = style.grammar(some, "required", False)
        wanted.append(request(model, messages, ConstraintSpec("lark", grammar), seed))
        offered.append(some)
    complete = 0
    for tools, (ids, finished) in zip(
        offered, asyncio.run(generate_all(service, wanted)), strict=True
    ):
        stream = ReplyStream(model.tokenizer, parser=style.parser(tools, constrained=True))
        *_, end = [*stream.push(Tokens(tuple(ids))), *stream.finish(finished)]
        assert isinstance(end, Completed)
        if finished.reason == "length":
            assert end.reason == "length"
            assert "tool_calls" not in end.message
            continue
        assert end.reason == "tool_calls"
        assert end.message["content"] == ""
        (call,) = end.message["tool_calls"]
        function = call["function"]
        schemas = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
        validate(json.loads(function["arguments"]), schemas[function["name"]])
        complete += 1
    assert complete > len(wanted) / 2
