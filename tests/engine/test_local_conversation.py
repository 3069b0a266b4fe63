"""Conversations with a model of this machine, whose engine says what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.replies import Completed, Event, TextDelta
from oneiros.engine.requests import ConstraintSpec
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import (
    ConstraintError,
    ContextLengthError,
    ConversationError,
    EngineFailedError,
    ModelFileError,
    ReplyTimeoutError,
)
from oneiros.model.chat_format import ChatFormat, ChatFormatError, GeneratedReply, Message
from oneiros.model.tokenizer import Tokenizer, tokenizer_from_json
from tests.engine.fakes import ScriptedService, scripted_model
from tests.model.tokenizer_builders import byte_level_json
from tests.model.tokenizer_texts import TOKENIZER_DATA

T = TypeVar("T")

HELLO: Message = {"role": "user", "content": "Hello there"}
THANKS: Message = {"role": "user", "content": "Thanks"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_from_json(byte_level_json(tmp_path_factory.mktemp("conversation")))


@pytest.fixture(scope="module")
def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    return template("qwen2.5-chat-template.jinja", tokenizer)


def template(name: str, tokenizer: Tokenizer) -> ChatFormat:
    return ChatFormat((TOKENIZER_DATA / name).read_text(), tokenizer)


def spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text, character by character: others than the tokenizer would give."""
    return [token for character in text for token in tokenizer.encode(character)]


async def reply(
    conversation: Conversation, options: ConversationOptions | None = None
) -> list[Event]:
    return [event async for event in conversation.generate(options)]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


def begun(
    tokenizer: Tokenizer, chat_format: ChatFormat | None, *replies: str | Exception, **of_model: int
) -> tuple[LocalConversation, ScriptedService]:
    model, service = scripted_model(tokenizer, chat_format, **of_model)
    service.replies.extend(
        text if isinstance(text, Exception) else spelled(tokenizer, text) for text in replies
    )
    return LocalConversation(model), service


def test_a_reply_is_events_and_then_a_message(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "Hi!")
    conversation.append(HELLO)
    *deltas, last = run(reply(conversation))
    assert [event.text for event in deltas if isinstance(event, TextDelta)] == ["H", "i", "!"]
    assert isinstance(last, Completed)
    assert last.reason == "stop"
    assert last.usage.generated_tokens == 3
    assert conversation.messages == (HELLO, {"role": "assistant", "content": "Hi!"})
    assert list(service.requests[0].prompt) == chat_format.render([HELLO])


def test_each_prompt_begins_with_the_ids_that_were_generated(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "Hello there", "Hello there", "Bye")

    async def talk() -> None:
        for _ in range(3):
            conversation.append(HELLO)
            await reply(conversation)

    run(talk())
    ids = tuple(spelled(tokenizer, "Hello there"))
    assert list(ids) != tokenizer.encode("Hello there")
    first, second, third = (request.prompt for request in service.requests)
    assert second[: len(first) + len(ids)] == first + ids
    assert third[: len(second) + len(ids)] == second + ids
    assert conversation.tokens == third + tuple(spelled(tokenizer, "Bye"))
    texts = [message["content"] for message in conversation.messages]
    assert texts == ["Hello there"] * 5 + ["Bye"]
    assert tokenizer.decode(third) == tokenizer.decode(
        chat_format.render(conversation.messages[:5])
    )


def test_old_reasoning_goes_where_the_template_drops_it_and_other_replies_keep_their_ids(
    tokenizer: Tokenizer,
) -> None:
    chat_format = template("reasoning-template.jinja", tokenizer)
    thought = "<think>\nA greeting.\n</think>\n\nHello"
    conversation, service = begun(tokenizer, chat_format, "Hello there", thought, "Bye")

    async def talk() -> None:
        for _ in range(3):
            conversation.append(HELLO)
            await reply(conversation)

    run(talk())
    prompt = service.requests[2].prompt
    assert "greeting" not in tokenizer.decode(prompt)
    kept = service.requests[0].prompt + tuple(spelled(tokenizer, "Hello there"))
    assert prompt[: len(kept)] == kept


