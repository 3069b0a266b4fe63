"""Token ids to events: nothing is lost, whatever is held back and however the ids arrive."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.replies import (
    Completed,
    Event,
    ReasoningDelta,
    ReplyAssembly,
    ReplyStream,
    TextDelta,
    ToolCallDelta,
)
from oneiros.engine.requests import Finished, FinishReason, TokenLogprob, Tokens, Usage
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.model.tool_call_parser import ToolCallParser
from oneiros.model.tool_calls import ToolCallFormat

USAGE = Usage(prompt_tokens=3, cached_tokens=2, generated_tokens=1)


@pytest.fixture(scope="module")
def tokenizer(default_model_path: Path) -> Tokenizer:
    return load_tokenizer(open_parameters(default_model_path))


def reply(
    stream: ReplyStream,
    ids: list[int],
    cuts: list[int] | None = None,
    reason: FinishReason = "stop",
    logprobs: bool = False,
) -> list[Event]:
    """Push ids, cut into Tokens at these places, and finish."""
    borders = [0, *sorted(cuts if cuts is not None else range(1, len(ids))), len(ids)]
    events: list[Event] = []
    for first, last in pairwise(borders):
        piece = tuple(ids[first:last])
        of_each = tuple(TokenLogprob(i, -float(first + n)) for n, i in enumerate(piece))
        events += stream.push(Tokens(piece, of_each if logprobs else ()))
        if stream.stopped:
            break
    return events + stream.finish(Finished(reason, USAGE))


def joined(events: list[Event]) -> tuple[str, tuple[TokenLogprob, ...], Completed]:
    *deltas, last = events
    assert isinstance(last, Completed)
    texts = [event for event in deltas if isinstance(event, TextDelta)]
    return (
        "".join(event.text for event in texts),
        tuple(logprob for event in texts for logprob in event.logprobs),
        last,
    )


def test_a_reply_is_its_text_and_then_its_message(tokenizer: Tokenizer) -> None:
    stream = ReplyStream(tokenizer)
    ids = tokenizer.encode("Rayleigh scattering: 散乱 🌌")
    text, logprobs, last = joined(reply(stream, ids, reason="length"))
    assert text == stream.text == "Rayleigh scattering: 散乱 🌌"
    assert not logprobs
    assert last == Completed("length", {"role": "assistant", "content": text}, USAGE)
    assert stream.token_ids == ids


def test_no_event_holds_half_a_character(tokenizer: Tokenizer) -> None:
    stream = ReplyStream(tokenizer)
    ids = tokenizer.encode("🌌🌌")
    assert len(ids) > 2
    pieces = [event.text for event in reply(stream, ids) if isinstance(event, TextDelta)]
    assert "".join(pieces) == "🌌🌌"
    assert all("�" not in piece for piece in pieces)


def test_a_character_that_a_limit_cut_is_shown_as_damaged_and_stays_as_it_was_generated(
    tokenizer: Tokenizer,
) -> None:
    stream = ReplyStream(tokenizer)
    ids = tokenizer.encode("ok 🌌")[:-1]
    text, _, last = joined(reply(stream, ids, reason="length"))
    assert text == "ok �"
    assert last.reason == "length"
    assert stream.token_ids == ids


def test_a_stop_text_that_begins_in_one_token_and_ends_in_another_cuts_the_reply_before_it(
    tokenizer: Tokenizer,
) -> None:
    stream = ReplyStream(tokenizer, stop=("\nUser:", "never"))
    ids = tokenizer.encode("Four.\nUser: and five?")
    text, logprobs, last = joined(reply(stream, ids, logprobs=True))
    assert text == "Four."
    assert stream.stopped
    assert last.reason == "stop"
    assert last.usage == USAGE
    assert tokenizer.decode([logprob.token for logprob in logprobs]) == "Four."
    assert tokenizer.decode(stream.token_ids) == "Four."


def test_a_stop_text_within_a_token_leaves_the_ids_of_what_was_shown(
    tokenizer: Tokenizer,
) -> None:
    ids = tokenizer.encode("The capital")
    stream = ReplyStream(tokenizer, stop=("pital",))
    text, _, _ = joined(reply(stream, ids))
    assert text == "The ca"
    assert tokenizer.decode(stream.token_ids) == "The ca"
    assert stream.token_ids[0] == ids[0]


def test_a_stop_text_of_one_character_in_many_tokens_takes_all_of_them(
    tokenizer: Tokenizer,
) -> None:
    stream = ReplyStream(tokenizer, stop=("🌌",))
    text, logprobs, _ = joined(reply(stream, tokenizer.encode("a🌌b"), logprobs=True))
    assert text == "a"
    assert len(logprobs) == len(stream.token_ids) == 1


def test_text_held_back_for_a_stop_text_that_does_not_come_is_not_lost(
    tokenizer: Tokenizer,
) -> None:
    stream = ReplyStream(tokenizer, stop=("\n\nEND",))
    ids = tokenizer.encode("one\n\nEN")
    text, logprobs, last = joined(reply(stream, ids, reason="length", logprobs=True))
    assert text == "one\n\nEN"
    assert [logprob.token for logprob in logprobs] == ids
    assert last.reason == "length"


texts = st.text(st.sampled_from([*"ab \n🌌é", "散"]), max_size=24)


@settings(deadline=None)
@given(data=st.data(), text=texts, stops=st.lists(texts.filter(bool), max_size=3))
def test_how_the_ids_arrive_changes_nothing(
    tokenizer: Tokenizer, data: st.DataObject, text: str, stops: list[str]
) -> None:
    ids = tokenizer.encode(text)
    ids = ids[: data.draw(st.integers(0, len(ids)))]
    cuts = data.draw(st.lists(st.integers(0, len(ids)), unique=True))
    one, other = (ReplyStream(tokenizer, stop=tuple(stops)) for _ in range(2))
    expected = joined(reply(one, ids, logprobs=True))
    assert joined(reply(other, ids, cuts, logprobs=True)) == expected
    assert one.token_ids == other.token_ids


@settings(deadline=None)
@given(text=texts, stops=st.lists(texts.filter(bool), max_size=3))
def test_what_is_shown_is_the_text_before_a_stop_text(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    stream = ReplyStream(tokenizer, stop=tuple(stops))
    shown, logprobs, _ = joined(reply(stream, tokenizer.encode(text), logprobs=True))
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert stream.stopped == any(stop in text for stop in stops)
    assert tokenizer.decode(stream.token_ids) == shown
    if not stream.stopped:
        assert shown == text
        assert [entry.token for entry in logprobs] == tokenizer.encode(text)


SHARDS = [
    "<think>", "hm", "</think>", "\n", " ", "It is ", "🌌", "<tool_call>", "</tool_call>", "<tool_",
    '\n{"name": "add", "arguments": {"a": 1}}\n', '{"name": "add", "argu', '{"name": "sub"}',
    "STOP",
]  # fmt: skip
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def parser() -> ToolCallParser:
    hermes = ToolCallFormat("hermes", reasoning="marked")
    return hermes.parser([ADD], new_id=lambda: "call_1")


@settings(deadline=None)
@given(data=st.data(), text=st.lists(st.sampled_from(SHARDS), max_size=12).map("".join))
def test_how_the_ids_arrive_changes_no_event_of_reasoning_and_calls(
    tokenizer: Tokenizer, data: st.DataObject, text: str
) -> None:
    ids = tokenizer.encode(text)
    cuts = data.draw(st.lists(st.integers(0, len(ids)), unique=True))

    def assembled(cuts: list[int]) -> tuple[ReplyAssembly, Completed, list[TokenLogprob]]:
        stream = ReplyStream(tokenizer, stop=("STOP",), parser=parser())
        *deltas, last = reply(stream, ids, cuts, logprobs=True)
        assembly = ReplyAssembly()
        for event in deltas:
            assembly.add(event)
        assert isinstance(last, Completed)
        texts = [event for event in deltas if isinstance(event, TextDelta)]
        return assembly, last, [logprob for event in texts for logprob in event.logprobs]

    one, other = assembled(cuts), assembled([])
    assert one[:2] == other[:2]
    assert one[1].message["content"] == one[0].text
    if "<think>" not in text and "<tool_call>" not in text:
        assert one[2] == other[2]


def test_reasoning_text_and_calls_are_told_apart(tokenizer: Tokenizer) -> None:
    text = (
        "<think>\nOne and two.\n</think>\n\nI add them.\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    )
    stream = ReplyStream(tokenizer, parser=parser())
    events = reply(stream, tokenizer.encode(text), logprobs=True)
    last = events[-1]
    assert stream.text == text
    assert last == Completed(
        "tool_calls",
        {
            "role": "assistant",
            "content": "I add them.",
            "reasoning_content": "One and two.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'},
                }
            ],
        },
        USAGE,
    )
    assert [type(event) for event in events if not isinstance(event, TextDelta)][-2:] == [
        ToolCallDelta,
        Completed,
    ]
    shown = [each for event in events if isinstance(event, TextDelta) for each in event.logprobs]
    assert "add them." in tokenizer.decode([each.token for each in shown])
    assert "arguments" not in tokenizer.decode([each.token for each in shown])


def test_after_a_call_comes_no_empty_text(tokenizer: Tokenizer) -> None:
    made = ToolCallFormat("hermes").parser([ADD], constrained=True)
    text = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    events = reply(ReplyStream(tokenizer, parser=made), tokenizer.encode(text), logprobs=True)
    assert {type(event) for event in events} == {ToolCallDelta, Completed}


def test_a_call_that_a_limit_cut_is_never_handed_out_as_one(tokenizer: Tokenizer) -> None:
    text = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    ids = tokenizer.encode(text)
    for length in range(len(ids) + 1):
        for constrained in (False, True):
            made = ToolCallFormat("hermes").parser([ADD], constrained=constrained)
            stream = ReplyStream(tokenizer, parser=made)
            last = reply(stream, ids[:length], reason="length")[-1]
            assert isinstance(last, Completed)
            assert last.reason == "length"
            assert "tool_calls" not in last.message


CALL = ToolCallDelta(0, "call_1", "add", "")


@pytest.mark.parametrize(
    ("deltas", "ended", "reason", "calls"),
    [
        ([CALL, ToolCallDelta(0, arguments='{"a": 1}')], "stop", "tool_calls", 1),
        ([CALL, ToolCallDelta(0, arguments='{"a": 1}')], "length", "length", 0),
        ([CALL, ToolCallDelta(0, arguments='{"a": ')], "length", "length", 0),
        ([CALL, ToolCallDelta(0, arguments='{"a": ')], "stop", "stop", 0),
        ([CALL, ToolCallDelta(0, arguments="[" * 100_000)], "stop", "stop", 0),
        ([CALL, ToolCallDelta(0, arguments="{}")], "cancelled", "cancelled", 0),
        ([TextDelta("no call")], "stop", "stop", 0),
    ],
)
def test_calls_are_handed_out_only_when_all_are_whole_and_the_reply_ended_by_itself(
    deltas: list[Event], ended: FinishReason, reason: str, calls: int
) -> None:
    assembly = ReplyAssembly()
    for delta in deltas:
        assembly.add(delta)
    last = assembly.completed(ended, USAGE)
    assert last.reason == reason
    assert len(last.message.get("tool_calls", ())) == calls


def test_a_message_holds_reasoning_text_and_calls_in_their_places() -> None:
    assembly = ReplyAssembly()
    for delta in (
        ReasoningDelta("Two "),
        ReasoningDelta("numbers."),
        TextDelta("I add them."),
        CALL,
        ToolCallDelta(1, "call_2", "add", '{"a": 3}'),
        ToolCallDelta(0, arguments="{"),
        ToolCallDelta(0, arguments='"a": 1}'),
    ):
        assembly.add(delta)
    assert assembly.completed("stop", USAGE).message == {
        "role": "assistant",
        "content": "I add them.",
        "reasoning_content": "Two numbers.",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "add", "arguments": '{"a": 1}'},
            },
            {
                "id": "call_2",
                "type": "function",
                "function": {"name": "add", "arguments": '{"a": 3}'},
            },
        ],
    }
