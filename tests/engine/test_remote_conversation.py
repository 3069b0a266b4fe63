"""Conversations with endpoints that behave well, and with those that do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import aclosing
from email.utils import formatdate
from itertools import pairwise
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.conversation import ConversationOptions
from oneiros.engine.remote_conversation import RemoteConversation
from oneiros.engine.remote_model import RemoteModel, RetryPolicy, Timing
from oneiros.engine.replies import Completed, Event, ReasoningDelta, TextDelta, ToolCallDelta
from oneiros.engine.requests import ConstraintSpec
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import (
    ContextLengthError,
    ConversationError,
    RemoteError,
    ReplyTimeoutError,
)
from oneiros.model.chat_format import Message
from tests.engine.scripted_server import (
    EVENTS,
    Answer,
    Reset,
    ScriptedServer,
    Stall,
    chunk,
    said,
    scripted_server,
    status,
)

T = TypeVar("T")

HELLO: Message = {"role": "user", "content": "Hello there"}
NOW = 1_800_000_000.0
KEY = "sk-secret-0123"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


class Waits:
    """Time that stands still, and chance that always draws a half."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.timing = Timing(now=lambda: NOW, sleep=self._sleep, uniform=lambda: 0.5)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def reply(
    conversation: RemoteConversation, options: ConversationOptions | None = None
) -> list[Event]:
    return [event async for event in conversation.generate(options)]


def talk(
    *answers: Answer,
    options: ConversationOptions | None = None,
    waits: Waits | None = None,
    messages: tuple[Message, ...] = (HELLO,),
    **of_model: Any,
) -> tuple[list[Event], ScriptedServer, RemoteConversation]:
    """One reply, of a server that gives these answers."""

    async def once() -> tuple[list[Event], ScriptedServer, RemoteConversation]:
        async with scripted_server(*answers) as server:
            timing = (waits or Waits()).timing
            model = RemoteModel(server.base_url, "some-model", timing=timing, **of_model)
            conversation = RemoteConversation(model, messages)
            try:
                return await reply(conversation, options), server, conversation
            finally:
                await model.close()

    return run(once())


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_reply_is_events_and_then_a_message() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    answer = [*said("Hi", "!", done=False), last, b"data: [DONE]\n\n"]
    events, server, conversation = talk(answer)
    assert events[:-1] == [TextDelta("Hi"), TextDelta("!")]
    completed = events[-1]
    assert isinstance(completed, Completed)
    assert completed.reason == "stop"
    assert completed.message == {"role": "assistant", "content": "Hi!"}
    assert completed.usage.prompt_tokens == 9
    assert completed.usage.cached_tokens == 8
    assert completed.usage.generated_tokens == 2
    assert conversation.messages == (HELLO, completed.message)
    (request,) = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.body["model"] == "some-model"
    assert request.body["messages"] == [HELLO]
    assert request.body["stream_options"] == {"include_usage": True}
    assert "authorization" not in request.headers


def test_options_are_asked_for() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    sampling = SamplingOptions(
        temperature=0.0, top_k=3, seed=7, max_tokens=9, stop=("END",), logit_bias={5: -1.0}
    )
    options = ConversationOptions(
        sampling=sampling, tools=(tool,), tool_choice="add", parallel_tool_calls=False
    )
    _, server, _ = talk(said("x"), options=options, extra={"chat_template_kwargs": {"a": 1}})
    body = server.requests[0].body
    assert body["temperature"] == 0.0
    assert (body["top_k"], body["seed"], body["max_tokens"]) == (3, 7, 9)
    assert (body["stop"], body["logit_bias"]) == (["END"], {"5": -1.0})
    assert body["tools"] == [tool]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    assert body["parallel_tool_calls"] is False
    assert body["chat_template_kwargs"] == {"a": 1}
    assert "min_p" not in body