def test_forks_share_what_was_said_and_go_on_by_themselves(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "Hi!", "left", "right")

    async def talk() -> LocalConversation:
        conversation.append(HELLO)
        await reply(conversation)
        other = conversation.fork()
        conversation.append(THANKS)
        other.append({"role": "user", "content": "And now?"})
        await asyncio.gather(reply(conversation), reply(other))
        return other

    other = run(talk())
    assert conversation.messages[:2] == other.messages[:2]
    assert {conversation.messages[-1]["content"], other.messages[-1]["content"]} == {
        "left",
        "right",
    }
    shared = service.requests[0].prompt + tuple(spelled(tokenizer, "Hi!"))
    assert all(request.prompt[: len(shared)] == shared for request in service.requests[1:])


def test_a_saved_conversation_goes_on_with_the_same_tokens(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, _ = begun(tokenizer, chat_format, "Hi!", "Bye")

    async def begin() -> object:
        conversation.append(HELLO)
        await reply(conversation)
        return json.loads(json.dumps(conversation.save()))

    state = run(begin())
    model, service = scripted_model(tokenizer, chat_format)
    service.replies.append(spelled(tokenizer, "Bye"))
    restored = LocalConversation.restore(model, state)
    assert (restored.messages, restored.tokens) == (conversation.messages, conversation.tokens)
    for each in (conversation, restored):
        each.append(THANKS)
        run(reply(each))
    assert restored.tokens == conversation.tokens
    assert restored.save() == conversation.save()


def test_a_conversation_of_another_tokenizer_template_or_model_is_not_restored(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, _ = begun(tokenizer, chat_format)
    conversation.append(HELLO)
    state = conversation.save()
    model, _ = scripted_model(tokenizer, chat_format)
    for key in ("model", "tokenizer", "template"):
        with pytest.raises(ConversationError, match=f"with the {key} other"):
            LocalConversation.restore(model, {**state, key: "other"})
    with pytest.raises(ConversationError, match="version 2"):
        LocalConversation.restore(model, {**state, "version": 2})
    with pytest.raises(ConversationError, match="not a saved local conversation"):
        LocalConversation.restore(model, {**state, "kind": "remote"})


def test_damaged_states_are_refused(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    conversation, _ = begun(tokenizer, chat_format, "Hi!")
    conversation.append(HELLO)
    run(reply(conversation))
    state = conversation.save()
    model, _ = scripted_model(tokenizer, chat_format)
    damaged: list[dict[str, object]] = [
        {"messages": None},
        {"messages": [{"role": "judge", "content": ""}]},
        {"replies": {"0": {"text": "", "ids": []}}},
        {"replies": {"x": {"text": "", "ids": []}}},
        {"replies": {"1": {"text": "Hi!", "ids": [10**9]}}},
        {"replies": {"1": {"ids": []}}},
        {"read": {"count": 1, "tokens": [], "tools": []}},
        {"read": {"count": 2, "tokens": [1, 2], "tools": []}},
        {"read": {"count": 2, "tokens": ["1"], "tools": []}},
        {"read": {"count": 0}},
        {"read": []},
    ]
    for damage in damaged:
        with pytest.raises(ConversationError):
            LocalConversation.restore(model, {**state, **damage})
    with pytest.raises(ConversationError):
        LocalConversation.restore(model, {k: v for k, v in state.items() if k != "replies"})


def test_evicted_messages_leave_a_mark_and_replies_after_it_keep_their_ids(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "First", "Second", "Third")

    async def talk() -> tuple[Message, ...]:
        for _ in range(2):
            conversation.append(HELLO)
            await reply(conversation)
        evicted = conversation.evict(range(2))
        conversation.append(THANKS)
        await reply(conversation)
        return evicted

    evicted = run(talk())
    assert evicted == (HELLO, {"role": "assistant", "content": "First"})
    assert [message["content"] for message in conversation.messages] == [
        "[2 messages were moved out of this conversation.]",
        "Hello there",
        "Second",
        "Thanks",
        "Third",
    ]
    prompt = service.requests[2].prompt
    assert "First" not in tokenizer.decode(prompt)
    assert "[2 messages were moved out of this conversation.]" in tokenizer.decode(prompt)
    kept = tuple(spelled(tokenizer, "Second"))
    assert any(prompt[at : at + len(kept)] == kept for at in range(len(prompt)))


def test_evicting_everything_but_the_last_question_is_possible_and_the_mark_may_say_more(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "Hi!", "Bye")
    conversation.append(HELLO)
    run(reply(conversation))
    conversation.append(THANKS)
    conversation.evict(range(2), {"role": "system", "content": "They greeted each other."})
    run(reply(conversation))
    assert "They greeted each other." in tokenizer.decode(service.requests[1].prompt)
    assert [message["role"] for message in conversation.messages] == ["system", "user", "assistant"]


def test_what_cannot_be_evicted_stays(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    conversation, _ = begun(tokenizer, chat_format)
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages: list[Message] = [
        HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_call_id": "1"},
    ]
    for message in messages:
        conversation.append(message)
    for span in (range(4), range(1, 1), range(-1, 2), range(0, 3, 2)):
        with pytest.raises(ConversationError, match="cannot be evicted"):
            conversation.evict(span)
    for span in (range(2), range(2, 3)):
        with pytest.raises(ConversationError, match="tool's result"):
            conversation.evict(span)
    assert list(conversation.messages) == messages


def test_a_template_that_refuses_the_mark_leaves_the_conversation_as_it_was(
    tokenizer: Tokenizer,
) -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    conversation, _ = begun(tokenizer, ChatFormat(source, tokenizer), "Hi!")
    conversation.append(HELLO)
    run(reply(conversation))
    before = conversation.save()
    with pytest.raises(ChatFormatError, match="no system"):
        conversation.evict(range(1), {"role": "system", "content": "gone"})
    assert conversation.save() == before


def test_messages_that_do_not_fit_change_nothing(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "Hi!", context=120)
    conversation.append(HELLO)
    run(reply(conversation))
    before = conversation.save()
    with pytest.raises(ContextLengthError, match="the context 120:"):
        conversation.append({"role": "user", "content": "word " * 200})
    assert conversation.save() == before
    conversation.append(THANKS)
    tool = {"type": "function", "function": {"name": "x", "description": "word " * 200}}
    before = conversation.save()
    with pytest.raises(ContextLengthError):
        run(reply(conversation, ConversationOptions(tools=(tool,))))
    assert conversation.save() == before
    assert len(service.requests) == 1


def test_there_must_be_room_for_one_token_of_the_reply(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    length = len(chat_format.render([HELLO]))
    fitting, _ = begun(tokenizer, chat_format, context=length + 1)
    fitting.append(HELLO)
    full, _ = begun(tokenizer, chat_format, context=length)
    with pytest.raises(ContextLengthError, match="1 too many"):
        full.append(HELLO)


def test_closing_the_iterator_cancels_and_keeps_what_was_said(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "A long story", "Fine")

    async def talk() -> None:
        conversation.append(HELLO)
        async with aclosing(conversation.generate()) as events:
            async for _ in events:
                if len(service.requests) == 1 and service.running:
                    break
        assert service.running == 0
        assert conversation.messages[-1] == {"role": "assistant", "content": "A"}
        conversation.append(THANKS)
        await reply(conversation)

    run(talk())
    said = service.requests[0].prompt + tuple(spelled(tokenizer, "A"))
    assert service.requests[1].prompt[: len(said)] == said


def test_a_cancelled_task_frees_the_engine_and_leaves_the_conversation_usable(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "never", "Fine")

    async def talk() -> None:
        conversation.append(HELLO)
        service.pause = asyncio.get_running_loop().create_future
        task = asyncio.create_task(reply(conversation))
        while not service.running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.running == 0
        assert conversation.messages == (HELLO,)
        service.pause = None
        await reply(conversation)

    run(talk())
    assert conversation.messages[-1]["content"] == "Fine"


def test_one_reply_at_a_time(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    conversation, service = begun(tokenizer, chat_format, "Hi!", "Hi!")

    async def talk() -> None:
        conversation.append(HELLO)
        async with aclosing(conversation.generate()) as events:
            await anext(events)
            with pytest.raises(ConversationError, match="is being generated"):
                await reply(conversation)
            with pytest.raises(ConversationError, match="is being generated"):
                conversation.append(THANKS)
            with pytest.raises(ConversationError, match="is being generated"):
                conversation.evict(range(1))
            await reply(conversation.fork())
            rest = [event async for event in events]
        assert isinstance(rest[-1], Completed)

    run(talk())
    assert conversation.messages[-1]["content"] == "Hi!"
    assert len(service.requests) == 2


def test_whoever_has_the_last_event_may_go_on(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, _ = begun(tokenizer, chat_format, "Hi!", "Bye")

    async def talk() -> None:
        conversation.append(HELLO)
        events = conversation.generate()
        async for event in events:
            if isinstance(event, Completed):
                break
        conversation.append(THANKS)
        await reply(conversation)
        await events.aclose()

    run(talk())
    assert [message["content"] for message in conversation.messages[1::2]] == ["Hi!", "Bye"]


SAID = st.text(st.sampled_from("ab \n🌌<|im_end|>"), min_size=1, max_size=8)
STEPS = st.one_of(
    st.tuples(st.just("ask"), SAID, SAID, st.sampled_from([None, 1, 3])),  # tokens until closing
    st.tuples(st.just("stop"), SAID, SAID, st.text("ab \n", min_size=1, max_size=2)),
    st.tuples(st.just("evict"), st.integers(0, 5), st.integers(1, 5)),
    st.tuples(st.sampled_from(["fork", "restore"])),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, max_size=8), name=st.sampled_from(["qwen2.5-chat", "reasoning"]))
def test_whatever_happened_a_prompt_is_what_the_template_makes_of_the_replies_ids(
    tokenizer: Tokenizer, steps: list[tuple[Any, ...]], name: str
) -> None:
    chat_format = template(f"{name}-template.jinja", tokenizer)
    model, service = scripted_model(tokenizer, chat_format)
    conversation = LocalConversation(model)

    async def ask(text: str, answer: str, closing: int | None, stop: tuple[str, ...] = ()) -> None:
        message: Message = {"role": "user", "content": text}
        expected = conversation.prompt_tokens(message=message)
        conversation.append(message)
        service.replies.append(spelled(tokenizer, answer))
        before = conversation.save()["replies"]
        assert isinstance(before, dict)
        replies = {
            int(index): GeneratedReply(reply["text"], tuple(reply["ids"]))
            for index, reply in before.items()
        }
        messages = conversation.messages
        options = ConversationOptions(sampling=SamplingOptions(stop=stop))
        async with aclosing(conversation.generate(options)) as events:
            async for _ in events:
                closing = None if closing is None else closing - 1
                if closing == 0:
                    break
        assert service.running == 0
        prompt = service.requests[-1].prompt
        assert list(prompt) == chat_format.render(messages, replies=replies)
        assert expected == len(prompt)
        if len(conversation.messages) > len(messages):
            said = conversation.tokens[len(prompt) :]
            content = conversation.messages[-1]["content"]
            assert tokenizer.decode(said) == content
            assert answer.startswith(content.rstrip("�"))  # it may be closed within a character

    for kind, *of_step in steps:
        match kind:
            case "ask":
                run(ask(*of_step))
            case "stop":
                run(ask(*of_step[:2], None, (of_step[2],)))
            case "evict":
                first = of_step[0]
                last = min(first + of_step[1], len(conversation.messages))
                if first < last:
                    conversation.evict(range(first, last))
            case "fork":
                conversation = conversation.fork()
            case "restore":
                state = json.loads(json.dumps(conversation.save()))
                conversation = LocalConversation.restore(model, state)


def test_there_must_be_something_to_answer(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    conversation, _ = begun(tokenizer, chat_format, "Hi!")
    with pytest.raises(ConversationError, match="nothing to answer"):
        run(reply(conversation))
    conversation.append(HELLO)
    run(reply(conversation))
    with pytest.raises(ConversationError, match="nothing to answer"):
        run(reply(conversation))


def test_an_error_of_the_engine_leaves_the_conversation_as_it_was(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, _ = begun(tokenizer, chat_format, EngineFailedError("gone"), "Hi!")
    conversation.append(HELLO)
    before = conversation.save()
    with pytest.raises(EngineFailedError):
        run(reply(conversation))
    assert conversation.save() == before
    run(reply(conversation))
    assert conversation.messages[-1]["content"] == "Hi!"


def test_a_reply_that_takes_too_long_is_ended(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "never")

    async def talk() -> None:
        conversation.append(HELLO)
        service.pause = asyncio.get_running_loop().create_future
        with pytest.raises(ReplyTimeoutError, match="after 0"):
            await reply(conversation, ConversationOptions(timeout=0.01))
        assert service.running == 0

    run(talk())
    assert conversation.messages == (HELLO,)


def test_a_reply_cut_by_a_stop_text_goes_on_from_what_was_shown(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, "one two three", "Bye")
    options = ConversationOptions(sampling=SamplingOptions(stop=(" two",)))

    async def talk() -> None:
        conversation.append(HELLO)
        await reply(conversation, options)
        assert service.running == 0
        conversation.append(THANKS)
        await reply(conversation)

    run(talk())
    assert conversation.messages[1]["content"] == "one"
    said = service.requests[0].prompt + tuple(spelled(tokenizer, "one"))
    assert service.requests[1].prompt[: len(said)] == said


def test_schemas_and_other_options_reach_the_engine(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    model, service = scripted_model(tokenizer, chat_format)
    service.replies.extend([spelled(tokenizer, "{}"), spelled(tokenizer, "yes")])
    conversation = LocalConversation(model, [HELLO], principal="ann", priority=10)
    schema = {"type": "object"}
    sampling = SamplingOptions(temperature=0.0, max_tokens=5)
    options = ConversationOptions(sampling=sampling, response_schema=schema, top_logprobs=2)
    *deltas, _ = run(reply(conversation, options))
    request = service.requests[0]
    assert (request.principal, request.priority, request.sampling) == ("ann", 10, sampling)
    assert request.constraint == ConstraintSpec("json_schema", '{"type": "object"}')
    assert request.end_ids == tokenizer.end_ids
    assert [
        logprob.token
        for event in deltas
        if isinstance(event, TextDelta)
        for logprob in event.logprobs
    ] == spelled(tokenizer, "{}")
    choice = ConstraintSpec("choice", '["yes", "no"]')
    conversation.append(THANKS)
    run(reply(conversation, ConversationOptions(constraint=choice)))
    assert service.requests[1].constraint == choice


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CALL_TEXT = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
PLAIN = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


@pytest.mark.parametrize("source", ["qwen2.5", PLAIN])
def test_a_tool_is_called_and_its_result_answered_from_the_ids_that_were_generated(
    tokenizer: Tokenizer, chat_format: ChatFormat, source: str
) -> None:
    if source == PLAIN:
        chat_format = ChatFormat(source, tokenizer)
    conversation, service = begun(tokenizer, chat_format, CALL_TEXT, "Noon.")
    options = ConversationOptions(tools=(TOOL,))

    async def talk() -> Completed:
        conversation.append({"role": "user", "content": "What time is it?"})
        last = (await reply(conversation, options))[-1]
        assert isinstance(last, Completed)
        (call,) = last.message["tool_calls"]
        answer: Message = {"role": "tool", "content": "12:00", "tool_call_id": str(call["id"])}
        conversation.append(answer)
        await reply(conversation, options)
        return last

    last = run(talk())
    assert last.reason == "tool_calls"
    first, second = service.requests
    assert '"name":"now"' in tokenizer.decode(first.prompt).replace(" ", "")
    assert first.constraint is not None
    assert first.constraint.kind == "lark"
    called = first.prompt + tuple(spelled(tokenizer, CALL_TEXT))
    assert second.prompt[: len(called)] == called
    assert "12:00" in tokenizer.decode(second.prompt[len(called) :])
    assert conversation.messages[-1]["content"] == "Noon."


def test_other_tools_render_the_conversation_anew_and_keep_its_replies(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, ChatFormat(PLAIN, tokenizer), "Hi!", "Bye")

    async def talk() -> None:
        conversation.append(HELLO)
        await reply(conversation)
        conversation.append(THANKS)
        await reply(conversation, ConversationOptions(tools=(TOOL,)))

    run(talk())
    first, second = (tokenizer.decode(request.prompt) for request in service.requests)
    assert '"now"' in second
    assert '"now"' not in first
    kept, prompt = tuple(spelled(tokenizer, "Hi!")), service.requests[1].prompt
    assert any(prompt[at : at + len(kept)] == kept for at in range(len(prompt)))


def test_the_next_prompt_is_counted_with_its_tools_and_also_where_it_does_not_fit(
    tokenizer: Tokenizer, chat_format: ChatFormat
) -> None:
    conversation, service = begun(tokenizer, chat_format, CALL_TEXT, "Noon.", context=600)
    conversation.append(HELLO)
    offered = ConversationOptions(tools=(TOOL,))
    counts = [conversation.prompt_tokens((TOOL,))]
    run(reply(conversation, offered))
    result: Message = {"role": "tool", "content": "12:00", "tool_call_id": "a"}
    counts.append(conversation.prompt_tokens((TOOL,), result))
    conversation.append(result)
    run(reply(conversation, offered))
    assert counts == [len(request.prompt) for request in service.requests]
    assert conversation.prompt_tokens(message=THANKS) < conversation.prompt_tokens((TOOL,), THANKS)
    long: Message = {"role": "user", "content": "Hello there" * 200}
    assert conversation.prompt_tokens(message=long) > 600
    with pytest.raises(ContextLengthError):
        conversation.append(long)


def test_without_tools_a_call_is_text(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    for options in (None, ConversationOptions(tools=(TOOL,), tool_choice="none")):
        conversation, service = begun(tokenizer, chat_format, CALL_TEXT)
        conversation.append(HELLO)
        last = run(reply(conversation, options))[-1]
        assert isinstance(last, Completed)
        assert last.reason == "stop"
        assert last.message == {"role": "assistant", "content": CALL_TEXT}
        assert service.requests[0].constraint is None


def test_a_model_that_always_thinks_does_so_before_it_answers_in_a_schema(
    tokenizer: Tokenizer,
) -> None:
    source = PLAIN.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
    chat_format = ChatFormat(source, tokenizer)
    text = 'Which one?</think>\n\n{"a": 1}'
    conversation, service = begun(tokenizer, chat_format, text, "yes")
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    conversation.append(HELLO)
    last = run(reply(conversation, ConversationOptions(response_schema=schema)))[-1]
    assert isinstance(last, Completed)
    assert last.message["content"] == '{"a": 1}'
    assert last.message["reasoning_content"] == "Which one?"
    spec = service.requests[0].constraint
    assert spec is not None
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocabulary_size, tokenizer.end_ids)
    state = compiler.compile(spec)
    state.consume(tokenizer.encode(text))
    assert state.accepting
    with pytest.raises(ConstraintError):
        compiler.compile(spec).consume(tokenizer.encode('Hm.</think>{"b": 1}'))
    conversation.append(THANKS)
    choice = ConstraintSpec("choice", '["yes", "no"]')
    last = run(reply(conversation, ConversationOptions(constraint=choice)))[-1]
    assert isinstance(last, Completed)
    assert last.message == {"role": "assistant", "content": "yes"}


def test_calls_of_other_models_are_written_out_where_the_template_ignores_them(
    tokenizer: Tokenizer,
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages: list[Message] = [
        HELLO,
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "content": "noon", "tool_call_id": "1"},
    ]
    model, service = scripted_model(tokenizer, ChatFormat(PLAIN, tokenizer))
    service.replies.append(spelled(tokenizer, "Noon."))
    run(reply(LocalConversation(model, messages)))
    assert f"I look.\n{CALL_TEXT}" in tokenizer.decode(service.requests[0].prompt)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tools": (TOOL,), "response_schema": {}}, "give one of them"),
        ({"response_schema": {}, "constraint": ConstraintSpec("regex", "a")}, "give one of them"),
        ({"tool_choice": "later", "tools": (TOOL,)}, "auto, none, now, required"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": ({"type": "function"},)}, "has no name"),
        ({"timeout": 0.0}, "above 0 seconds"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConversationError, match=why):
        ConversationOptions(**options)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "judge", "content": "no"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": b"bytes"},
        "no message",
    ],
)
def test_what_is_no_message_is_refused(
    tokenizer: Tokenizer, chat_format: ChatFormat, message: Any
) -> None:
    conversation, _ = begun(tokenizer, chat_format)
    with pytest.raises(ConversationError):
        conversation.append(message)
    assert conversation.messages == ()


def test_messages_are_copied(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    conversation, _ = begun(tokenizer, chat_format)
    message: Message = {"role": "user", "content": "Hello"}
    conversation.append(message)
    message["content"] = "Goodbye"
    assert conversation.messages[0]["content"] == "Hello"


def test_a_base_model_holds_no_conversations(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelFileError, match="no chat template"):
        begun(tokenizer, None)
