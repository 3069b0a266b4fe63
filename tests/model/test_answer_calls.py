"""Answers that are written like calls come out as text, however they were cut into pieces."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.model.answer_calls import ANSWER
from oneiros.model.tool_call_parser import CallArguments, CallStart, Piece, Text, ToolCallParser
from oneiros.model.tool_calls import ToolCallFormat

LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
HERMES, MISTRAL = ToolCallFormat("hermes"), ToolCallFormat("mistral", named=True)


def written(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def read(parser: ToolCallParser, text: str, cuts: list[int]) -> list[Piece]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [
        piece for begin, end in itertools.pairwise(places) for piece in parser.push(text[begin:end])
    ]
    return pieces + parser.finish()


@given(st.text(), st.lists(st.integers(0, 500), max_size=8), st.booleans(), st.booleans())
def test_the_text_of_an_answer_is_read_whole_or_in_pieces(
    text: str, cuts: list[int], ascii_only: bool, constrained: bool
) -> None:
    arguments = json.dumps({"text": text}, ensure_ascii=ascii_only)
    parser = HERMES.parser([LOOK, ANSWER], constrained=constrained)
    pieces = read(parser, written("answer", arguments), cuts)
    assert all(isinstance(piece, Text) for piece in pieces)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == text


def test_an_answer_comes_while_it_is_generated() -> None:
    parser = HERMES.parser([LOOK, ANSWER], constrained=True)
    begun = parser.push('<tool_call>\n{"name": "answer", "arguments": {"text": "Thr')
    assert begun == [Text("Thr")]
    assert parser.push("ee, \\u00") == [Text("ee, ")]
    assert parser.push('e9t\\"') == [Text('ét"')]
    assert parser.finish() == []


def test_calls_of_other_tools_stay_calls() -> None:
    pieces = read(HERMES.parser([LOOK, ANSWER]), written("look", '{"x": 1}'), [])
    assert [type(piece) for piece in pieces] == [CallStart, CallArguments]


def test_another_tool_of_that_name_is_a_tool() -> None:
    tool = {"type": "function", "function": {"name": "answer", "parameters": {"type": "object"}}}
    pieces = read(HERMES.parser([tool]), written("answer", '{"text": "Three."}'), [])
    assert [type(piece) for piece in pieces] == [CallStart, CallArguments]


@pytest.mark.parametrize("text", ['[TOOL_CALLS]answer[ARGS]{"text": "Three."}'])
def test_every_format_has_answers(text: str) -> None:
    assert read(MISTRAL.parser([LOOK, ANSWER]), text, [30]) == [Text("Three.")]