def test_a_schema_is_asked_for_and_what_the_api_lacks_is_refused() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    _, server, _ = talk(said("{}"), options=ConversationOptions(response_schema=schema))
    asked = server.requests[0].body["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["schema"] == schema
    with pytest.raises(ConversationError, match="regular expressions"):
        talk(options=ConversationOptions(constraint=ConstraintSpec("regex", "a+")))
    with pytest.raises(ConversationError, match="token ids"):
        talk(options=ConversationOptions(top_logprobs=1))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_told_apart_kept_and_not_sent_back(name: str) -> None:
    answer = [EVENTS, chunk({name: "Two "}), chunk({name: "numbers."}), chunk({"content": "3"})]
    events, _, conversation = talk([*answer, chunk({}, "stop"), b"data: [DONE]\n\n"])
    assert events[:-1] == [ReasoningDelta("Two "), ReasoningDelta("numbers."), TextDelta("3")]
    assert conversation.messages[-1]["reasoning_content"] == "Two numbers."
    _, server, _ = talk(said("4"), messages=(*conversation.messages, HELLO))
    assert server.requests[0].body["messages"][1] == {"role": "assistant", "content": "3"}


def call_delta(**fields: Any) -> bytes:
    function = {k: fields.pop(k) for k in ("name", "arguments") if k in fields}
    return chunk({"tool_calls": [{**fields, "function": function}]})


@pytest.mark.parametrize(
    "pieces",
    [
        [  # as the OpenAI API has it
            call_delta(index=0, id="a", type="function", name="add", arguments=""),
            call_delta(index=0, arguments='{"x"'),
            call_delta(index=0, arguments=": 1}"),
            call_delta(index=1, id="b", name="now", arguments="{}"),
        ],
        [  # interleaved, id and name repeated
            call_delta(index=0, id="a", name="add", arguments='{"x"'),
            call_delta(index=1, id="b", name="now", arguments="{"),
            call_delta(index=0, id="a", name="add", arguments=": 1}"),
            call_delta(index=1, id="b", name="now", arguments="}"),
        ],
        [  # without an index
            call_delta(id="a", name="add", arguments='{"x": 1}'),
            call_delta(id="b", name="now", arguments="{"),
            call_delta(arguments="}"),
        ],
        [  # arguments as an object, counted from 1
            call_delta(index=1, id="a", name="add", arguments={"x": 1}),
            call_delta(index=2, id="b", name="now", arguments={}),
        ],
    ],
)
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_tool_calls_of_all_kinds_of_servers(pieces: list[bytes], reason: str) -> None:
    events, _, _ = talk([EVENTS, *pieces, chunk({}, reason), b"data: [DONE]\n\n"])
    completed = events[-1]
    assert isinstance(completed, Completed)
    assert completed.reason == "tool_calls"
    assert completed.message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]
    starts = [event for event in events if isinstance(event, ToolCallDelta) and event.id]
    assert [(start.index, start.name) for start in starts] == [(0, "add"), (1, "now")]


def test_a_call_without_an_id_gets_one_and_its_result_is_sent_back() -> None:
    answer = [EVENTS, call_delta(index=0, name="now", arguments="{}"), chunk({}, "tool_calls")]

    async def once() -> tuple[ScriptedServer, RemoteConversation]:
        async with scripted_server(answer, said("Noon.")) as server:
            model = RemoteModel(server.base_url, "m")
            conversation = RemoteConversation(model, [HELLO])
            await reply(conversation)
            (call,) = conversation.messages[-1]["tool_calls"]
            assert isinstance(call["id"], str)
            conversation.append({"role": "tool", "content": "12:00", "tool_call_id": call["id"]})
            await reply(conversation)
            await model.close()
            return server, conversation

    server, conversation = run(once())
    _, asked, result = server.requests[1].body["messages"]
    assert asked["tool_calls"][0]["id"] == result["tool_call_id"]
    assert conversation.messages[-1]["content"] == "Noon."


def test_calls_that_a_limit_cut_are_not_handed_out() -> None:
    answer = [
        EVENTS,
        call_delta(index=0, id="a", name="now", arguments="{}"),
        call_delta(index=1, id="b", name="add", arguments='{"x": '),
        chunk({}, "length"),
    ]
    events, _, _ = talk(answer)
    completed = events[-1]
    assert isinstance(completed, Completed)
    assert completed.reason == "length"
    assert "tool_calls" not in completed.message


