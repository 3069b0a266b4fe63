"""Conversations on the real engine, with the default model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.replies import Completed
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings

GREEDY = ConversationOptions(sampling=SamplingOptions(temperature=0.0, max_tokens=40))


@pytest.fixture
def settings(default_model_path: Path) -> EngineSettings:
    return EngineSettings(str(default_model_path), threads=2, context=1024, kv_disk=0)


@asynccontextmanager
async def serving(settings: EngineSettings) -> AsyncIterator[LocalModel]:
    model = await start_local_model(settings, child=False)
    try:
        yield model
    finally:
        await model.service.close()


async def ask(
    conversation: Conversation, text: str, options: ConversationOptions = GREEDY
) -> Completed:
    conversation.append({"role": "user", "content": text})
    last = [event async for event in conversation.generate(options)][-1]
    assert isinstance(last, Completed)
    return last


async def idle(model: LocalModel) -> None:
    """Wait until the engine has nothing left to do: cancelling takes it a moment."""
    async with asyncio.timeout(20):
        while (now := await model.service.statistics()).running or now.pages_used:
            await asyncio.sleep(0.01)


def test_a_conversation_says_what_a_chat_in_process_says_and_reads_only_what_is_new(
    settings: EngineSettings, model: LanguageModel
) -> None:
    questions = ["Name a colour.", "And another one.", "Which of the two is warmer?"]

    async def talk() -> None:
        async with serving(settings) as local:
            conversation = LocalConversation(local)
            chat = model.chat()
            known = 0
            for question in questions:
                last = await ask(conversation, question)
                assert last.message["content"] == "".join(chat.send(question, GREEDY.sampling))
                # What was read before is found again, but for a page that is not full.
                assert last.usage.cached_tokens > known - PAGE_TOKENS
                assert last.usage.cached_tokens <= known
                known = len(conversation.tokens)
                assert known == last.usage.prompt_tokens + last.usage.generated_tokens
            assert [*conversation.messages] == chat.messages
            await idle(local)

    asyncio.run(talk())


def test_forks_find_what_was_said_and_diverge(settings: EngineSettings) -> None:
    async def talk() -> None:
        async with serving(settings) as local:
            conversation = LocalConversation(local)
            await ask(conversation, "Tell me about the sea, please.")
            said = conversation.tokens
            forks = [conversation.fork() for _ in range(3)]
            asked = ["Its colour?", "Its salt?", "Its fish?"]
            replies = await asyncio.gather(*map(ask, forks, asked))
            assert all(last.usage.cached_tokens > len(said) - PAGE_TOKENS for last in replies)
            assert all(fork.tokens[: len(said)] == said for fork in forks)
            assert len({fork.tokens for fork in forks}) == 3
            assert conversation.tokens == said
            await idle(local)

    asyncio.run(talk())


def test_a_saved_conversation_goes_on_in_another_engine_with_the_same_tokens(
    settings: EngineSettings,
) -> None:
    sampled = ConversationOptions(sampling=SamplingOptions(seed=7, max_tokens=30))

    async def begin() -> tuple[str, tuple[int, ...]]:
        async with serving(settings) as local:
            conversation = LocalConversation(local)
            await ask(conversation, "Tell me a story about a fox.", sampled)
            state = json.dumps(conversation.save())
            await ask(conversation, "Go on.", sampled)
            return state, conversation.tokens

    async def go_on(state: str) -> tuple[int, ...]:
        async with serving(settings) as local:
            conversation = LocalConversation.restore(local, json.loads(state))
            await ask(conversation, "Go on.", sampled)
            return conversation.tokens

    state, tokens = asyncio.run(begin())
    assert asyncio.run(go_on(state)) == tokens


def test_closing_a_reply_frees_everything_and_the_conversation_goes_on(
    settings: EngineSettings,
) -> None:
    async def talk() -> None:
        async with serving(settings) as local:
            conversation = LocalConversation(local)
            conversation.append({"role": "user", "content": "Count to one thousand."})
            async with aclosing(conversation.generate(GREEDY)) as events:
                for _ in range(5):
                    await anext(events)
            await idle(local)
            assert conversation.messages[-1]["role"] == "assistant"
            said = conversation.tokens
            last = await ask(conversation, "Thanks, that is enough.")
            assert conversation.tokens[: len(said)] == said
            assert last.usage.cached_tokens > len(said) - 2 * PAGE_TOKENS
            await idle(local)

    asyncio.run(talk())


def test_a_small_model_calls_a_tool_and_answers_in_a_schema(settings: EngineSettings) -> None:
    tool = {
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
    sampling = SamplingOptions(temperature=0.0, max_tokens=80)
    schema = {
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }

    async def talk() -> None:
        async with serving(settings) as local:
            conversation = LocalConversation(local)
            calling = ConversationOptions(
                sampling=sampling, tools=(tool,), tool_choice="get_weather"
            )
            last = await ask(conversation, "How is the weather in Paris?", calling)
            assert last.reason == "tool_calls"
            (call,) = last.message["tool_calls"]
            function = call["function"]
            assert isinstance(function, dict)
            assert function["name"] == "get_weather"
            assert isinstance(json.loads(function["arguments"])["city"], str)
            conversation.append(
                {"role": "tool", "content": "sunny", "tool_call_id": str(call["id"])}
            )
            free = ConversationOptions(sampling=sampling, response_schema=schema)
            last = await ask(conversation, "Is it sunny there?", free)
            assert list(json.loads(last.message["content"])) == ["sunny"]
            await idle(local)

    asyncio.run(talk())
