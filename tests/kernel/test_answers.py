"""Answers of few possibilities: as many as their schemas say, each in one form."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.kernel.answers import (
    MOST_BITS,
    MisfitError,
    answer,
    answer_schema,
    bits,
    for_model,
    possibilities,
)
from oneiros.kernel.tools import ToolError
from oneiros.model.json_schema import check_schema

PLAIN = st.text(alphabet="abc xyz", min_size=1, max_size=6)
STEPS = st.sampled_from([0.01, 0.1, 0.25, 1, 3])
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.lists(PLAIN, min_size=2, max_size=4, unique=True).map(lambda texts: {"enum": texts}),
    st.tuples(st.integers(-5, 5), st.integers(0, 9)).map(
        lambda ends: {"type": "integer", "minimum": ends[0], "maximum": ends[0] + ends[1]}
    ),
    st.tuples(st.integers(-5, 5), st.integers(3, 9), STEPS).map(
        lambda ends: {
            "type": "number",
            "minimum": ends[0],
            "maximum": ends[0] + ends[1],
            "multipleOf": ends[2],
        }
    ),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=2).map(
        lambda properties: {"type": "object", "properties": properties}
    ),
    max_leaves=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | PLAIN,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3)
    ),
    max_leaves=6,
)


def fits(schema: dict[str, Any]) -> st.SearchStrategy[object]:
    """Values that a hostile reader may say to be taken seriously."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "object":
            return st.fixed_dictionaries(
                {name: fits(inner) for name, inner in schema["properties"].items()}
            )
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
    return st.floats(schema["minimum"], schema["maximum"])


@settings(max_examples=80, deadline=None)
@given(st.data(), SCHEMAS)
def test_there_are_no_more_answers_than_a_schema_says(
    data: st.DataObject, schema: dict[str, Any]
) -> None:
    try:
        checked = answer_schema(schema)
    except ToolError as error:
        assert "no number is in this range" in str(error) or "bits" in str(error)
        return
    check_schema(for_model(checked))  # constrained decoding can be asked for it
    assert bits(checked) == math.log2(possibilities(checked) + 1) <= MOST_BITS + 1
    found = set()
    for value in data.draw(st.lists(fits(checked) | VALUES, max_size=12)):
        try:
            read = answer(checked, json.dumps(value, indent=data.draw(st.sampled_from([None, 1]))))
        except MisfitError:
            continue
        text = json.dumps(read)
        assert json.dumps(answer(checked, text)) == text  # an answer is its own form
        found.add(text)
    assert len(found) <= possibilities(checked)


@settings(max_examples=30, deadline=None)
@given(st.data(), SCHEMAS)
def test_an_answer_that_fits_is_taken(data: st.DataObject, schema: dict[str, Any]) -> None:
    try:
        checked = answer_schema(schema)
    except ToolError:
        return
    value = data.draw(fits(checked))
    assert answer(checked, json.dumps(value)) is not None


@pytest.mark.parametrize(
    ("value", "read"),
    [("0.149", 0.15), ("1e-2", 0.01), ("-0.0", 0), ("0.004", 0), ("1", 1), ("0.99999", 1)],
)
def test_numbers_are_rounded_to_their_steps(value: str, read: float) -> None:
    schema = {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.01}
    assert json.dumps(answer(answer_schema(schema), value)) == json.dumps(read)
    assert possibilities(answer_schema(schema)) == 101


@pytest.mark.parametrize("text", ["1e999", "-1", "NaN", "Infinity", "9" * 5000, "true", '"1"', ""])
def test_what_is_no_number_in_the_range_is_none(text: str) -> None:
    for kind in ({"type": "integer"}, {"type": "number", "multipleOf": 0.5}):
        with pytest.raises(MisfitError):
            answer(answer_schema(kind | {"minimum": 0, "maximum": 10}), text)


def test_32_bits_are_the_most() -> None:
    most = {"type": "integer", "minimum": 1, "maximum": 2**32}
    assert possibilities(answer_schema(most)) == 2**32
    yes = {"type": "boolean"}
    with pytest.raises(ToolError, match="33 bits"):
        answer_schema({"type": "object", "properties": {"a": most, "b": yes}})
    with pytest.raises(ToolError, match="bounds no answer"):
        nested: dict[str, Any] = yes
        for _ in range(6):
            nested = {"type": "object", "properties": {"a": nested}}
        answer_schema(nested)