STREAM = b"".join(
    piece
    for piece in (
        b": hello\r\n\r\n",
        *said("One, ", "two: 🌌", done=False)[1:],
        b"event: message\r\ndata: [DONE]\r\n\r\n",
    )
    if isinstance(piece, bytes)
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(sorted))
def test_where_the_network_cuts_the_answer_changes_nothing(cuts: list[int]) -> None:
    pieces = [STREAM[first:last] for first, last in pairwise([0, *cuts, len(STREAM)])]

    class Pieces(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            for piece in pieces:
                yield piece

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Pieces())

    async def once() -> list[Event]:
        model = RemoteModel("http://here/v1", "m", transport=httpx.MockTransport(answer))
        return await reply(RemoteConversation(model, [HELLO]))

    events = run(once())
    assert text_of(events) == "One, two: 🌌"
    assert isinstance(events[-1], Completed)


@pytest.mark.parametrize(
    "answer",
    [
        said("Hi", done=False),  # no [DONE]
        [EVENTS, b'data: {"choices": []}\n\n', *said("Hi")[1:]],
        [EVENTS, b'data: {"choices": [{"delta": null}]}\n\n', *said("Hi")[1:]],
        [EVENTS, *said("Hi")[1:-1], b"data: [DONE]"],  # no empty line at the end
        [*said("Hi"), b"data: what comes after the end is not read\n\n"],
    ],
)
def test_small_departures_are_tolerated(answer: Answer) -> None:
    events, _, _ = talk(answer)
    assert text_of(events) == "Hi"


@pytest.mark.parametrize("failure", [[Reset()], [EVENTS, Reset()], [EVENTS], []])
def test_a_connection_that_breaks_before_the_first_event_is_tried_again(failure: Answer) -> None:
    waits = Waits()
    events, server, _ = talk(failure, failure, said("Hi"), waits=waits)
    assert text_of(events) == "Hi"
    assert len(server.requests) == 3
    assert waits.slept == [0.25, 0.5]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 529])
def test_a_busy_or_broken_server_is_asked_again_later_and_later(code: int) -> None:
    waits = Waits()
    policy = RetryPolicy(attempts=5, first_delay=1.0, longest_delay=3.0)
    failures = [status(code)] * 4
    events, _, _ = talk(*failures, said("Hi"), waits=waits, retries=policy)
    assert text_of(events) == "Hi"
    assert waits.slept == [0.5, 1.0, 1.5, 1.5]
    with pytest.raises(RemoteError, match=f"status {code}") as raised:
        talk(*failures, status(code), said("Hi"), retries=policy)
    assert raised.value.status == code
    assert raised.value.transient


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        (formatdate(NOW + 20, usegmt=True), 20.0),
        (formatdate(NOW - 20, usegmt=True), 0.0),
        ("-3", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
    ],
)
def test_retry_after_is_honoured_in_both_forms(header: str, wait: float) -> None:
    waits = Waits()
    talk(status(429, Retry_After=header), said("Hi"), waits=waits)
    assert waits.slept == [wait + 0.25]


def test_an_error_in_place_of_the_first_event_is_tried_again_where_that_may_help() -> None:
    busy = [EVENTS, b'data: {"error": {"message": "busy", "code": 503}}\n\n']
    events, server, _ = talk(busy, said("Hi"))
    assert text_of(events) == "Hi"
    assert len(server.requests) == 2
    with pytest.raises(RemoteError, match="bad request"):
        talk([EVENTS, b'data: {"error": {"message": "bad request", "code": 400}}\n\n'], said("Hi"))


def test_an_endpoint_that_wants_a_long_pause_is_not_waited_for() -> None:
    waits = Waits()
    with pytest.raises(RemoteError, match="Try again after 3,600 seconds") as raised:
        talk(status(429, Retry_After="3600"), said("Hi"), waits=waits)
    assert raised.value.retry_after == 3600.0
    assert waits.slept == []


