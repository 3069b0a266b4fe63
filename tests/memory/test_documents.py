"""Long texts as documents, read in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.errors import DiskError
from oneiros.memory.documents import PART, read_part, split_text, stand_in

TEXTS = st.one_of(
    st.text(st.sampled_from("ab. \n!。水🌙\ud800"), max_size=300),
    st.lists(st.text("ab. ", max_size=30), max_size=30).map("\n\n".join),
)


@given(TEXTS, st.integers(8, 64))
def test_parts_are_the_whole_text_and_none_is_too_long(text: str, size: int) -> None:
    parts = split_text(text, size)
    assert "".join(parts) == text
    assert all(len(part.encode(errors="replace")) <= size for part in parts)
    assert all(parts) or parts == [""]


@given(st.lists(st.text("abcdefg ", min_size=1, max_size=28), max_size=30))
def test_short_paragraphs_are_not_cut(paragraphs: list[str]) -> None:
    paragraphs = [f"x{paragraph}" for paragraph in paragraphs]
    parts = split_text("\n\n".join(paragraphs), size=64)
    assert [p for part in parts for p in part.rstrip("\n").split("\n\n") if p] == paragraphs


def test_a_real_text_is_cut_between_speeches(data_folder: Path) -> None:
    text = (data_folder / "text" / "tinyshakespeare.txt").read_text()[:100_000]
    parts = split_text(text)
    assert len(text) / PART <= len(parts) < 1.2 * len(text) / PART
    assert all(part.endswith("\n\n") for part in parts[:-1])


def test_where_there_is_no_paragraph_lines_sentences_and_words_end_parts() -> None:
    assert split_text("one two\nthree four five", 16) == ["one two\n", "three four five"]
    assert split_text("Go on. Stop here now", 10) == ["Go on. ", "Stop here ", "now"]
    assert split_text("x" * 20, 8) == ["x" * 8, "x" * 8, "x" * 4]


def test_a_part_is_read_by_its_number_and_says_what_comes_next() -> None:
    text = "".join(f"Paragraph {number}: {'word ' * 100}\n\n" for number in range(20))
    second = read_part(text, 2)
    assert text[second.start :].startswith(second.text)
    assert str(second).startswith(f"[Part 2 of {second.count}. Part 3 is next.]\nParagraph ")
    last = read_part(text, second.count)
    assert "next" not in str(last).splitlines()[0]
    for number in (0, -1, second.count + 1):
        with pytest.raises(DiskError, match=f"1 to {second.count}"):
            read_part(text, number)


def test_what_stands_for_a_document_names_it_and_shows_how_it_begins_and_ends() -> None:
    text = "Please summarise this.\n" + "word " * 5_000 + "\nThank you."
    shown = stand_in("messages/1.txt", text)
    for part in ("messages/1.txt", "Please summarise", "Thank you.", "read_document", "7 parts"):
        assert part in shown
    assert len(shown) < 1_200
