"""Texts are cut along their structure; nothing gets lost, and no chunk is too long."""

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.memory.chunks import Chunk, split_into_chunks
from oneiros.memory.extraction import ExtractedText, Form


def count(texts: Sequence[str]) -> list[int]:
    """Words, and long words as several."""
    return [sum(1 + len(word) // 10 for word in text.split()) for text in texts]


def chunks(text: str, form: Form = "markdown", longest: int = 30, title: str = "") -> list[Chunk]:
    return split_into_chunks(ExtractedText(text, form), count, longest, title=title)


def test_a_chunk_lies_under_one_heading_and_knows_those_above() -> None:
    text = "before\n\n# A\n\none\n\ntwo\n\nB\n---\n\nthree\n\n# Empty\n\n# C\n\n"
    text += "```\n# no heading\n```\n"
    assert chunks(text, title="t") == [
        Chunk("before", "t", 1, 1),
        Chunk("one\n\ntwo", "t > A", 5, 7),
        Chunk("three", "t > A > B", 12, 12),
        Chunk("Empty", "t", 14, 14),
        Chunk("```\n# no heading\n```", "t > C", 18, 20),
    ]


def test_code_is_cut_between_definitions() -> None:
    body = "\n".join(f"    value = {number} + x" for number in range(4))
    text = (
        f"import os\n\n\n@decorated\ndef first():\n{body}\n\n# About it.\nclass Second:\n{body}\n"
    )
    assert [
        (chunk.text.split("\n")[0], chunk.start, chunk.end) for chunk in chunks(text, "code")
    ] == [
        ("import os", 1, 9),
        ("# About it.", 11, 16),
    ]
    tight = chunks(text, "code", longest=25)
    assert [chunk.text.split("\n")[0] for chunk in tight] == [
        "import os",
        "@decorated",
        "# About it.",
    ]


def test_paragraphs_stay_whole_where_they_fit() -> None:
    text = "\n\n".join("word " * 12 + f"{number}" for number in range(5))
    assert [(chunk.start, chunk.end) for chunk in chunks(text, "plain")] == [(1, 3), (5, 7), (9, 9)]


def test_a_long_line_is_cut_into_sentences() -> None:
    found = chunks("One two three. " * 20, longest=10)
    assert all(chunk.text.endswith(".") and (chunk.start, chunk.end) == (1, 1) for chunk in found)


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
lines = st.one_of(
    st.just(""),
    st.lists(words, max_size=20).map(" ".join),
    st.sampled_from(["# Heading", "## Other", "---", "===", "```", "def f(x):", "    return", "}"]),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(lines, max_size=20).map("\n".join),
    st.sampled_from(["markdown", "code", "plain"]),
    st.integers(6, 40),
)
def test_every_word_is_in_a_chunk_at_its_place(text: str, form: Form, longest: int) -> None:
    found = chunks(text, form, longest)
    numbered = text.split("\n")
    for chunk in found:
        assert count([chunk.whole])[0] <= longest or len(chunk.text) == 1
        assert 1 <= chunk.start <= chunk.end <= len(numbered)
        place = "".join("".join(numbered[chunk.start - 1 : chunk.end]).split())
        assert "".join(chunk.text.split()) in place or form == "markdown"
    assert [chunk.start for chunk in found] == sorted(chunk.start for chunk in found)
    taken = "".join("".join(f"{chunk.heading} {chunk.text}".split()) for chunk in found)
    if form != "markdown":
        assert taken == "".join(text.split())
    else:
        # Outer headings may be cut, so that a chunk has room for its text.
        for line, below in itertools.pairwise([*numbered, ""]):
            heading = line.lstrip().startswith("#") or set(below.strip()) & set("-=")
            if line.strip() and not heading and not set(line.strip()) <= set("=-`~ "):
                assert line.split()[0][:1] in taken


def test_a_heading_too_long_to_stand_above_its_text_is_found_itself() -> None:
    long = " ".join(f"w{number}" for number in range(20))
    found = chunks(f"intro\n\n# {long}\n\ntext", longest=30)
    assert [(chunk.text, chunk.start) for chunk in found] == [
        ("intro", 1),
        (long, 3),
        ("text", 5),
    ]
    assert found[2].heading and long.endswith(found[2].heading)