@pytest.mark.parametrize(
    ("ending", "why"),
    [
        ([Reset()], "broke the connection off"),
        ([], "the stream ended before the reply did"),
        ([b'data: {"choices": [{"del'], "not JSON"),
        ([b"data: {}x\n\n"], "not JSON"),
        ([b"data: [1]\n\n"], "no JSON object"),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "not JSON"),
        ([b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'], "out of memory"),
        ([b'data: {"error": "overloaded"}\n\n'], "overloaded"),
        ([b'data: {"object": "error", "message": "bad luck"}\n\n'], "bad luck"),
        ([b'data: {"choices": 7}\n\n'], "choices that is not"),
        ([b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'], "content that is not"),
        ([chunk({}, "content_filter")], "content_filter"),
    ],
)
def test_what_breaks_off_after_the_first_event_is_an_error_and_not_tried_again(
    ending: list[Any], why: str
) -> None:
    async def once() -> None:
        answer = [*said("Hi", finish_reason=None, done=False), *ending]
        async with scripted_server(answer, said("again")) as server:
            conversation = RemoteConversation(RemoteModel(server.base_url, "m"), [HELLO])
            seen: list[Event] = []
            with pytest.raises(RemoteError, match=why) as raised:
                async for event in conversation.generate():
                    seen.append(event)
            assert str(raised.value).startswith(server.base_url)
            assert text_of(seen) == "Hi"
            assert len(server.requests) == 1
            assert conversation.messages == (HELLO,)
            assert text_of(await reply(conversation)) == "again"  # it can go on

    run(once())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            status(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
            "Check the key",
        ),
        (status(403, "no"), "Check the key"),
        (status(404, {"detail": "Not Found"}), 'is a model "some-model"'),
        (status(400, {"error": {"message": "top_k is not known"}}), "top_k is not known"),
        (status(422, {"detail": [{"msg": "field required"}]}), "field required"),
        (status(400, {"message": "no such thing", "code": "x"}), "no such thing"),
        (status(400, "x" * 100_000), "xxx"),
        (status(418), "gave no reason"),
        (status(307, Location="http://elsewhere/"), "status 307"),
        (status(200, "<html>", Content_Type="text/html"), "Check that base_url"),
        (status(200, {"error": "no stream"}, Content_Type="application/json"), "no stream"),
    ],
)
def test_refusals_say_where_why_and_what_to_do_and_never_the_key(answer: Answer, why: str) -> None:
    waits = Waits()
    with pytest.raises(RemoteError, match=why) as raised:
        talk(answer, said("Hi"), waits=waits, api_key=KEY)
    message = str(raised.value)
    assert message.startswith("http://127.0.0.1:")
    assert KEY not in message
    assert len(message) < 1000
    assert waits.slept == []


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "code": "context_length_exceeded"},
        {"message": "too long", "code": 400, "type": "exceed_context_size_error"},
        {"message": "This is too long: the maximum context length is 9 tokens", "code": 400},
    ],
)
def test_messages_that_do_not_fit_there_are_that_error(error: dict[str, object]) -> None:
    with pytest.raises(ContextLengthError, match="too long"):
        talk(status(400, {"error": error}))


def test_the_key_comes_from_an_argument_or_a_named_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    for given_as in ({"api_key": KEY}, {"api_key_variable": "SOME_KEY"}):
        _, server, conversation = talk(said("Hi"), **given_as)
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in json.dumps(conversation.save())
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(RemoteError, match="SOME_KEY holds no API key"):
        RemoteModel("http://here/v1", "m", api_key_variable="SOME_KEY")
    with pytest.raises(RemoteError, match="cannot be sent") as raised:
        RemoteModel("http://here/v1", "m", api_key=KEY + "\n")
    assert KEY not in str(raised.value)


def test_no_key_is_taken_from_the_environment_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, server, _ = talk(said("Hi"))
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("address", ["ftp://here/v1", "here:80/v1", "http://", ""])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(RemoteError):
        RemoteModel(address, "m")


def test_credentials_in_the_address_are_not_shown() -> None:
    model = RemoteModel(f"http://user:{KEY}@127.0.0.1:9/v1/?token={KEY}", "m")
    assert model.endpoint == "http://127.0.0.1:9/v1/"


def test_an_address_where_nobody_listens() -> None:
    waits = Waits()

    async def once() -> None:
        async with scripted_server() as server:
            nobody = server.base_url
        model = RemoteModel(nobody, "m", timing=waits.timing, retries=RetryPolicy(attempts=3))
        await reply(RemoteConversation(model, [HELLO]))

    with pytest.raises(RemoteError, match="that a server runs there"):
        run(once())
    assert len(waits.slept) == 2


