"""Remote conversations with our own server, on a real port, say what local ones say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.remote_conversation import RemoteConversation
from oneiros.engine.remote_model import RemoteModel, RetryPolicy
from oneiros.engine.replies import Completed, TextDelta
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings
from oneiros.errors import ContextLengthError, RemoteError
from oneiros.server.app import create_app
from oneiros.server.lifecycle import address_of, bind
from oneiros.server.model_pool import ModelPool, ModelSource
from oneiros.server.settings import Settings

NAME = "smollm2-135m"
GREEDY = ConversationOptions(sampling=SamplingOptions(temperature=0.0, max_tokens=32))
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[tuple[LocalModel, RemoteModel]]:
    """The default model, directly and through a server."""
    settings = EngineSettings(str(path), threads=2, context=1024, kv_disk=0)
    local = await start_local_model(settings, NAME, child=False)

    async def load() -> LocalModel:
        return local

    app = create_app(ModelPool([ModelSource(NAME, "language", load)]), Settings())
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    remote = RemoteModel(address_of(listener) + "/v1", NAME, retries=RetryPolicy(attempts=1))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield local, remote
    finally:
        await remote.close()
        server.should_exit = True
        await running
        await local.service.close()


async def ask(
    conversation: Conversation, text: str, options: ConversationOptions = GREEDY
) -> Completed:
    conversation.append({"role": "user", "content": text})
    events = [event async for event in conversation.generate(options)]
    last = events[-1]
    assert isinstance(last, Completed)
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert said == last.message["content"]
    return last


def test_a_remote_conversation_says_what_a_local_one_says(default_model_path: Path) -> None:
    async def talk() -> None:
        async with served(default_model_path) as (local_model, remote_model):
            local, remote = LocalConversation(local_model), RemoteConversation(remote_model)
            for question in ("Name a colour.", "Another one. Use an emoji.", "Which is warmer?"):
                here, there = await ask(local, question), await ask(remote, question)
                assert there.message == here.message
                assert there.reason == here.reason
                assert there.usage.prompt_tokens == here.usage.prompt_tokens
                assert there.usage.generated_tokens == here.usage.generated_tokens
            assert there.usage.cached_tokens > 0

    asyncio.run(talk())


def test_tools_and_schemas_work_the_same_way(default_model_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
    calling = ConversationOptions(
        sampling=GREEDY.sampling, tools=(TOOL,), tool_choice="get_weather"
    )
    answering = ConversationOptions(sampling=GREEDY.sampling, response_schema=schema)

    async def talk() -> None:
        async with served(default_model_path) as (local_model, remote_model):
            called = []
            for conversation in (LocalConversation(local_model), RemoteConversation(remote_model)):
                last = await ask(conversation, "How is the weather in Paris?", calling)
                assert last.reason == "tool_calls"
                (call,) = last.message["tool_calls"]
                called.append(call["function"])
                result = {"role": "tool", "content": "sunny", "tool_call_id": call["id"]}
                conversation.append(result)
                last = await ask(conversation, "Is it sunny there?", answering)
                assert list(json.loads(last.message["content"])) == ["sunny"]
            assert called[0] == called[1]

    asyncio.run(talk())


def test_errors_of_the_server_are_those_of_the_conversation(default_model_path: Path) -> None:
    async def talk() -> None:
        async with served(default_model_path) as (_, model):
            conversation = RemoteConversation(model)
            with pytest.raises(ContextLengthError):
                await ask(conversation, "word " * 2000)
            other = RemoteModel(model.endpoint, "no-such-model")
            with pytest.raises(RemoteError, match='a model "no-such-model"') as raised:
                await ask(RemoteConversation(other), "Hello")
            assert raised.value.status == 404
            await other.close()

    asyncio.run(talk())


def test_closing_a_remote_reply_frees_the_engine(default_model_path: Path) -> None:
    async def talk() -> None:
        async with served(default_model_path) as (local_model, remote_model):
            conversation = RemoteConversation(remote_model)
            conversation.append({"role": "user", "content": "Count to one thousand."})
            async with aclosing(conversation.generate()) as events:
                await anext(events)
            async with asyncio.timeout(20):
                while (now := await local_model.service.statistics()).running or now.pages_used:
                    await asyncio.sleep(0.01)

    asyncio.run(talk())
