"""Conversations with a model that llama.cpp runs, through the package `xllamacpp`."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from oneiros.engine.conversation import ConversationOptions
from oneiros.engine.llamacpp_conversation import LlamaCppConversation
from oneiros.engine.llamacpp_model import LlamaCppModel
from oneiros.engine.remote_model import RemoteModel
from oneiros.engine.replies import Completed, Event, TextDelta, ToolCallDelta
from oneiros.engine.requests import ConstraintSpec
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import (
    ConstraintError,
    ContextLengthError,
    ConversationError,
    ModelFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from oneiros.model.chat_format import Message
from tests.engine.scripted_server import chunk

QUESTION: Message = {"role": "user", "content": "What is the weather in Paris?"}
CITY: Mapping[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Mapping[str, object] = {
    "type": "function",
    "function": {"name": "weather", "description": "Weather of a city", "parameters": CITY},
}


def options(**chosen: Any) -> ConversationOptions:
    sampling = SamplingOptions(temperature=0, max_tokens=chosen.pop("max_tokens", 40))
    return ConversationOptions(sampling=chosen.pop("sampling", sampling), **chosen)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all tests: connections belong to theirs."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def model(runner: asyncio.Runner, default_model_path: Path) -> Iterator[LlamaCppModel]:
    # One thread: llama.cpp's spin while they wait for each other, which others pay for.
    model = LlamaCppModel(default_model_path, name="smollm2", context=1024, threads=1, parallel=2)
    yield model
    runner.run(model.close())


class Talk:
    """Replies of the model, one after the other."""

    def __init__(self, runner: asyncio.Runner, model: LlamaCppModel) -> None:
        self.runner, self.model = runner, model

    def begin(self, *messages: Message) -> LlamaCppConversation:
        return LlamaCppConversation(self.model, messages or (QUESTION,))

    def reply(
        self, conversation: LlamaCppConversation, chosen: ConversationOptions | None = None
    ) -> list[Event]:
        async def all_events() -> list[Event]:
            return [event async for event in conversation.generate(chosen or options())]

        return self.runner.run(all_events())

    def last(
        self, conversation: LlamaCppConversation, chosen: ConversationOptions | None = None
    ) -> Completed:
        last = self.reply(conversation, chosen)[-1]
        assert isinstance(last, Completed)
        return last


@pytest.fixture(scope="module")
def talk(runner: asyncio.Runner, model: LlamaCppModel) -> Talk:
    return Talk(runner, model)


def test_a_reply_is_streamed_and_becomes_a_message(talk: Talk) -> None:
    conversation = talk.begin()
    events = talk.reply(conversation, options(max_tokens=12))
    *deltas, last = events
    assert len(deltas) > 5
    assert isinstance(last, Completed)
    assert last.reason == "length"
    text = "".join(event.text for event in deltas if isinstance(event, TextDelta))
    assert conversation.messages == (QUESTION, {"role": "assistant", "content": text})
    assert last.usage.generated_tokens == 12
    assert last.usage.prompt_tokens > 20


def test_what_was_read_is_not_read_again(talk: Talk) -> None:
    conversation = talk.begin({"role": "user", "content": "Count: one, two, three. " * 8})
    first = talk.last(conversation, options(max_tokens=4)).usage
    conversation.append({"role": "user", "content": "Go on."})
    second = talk.last(conversation, options(max_tokens=4)).usage
    assert second.cached_tokens >= first.prompt_tokens - 1


def test_a_stop_text_ends_a_reply(talk: Talk) -> None:
    conversation = talk.begin({"role": "user", "content": "Say: one two three"})
    sampling = SamplingOptions(temperature=0, max_tokens=60, stop=("o",))
    last = talk.last(conversation, options(sampling=sampling))
    assert last.reason == "stop"
    assert "o" not in last.message["content"]


def test_a_reply_matches_its_schema(talk: Talk) -> None:
    last = talk.last(talk.begin(), options(response_schema=CITY))
    assert last.reason == "stop"
    found = json.loads(last.message["content"])
    assert found.keys() == {"city"}
    assert len(found["city"]) <= 12


@pytest.mark.parametrize(
    ("spec", "possible"),
    [
        (ConstraintSpec("choice", '["sun/rain", "snow"]'), {"sun/rain", "snow"}),
        (ConstraintSpec("regex", "(1|2)/\n?[ab]"), {"1/a", "1/b", "2/a", "2/b", "1/\na", "2/\nb"}),
        (ConstraintSpec("lark", 'start: "x" ("y" | "z")'), {"xy", "xz"}),
        (ConstraintSpec("json_schema", '{"const": 7}'), {"7"}),
    ],
)
def test_a_reply_matches_its_constraint(
    talk: Talk, spec: ConstraintSpec, possible: set[str]
) -> None:
    last = talk.last(talk.begin(), options(constraint=spec))
    assert last.reason == "stop"
    assert last.message["content"] in possible


@pytest.mark.parametrize("choice", ["required", "weather"])
def test_a_model_whose_template_knows_no_tools_calls_them(talk: Talk, choice: str) -> None:
    conversation = talk.begin()
    chosen = options(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=False, max_tokens=60)
    events = talk.reply(conversation, chosen)
    last = events[-1]
    assert isinstance(last, Completed)
    assert last.reason == "tool_calls"
    (call,) = last.message["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]).keys() == {"city"}
    assert any(isinstance(event, ToolCallDelta) and event.name == "weather" for event in events)

    conversation.append({"role": "tool", "tool_call_id": call["id"], "content": "17 degrees"})
    answer = talk.last(conversation, options(tools=(TOOL,), tool_choice="none", max_tokens=8))
    assert answer.message["content"]


def test_a_call_that_is_cut_is_no_call(talk: Talk) -> None:
    chosen = options(tools=(TOOL,), tool_choice="required", max_tokens=12)
    last = talk.last(talk.begin(), chosen)
    assert last.reason == "length"
    assert "tool_calls" not in last.message


def test_a_fork_goes_on_by_itself(talk: Talk) -> None:
    conversation = talk.begin()
    fork = conversation.fork()
    talk.reply(fork, options(max_tokens=3))
    assert len(conversation.messages) == 1
    assert len(fork.messages) == 2


def test_forks_may_speak_at_once(talk: Talk) -> None:
    forks = [talk.begin().fork() for _ in range(3)]  # more than run at once

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for fork in forks:
                group.create_task(drain(fork))

    async def drain(fork: LlamaCppConversation) -> None:
        async for _ in fork.generate(options(max_tokens=4)):
            pass

    talk.runner.run(together())
    assert [len(fork.messages) for fork in forks] == [2, 2, 2]


def test_a_conversation_goes_on_after_it_was_saved(talk: Talk) -> None:
    conversation = talk.begin()
    talk.reply(conversation, options(max_tokens=4))
    state = json.loads(json.dumps(conversation.save()))
    again = LlamaCppConversation.restore(talk.model, state)
    assert again.messages == conversation.messages
    with pytest.raises(ConversationError, match=r"not a saved llama\.cpp conversation"):
        LlamaCppConversation.restore(talk.model, state | {"kind": "remote"})


def test_messages_can_be_evicted(talk: Talk) -> None:
    conversation = talk.begin(QUESTION, {"role": "assistant", "content": "Sunny."}, QUESTION)
    assert len(conversation.evict(range(2))) == 2
    assert talk.last(conversation, options(max_tokens=3)).usage.generated_tokens == 3


def test_closing_the_iterator_ends_a_reply_and_keeps_what_was_said(talk: Talk) -> None:
    conversation = talk.begin({"role": "user", "content": "Tell a long story."})

    async def first_words() -> str:
        async with aclosing(conversation.generate(options(max_tokens=900))) as events:
            async for event in events:
                assert isinstance(event, TextDelta)
                return event.text
        raise AssertionError("no event")

    said = talk.runner.run(first_words())
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    # Others are not kept waiting by what nobody listens to.
    talk.reply(talk.begin(), options(max_tokens=2))


def test_a_prompt_that_is_being_read_can_be_left(talk: Talk) -> None:
    conversation = talk.begin({"role": "user", "content": "word " * 950})

    async def impatient() -> None:
        async with asyncio.timeout(0.05):
            async for _ in conversation.generate():
                raise AssertionError("this was quick")

    with pytest.raises(TimeoutError):
        talk.runner.run(impatient())
    assert len(conversation.messages) == 1


def test_messages_that_do_not_fit_the_context_are_refused(talk: Talk) -> None:
    conversation = talk.begin({"role": "user", "content": "word " * 2000})
    with pytest.raises(ContextLengthError, match="1024"):
        talk.reply(conversation)
    assert talk.model.context == 1024


@pytest.mark.parametrize(
    "chosen",
    [
        {"response_schema": {"type": "object", "unevaluatedThings": False}},
        {"constraint": ConstraintSpec("lark", "start: nothing")},
        {"constraint": ConstraintSpec("regex", "(")},
        {"constraint": ConstraintSpec("choice", "[]")},
        {"tools": ({"type": "function", "function": {"name": "f", "parameters": {"not": {}}}},)},
    ],
)
def test_what_cannot_be_enforced_is_refused(talk: Talk, chosen: dict[str, Any]) -> None:
    with pytest.raises(ConstraintError):
        talk.reply(talk.begin(), options(**chosen))


def test_log_probabilities_are_refused(talk: Talk) -> None:
    with pytest.raises(ConversationError, match="log-probabilities"):
        talk.reply(talk.begin(), options(top_logprobs=1))


# --- the model -------------------------------------------------------------------------------


def test_only_this_user_reaches_the_server_and_only_with_the_key(model: LlamaCppModel) -> None:
    folder = Path(model._folder.name)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(folder / "llamacpp.sock"))) as client:
        body = {"messages": [QUESTION], "max_tokens": 1}
        assert client.post("http://llama.cpp/v1/chat/completions", json=body).status_code == 401
    assert model._server.listening_address == f"unix://{folder}/llamacpp.sock"  # and no port


def test_files_that_cannot_be_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"missing\.gguf"):
        LlamaCppModel(tmp_path / "missing.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nothing")
    with pytest.raises(ModelFileError, match=r"broken\.gguf: llama\.cpp cannot load it"):
        LlamaCppModel(broken, threads=1)


def test_without_the_package_the_extra_is_named(
    default_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UnsupportedModelError, match=r"pip install 'oneiros\[llamacpp\]'"):
        LlamaCppModel(default_model_path)


@pytest.mark.parametrize("said", ["Paris", '{"city": "Paris"', '{"city": "Paris"} and more'])
def test_a_reply_that_ignores_its_constraint_is_no_reply(said: str) -> None:
    """As llama.cpp gives them where it does not understand a grammar."""

    class Careless(RemoteModel):
        template = ""

    events = chunk({"content": said}) + chunk({}, finish_reason="stop")
    answer = httpx.Response(200, content=events, headers={"content-type": "text/event-stream"})
    careless: Any = Careless(
        "http://x/v1", "careless", transport=httpx.MockTransport(lambda _: answer)
    )
    conversation = LlamaCppConversation(careless, (QUESTION,))

    async def reply() -> list[Event]:
        return [event async for event in conversation.generate(options(response_schema=CITY))]

    with pytest.raises(ConstraintError, match="did not keep to the constraint"):
        asyncio.run(reply())
    assert conversation.messages == (QUESTION,)