def test_a_server_that_goes_silent() -> None:
    with pytest.raises(RemoteError, match="sent nothing for 0"):
        talk([EVENTS, Stall()], read_timeout=0.3)


def test_a_reply_that_takes_too_long_closes_its_connection() -> None:
    async def once() -> None:
        async with scripted_server(
            [*said("Hi", finish_reason=None, done=False), Stall()]
        ) as server:
            conversation = RemoteConversation(RemoteModel(server.base_url, "m"), [HELLO])
            with pytest.raises(ReplyTimeoutError):
                await reply(conversation, ConversationOptions(timeout=0.5))
            await asyncio.wait_for(server.gone.wait(), 10)
            assert conversation.messages == (HELLO,)

    run(once())


def test_closing_the_iterator_closes_the_connection_and_keeps_what_was_said() -> None:
    async def once() -> None:
        answer = [*said("Hi", finish_reason=None, done=False), Stall()]
        async with scripted_server(answer) as server:
            conversation = RemoteConversation(RemoteModel(server.base_url, "m"), [HELLO])
            async with aclosing(conversation.generate()) as events:
                assert await anext(events) == TextDelta("Hi")
            await asyncio.wait_for(server.gone.wait(), 10)
            assert conversation.messages[-1] == {"role": "assistant", "content": "Hi"}

    run(once())


def test_a_cancelled_task_closes_the_connection() -> None:
    async def once() -> None:
        async with scripted_server([EVENTS, Stall()]) as server:
            conversation = RemoteConversation(RemoteModel(server.base_url, "m"), [HELLO])
            task = asyncio.create_task(reply(conversation))
            while not server.requests:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.gone.wait(), 10)
            assert conversation.messages == (HELLO,)

    run(once())


def test_forks_go_on_by_themselves_and_saved_ones_elsewhere() -> None:
    async def once() -> None:
        async with scripted_server(said("Hi"), said("left"), said("right")) as server:
            model = RemoteModel(server.base_url, "m")
            conversation = RemoteConversation(model, [HELLO])
            await reply(conversation)
            other = RemoteConversation.restore(model, json.loads(json.dumps(conversation.save())))
            fork = conversation.fork()
            for each in (conversation, other):
                each.append(HELLO)
                await reply(each)
            assert len(fork.messages) == 2
            assert conversation.messages[:3] == other.messages[:3]
            assert other.messages[3]["content"] == "right"
            with pytest.raises(ConversationError, match="with the model m"):
                RemoteConversation.restore(RemoteModel(server.base_url, "n"), fork.save())
            with pytest.raises(ConversationError, match="not a saved remote conversation"):
                RemoteConversation.restore(model, {**fork.save(), "kind": "local"})

    run(once())


def test_evicted_messages_are_not_sent_and_their_mark_is() -> None:
    async def once() -> None:
        async with scripted_server(said("Hi"), said("Bye")) as server:
            conversation = RemoteConversation(RemoteModel(server.base_url, "m"), [HELLO])
            await reply(conversation)
            conversation.evict(range(2))
            conversation.append(HELLO)
            await reply(conversation)
            sent = [message["content"] for message in server.requests[1].body["messages"]]
            assert sent == ["[2 messages were moved out of this conversation.]", "Hello there"]

    run(once())


def test_a_prompt_is_estimated_from_what_the_endpoint_counted_before() -> None:
    usage = {"prompt_tokens": 900, "completion_tokens": 2}
    last = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    answer = [*said("Hi", done=False), last, b"data: [DONE]\n\n"]
    _, _, conversation = talk(answer)
    long: Message = {"role": "user", "content": "The ship left the harbour. " * 20}
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    assert 900 < conversation.prompt_tokens() < 930
    assert 100 < conversation.prompt_tokens(message=long) - conversation.prompt_tokens() < 200
    # With other tools, and after an eviction, it was another prompt that was counted.
    assert 20 < conversation.prompt_tokens((tool,)) < 100
    conversation.evict(range(1))
    assert 20 < conversation.prompt_tokens() < 100
