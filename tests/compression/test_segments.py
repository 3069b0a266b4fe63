from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.compression import segments
from oneiros.compression.segments import SHORTEST_TEXT, Segment, Segmenter

TEXT = "the king and the fool, ing the end of the thing. "


def split(model: Any, data: bytes) -> list[Segment]:
    return list(Segmenter(model.tokenizer).split(data))


def kinds(model: Any, data: bytes) -> list[tuple[str, bytes]]:
    return [("raw" if s.token_ids is None else "text", s.data) for s in split(model, data)]


mixed = st.lists(
    st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | st.just(TEXT.encode()),
    max_size=8,
).map(b"".join)


@given(mixed)
def test_segments_join_to_the_input_and_tokens_to_their_segment(
    tiny_model: Any, data: bytes
) -> None:
    parts = split(tiny_model, data)
    assert b"".join(part.data for part in parts) == data
    for part in parts:
        assert part.data
        if part.token_ids is not None:
            assert b"".join(map(tiny_model.tokenizer.token_bytes, part.token_ids)) == part.data
    raw = [part.token_ids is None for part in parts]
    assert not any(a and b for a, b in pairwise(raw))


def test_text_is_one_segment(tiny_model: Any) -> None:
    data = (TEXT + "déjà vu\r\n\tnaïve").encode()
    assert kinds(tiny_model, data) == [("text", data)]


def test_what_the_vocabulary_lacks_is_raw(tiny_model: Any) -> None:
    data = f"{TEXT}🙂{TEXT}".encode()
    assert kinds(tiny_model, data) == [
        ("text", TEXT.encode()),
        ("raw", "🙂".encode()),
        ("text", TEXT.encode()),
    ]


def test_invalid_utf8_and_control_characters_are_raw(tiny_model: Any) -> None:
    text = TEXT.encode()
    for strange in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x01\x02", b"\x1b[31m", b"\xc0\xaf"):
        parts = kinds(tiny_model, text + strange + text)
        assert parts[0][0] == "text"
        assert parts[1][0] == "raw"


def test_short_runs_of_text_stay_with_the_raw_bytes_around_them(tiny_model: Any) -> None:
    data = b"\xff\xfe" + b"x" * (SHORTEST_TEXT - 1) + b"\xff"
    assert kinds(tiny_model, data) == [("raw", data)]


def test_a_short_text_alone_is_text(tiny_model: Any) -> None:
    assert kinds(tiny_model, b"hi") == [("text", b"hi")]


def test_noise_is_nearly_all_raw(tiny_model: Any) -> None:
    data = random.Random(4).randbytes(50_000)
    raw = sum(len(s.data) for s in split(tiny_model, data) if s.token_ids is None)
    assert raw > 0.995 * len(data)


def test_long_text_is_tokenised_in_pieces_that_end_at_lines_or_words(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "LONGEST_PIECE", 100)
    lines = (TEXT + "\n") * 10
    words = TEXT * 10
    solid = "é" * 300
    for text, ending in ((lines, "\n"), (words, ""), (solid, "é")):
        pieces = [piece.decode() for _, piece in kinds(tiny_model, text.encode())]
        assert "".join(pieces) == text
        assert len(pieces) > 1
        assert all(piece.endswith(ending) for piece in pieces)
    _, *others = kinds(tiny_model, words.encode())
    assert all(piece.startswith(b" ") for _, piece in others)


def test_a_vocabulary_that_puts_a_space_before_every_text(tiny_model: Any) -> None:
    tokenizer = tiny_model.tokenizer

    class SpaceFirst:
        token_bytes = staticmethod(tokenizer.token_bytes)

        @staticmethod
        def encode(text: str) -> list[int]:
            return tokenizer.encode(" " + text)

    (part,) = Segmenter(SpaceFirst()).split(TEXT.encode())
    assert part.token_ids is not None
    assert b"".join(map(tokenizer.token_bytes, part.token_ids)) == TEXT.encode()
