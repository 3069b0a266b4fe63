"""Server-sent events arrive whole, however the network cuts them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.engine.server_sent_events import LONGEST_EVENT, EventParser


def parsed(stream: bytes, cuts: list[int] | None = None) -> list[str]:
    parser = EventParser()
    events: list[str] = []
    for first, last in pairwise([0, *sorted(cuts or []), len(stream)]):
        events += parser.push(stream[first:last])
    return events + parser.flush()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"data:one\r\n\r\ndata:  two\r\n\r\n", ["one", " two"]),
        (b"data: one\r\rdata: two\r\r", ["one", "two"]),
        (b"data: first\ndata: second\n\n", ["first\nsecond"]),
        (b"data: first\r\ndata\r\ndata:\r\n\r\n", ["first\n\n"]),
        (b": keep-alive\n\n:\n\ndata: one\n: between\ndata: more\n\n", ["one\nmore"]),
        (b"event: error\nid: 7\nretry: 10\nunknown: x\ndata: one\n\n", ["one"]),
        (b"event: ping\n\n\n\n", []),
        (b"\xef\xbb\xbfdata: one\n\n", ["one"]),
        (b"data: without an empty line", ["without an empty line"]),
        (b"data: one\n\ndata: [DONE]\n", ["one", "[DONE]"]),
        ("data: 散乱 🌌\n\n".encode(), ["散乱 🌌"]),
        (b"data: \xff\n\n", ["�"]),
        (b'data: {"a": "x\x0by\xc2\x85z"}\n\n', ['{"a": "x\x0by\x85z"}']),
        (b"", []),
    ],
)
def test_events_are_their_data(stream: bytes, events: list[str]) -> None:
    assert parsed(stream) == events
    assert parsed(stream, list(range(len(stream)))) == events  # one byte at a time


lines = st.lists(
    st.sampled_from(
        [b"data: ", b"data:", b": ", b"event: x", b"a", "é🌌".encode(), b"\n", b"\r", b"\r\n", b""]
    ),
    max_size=30,
).map(b"".join)


@given(data=st.data(), stream=lines)
def test_where_the_stream_is_cut_changes_nothing(data: st.DataObject, stream: bytes) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10))
    assert parsed(stream, cuts) == parsed(stream)


@given(st.lists(st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]))))
def test_what_is_sent_arrives(sent: list[str]) -> None:
    stream = "".join(
        "".join(f"data: {line}\n" for line in text.split("\n")) + "\n" for text in sent
    )
    assert parsed(stream.encode()) == sent


def test_an_event_without_end_is_refused() -> None:
    parser = EventParser()
    with pytest.raises(ValueError, match="longer than"):
        for _ in range(LONGEST_EVENT // (1 << 20) + 1):
            parser.push(b"data: " + b"x" * (1 << 20))
    parser = EventParser()
    for _ in range(20):
        assert len(parser.push(b"data: " + b"x" * (1 << 20) + b"\n\n")) == 1
