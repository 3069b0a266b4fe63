"""Schemas: what is enforced is enforced whole, all else is refused by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.requests import ConstraintSpec
from oneiros.errors import ConstraintError
from oneiros.model.json_schema import check_schema
from oneiros.model.tokenizer import Tokenizer
from tests.engine.random_replies import draw
from tests.engine.tool_schemas import UNSUPPORTED, functions, servers, validate

Schema = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(model: LanguageModel) -> Tokenizer:
    return model.tokenizer


@pytest.fixture(scope="module")
def compiler(model: LanguageModel) -> ConstraintCompiler:
    return ConstraintCompiler(model.tokenizer, model.engine.vocabulary, model.tokenizer.end_ids)


def drawn(
    compiler: ConstraintCompiler, tokenizer: Tokenizer, schema: object, count: int = 8
) -> list[Any]:
    """Values of complete replies, each checked against the schema."""
    spec = ConstraintSpec("json_schema", json.dumps(schema))
    texts = [draw(compiler, tokenizer, spec, seed) for seed in range(count)]
    values = [json.loads(text) for text in texts if text is not None]
    for value in values:
        validate(value, schema if isinstance(schema, dict) else {})
    return values


TREE: Schema = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"enum": ["a", "b"]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["name"],
        }
    },
    "$ref": "#/$defs/node",
}

ENFORCED: dict[str, Schema] = {
    "nested": {
        "type": "object",
        "properties": {
            "point": {
                "type": "object",
                "properties": {"x": {"type": "number"}, "y": {"type": "integer", "minimum": 3}},
                "required": ["x", "y"],
            }
        },
        "required": ["point"],
    },
    "recursion": TREE,
    "reference to the root": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    },
    "escaped pointer": {
        "$defs": {"a/b~c d": {"const": 1}},
        "$ref": "#/$defs/a~1b~0c%20d",
    },
    "list of types": {"type": ["integer", "null", "boolean"], "maximum": 5},
    "constants": {"enum": [1, 2.5, -0.0, 'é\n"\\', None, True, [1, {"a": []}], {"b": {"c": "d"}}]},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 4},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "pattern anywhere": {"type": "string", "pattern": "b+", "maxLength": 5},
    "pattern and length": {"type": "string", "pattern": "^a*$", "minLength": 2, "maxLength": 3},
    "control characters": {"type": "string", "pattern": "^a\\x01\\u0002\\n$"},
    "date": {"type": "string", "format": "date"},
    "leap days": {"type": "string", "format": "date", "pattern": "-02-29$"},
    "date-time": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "email": {"type": "string", "format": "email", "maxLength": 20},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "uuid": {"type": "string", "format": "uuid"},
    "format that is an annotation": {"type": "integer", "format": "int64"},
    "bounds": {"type": "number", "minimum": -1.5, "maximum": 2.25},
    "exclusive bounds": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "exclusive bounds of integers": {
        "type": "integer",
        "exclusiveMinimum": 1,
        "exclusiveMaximum": 3.5,
    },
    "multiples": {"type": "integer", "multipleOf": 7},
    "binary fractions": {"type": "number", "multipleOf": 0.25},
    "array sizes": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"enum": ["x"]}],
        "items": False,
        "minItems": 2,
    },
    "tuple of an old draft": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [{"type": "integer"}, {"type": "null"}],
        "additionalItems": False,
        "minItems": 1,
    },
    "exclusive bound of draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "integer",
        "minimum": 3,
        "exclusiveMinimum": True,
        "maximum": 5,
    },
    "additional properties": {
        "type": "object",
        "properties": {"ab": {"const": 1}, "a/": {"const": 2}},
        "additionalProperties": {"type": "null"},
    },
    "free object": {"type": "object", "maxProperties": 2},
    "pattern properties": {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "patternProperties": {"^x-[a-z]$": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "at least one property": {
        "type": "object",
        "patternProperties": {"^[a-c]$": {"type": "null"}},
        "minProperties": 1,
        "additionalProperties": False,
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"a": {"minimum": 3, "maximum": 9}, "b": {"type": "null"}}},
            {"additionalProperties": {"type": ["null", "integer"]}},
        ]
    },
    "required alternatives": {
        "type": "object",
        "properties": {"a": {"const": 1}, "b": {"const": 2}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "oneOf by type": {"oneOf": [{"type": "integer"}, {"type": "array", "maxItems": 0}]},
    "oneOf by constant": {
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "discriminator": {"propertyName": "kind"},
        "$defs": {
            name: {
                "type": "object",
                "properties": {"kind": {"const": name}, "age": {"type": "integer"}},
                "required": ["kind"],
                "additionalProperties": True,
            }
            for name in ("cat", "dog")
        },
    },
    "oneOf by required properties": {
        "oneOf": [
            {"type": "object", "properties": {"id": {"type": "null"}}, "required": ["id"]},
            {"type": "object", "properties": {"name": {"type": "null"}}, "required": ["name"]},
        ]
    },
    "annotations": {
        "$id": "https://example.org/x",
        "title": "T",
        "description": "D",
        "default": 3,
        "examples": [1],
        "deprecated": True,
        "x-order": 1,
        "$comment": "not: a keyword",
        "type": "boolean",
    },
}


@pytest.mark.parametrize("name", ENFORCED)
def test_every_complete_reply_is_valid(
    name: str, compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    assert drawn(compiler, tokenizer, ENFORCED[name])


def test_any_value_at_all_may_be_asked_for(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    assert drawn(compiler, tokenizer, True)
    assert drawn(compiler, tokenizer, {})


def test_objects_get_declared_properties_only_unless_the_schema_says_otherwise(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    declared = {"type": "object", "properties": {"a": {"const": 1}}}
    values = drawn(compiler, tokenizer, declared, 20)
    assert {"a": 1} in values
    assert all(value.keys() <= {"a"} for value in values)
    assert drawn(compiler, tokenizer, {"type": "object", "properties": {}}) == [{}] * 8
    more = {**declared, "additionalProperties": {"const": 2}}
    assert any(value.keys() - {"a"} for value in drawn(compiler, tokenizer, more, 20))


def test_properties_come_in_the_order_of_the_schema(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    names = ["zebra", "apple", "mango"]
    schema = {"type": "object", "properties": {n: {"const": 0} for n in names}, "required": names}
    assert [list(value) for value in drawn(compiler, tokenizer, schema, 2)] == [names, names]


def test_integers_stay_within_what_readers_of_json_keep(
    compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    assert all(abs(v) < 2**53 for v in drawn(compiler, tokenizer, {"type": "integer"}, 30))


def test_white_space_is_that_of_python(compiler: ConstraintCompiler, tokenizer: Tokenizer) -> None:
    spec = ConstraintSpec("json_schema", '{"const": {"a": [1, 2], "b": 3}}')
    assert draw(compiler, tokenizer, spec, 0) == '{"a": [1, 2], "b": 3}'


REFUSED: dict[str, object] = {
    "schema.properties.address.not: not supported": {"properties": {"address": {"not": {}}}},
    "schema.items.if: not supported": {"type": "array", "items": {"if": {}, "then": {}}},
    "schema.uniqueItems: not supported": {"type": "array", "uniqueItems": True},
    "schema.contains: not supported": {"contains": {}},
    "schema.$defs.a.dependentRequired: not": {
        "$defs": {"a": {"dependentRequired": {}}},
        "items": {"$ref": "#/$defs/a"},
    },
    "schema.anyOf.1.propertyNames: not": {
        "anyOf": [{}, {"propertyNames": {"pattern": "a"}}],
    },
    "schema.unevaluatedProperties: not": {"unevaluatedProperties": False},
    "schema.properties.a.minLenght: no keyword": {"properties": {"a": {"minLenght": 3}}},
    "schema.format: 'uri-reference' is not supported": {"format": "uri-reference"},
    "schema.type: 'strin' is no type": {"type": "strin"},
    "schema.type: must be a type": {"type": []},
    "schema.required: must be a list": {"required": True},
    "schema.properties: must be an object": {"properties": []},
    "schema.properties.a: a schema is an object": {"properties": {"a": "string"}},
    "schema.minLength: must be a whole number": {"minLength": -1},
    "schema.minimum: must be a number": {"minimum": "3"},
    "schema.maximum: is beyond": {"type": "integer", "maximum": 10**300},
    "schema.multipleOf: must be a whole number or a binary": {"multipleOf": 0.1},
    "schema.exclusiveMinimum: must be a number": {"minimum": 1, "exclusiveMinimum": True},
    "schema: no number is from 5 to 3": {"type": "integer", "minimum": 5, "maximum": 3},
    "schema.enum: must be a list of at least one": {"enum": []},
    "schema.const: 9007199254740993 is beyond": {"const": 2**53 + 1},
    "schema.items: must be one schema": {"type": "array", "items": [{}]},
    "schema.$ref: 'https://example.org/s' : only": {"$ref": "https://example.org/s"},
    "schema.$ref: 'other.json#/a' : only": {"$ref": "other.json#/a"},
    "schema.$ref: is not there": {"$ref": "#/$defs/nothing"},
    "schema.$ref: '#/title' is no schema": {"title": "x", "$ref": "#/title"},
    "schema.oneOf: branches 0 and 1": {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    "schema.anyOf: must be a list": {"anyOf": {}},
    "schema.properties.a.$id: only supported at the root": {"properties": {"a": {"$id": "x"}}},
    "schema.minProperties: not supported": {
        "properties": {"a": {}, "b": {}},
        "minProperties": 1,
    },
    "schema.maxProperties: not supported": {
        "properties": {"a": {}, "b": {}},
        "maxProperties": 1,
    },
    "schema.properties.a.const: has control": {
        "properties": {"a": {"const": "\x01"}},
        "additionalProperties": True,
    },
    "schema: holds half of a surrogate pair": {"const": "\ud800"},
    "schema: a schema is an object": [],
    "schema: # is defined as itself": {"$ref": "#"},
    "schema: #/$defs/a is defined as itself": {
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
        "items": {"$ref": "#/$defs/a"},
        "type": "array",
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_enforced_is_refused_by_its_place(message: str) -> None:
    with pytest.raises(ConstraintError) as refused:
        check_schema(REFUSED[message])
    assert str(refused.value).startswith(message.replace(" :", ":"))


def test_a_message_names_the_place_that_it_was_given() -> None:
    with pytest.raises(ConstraintError, match=r"^send: parameters\.items\.not: "):
        check_schema({"type": "array", "items": {"not": {}}}, "send: parameters")


def test_real_tools_are_supported_but_for_one() -> None:
    assert len(functions()) > 200
    for function in functions():
        check_schema(function["parameters"])
    tools = [tool["function"] for group in servers().values() for tool in group]
    (refused,) = [tool for tool in tools if tool["name"] == UNSUPPORTED]
    with pytest.raises(ConstraintError, match="propertyNames: not supported"):
        check_schema(refused["parameters"])


def nested(depth: int) -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def chained(length: int) -> Schema:
    """Each definition refers to the next."""
    definitions: Schema = {
        str(i): {"type": "array", "items": {"$ref": f"#/$defs/{i + 1}"}} for i in range(length)
    }
    return {"$defs": {**definitions, str(length): {"type": "null"}}, "$ref": "#/$defs/0"}


def doubled(levels: int) -> Schema:
    """Written out, this would be 2**levels schemas."""
    definitions: Schema = {
        str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}, {"$ref": f"#/$defs/{i + 1}"}]}
        for i in range(levels)
    }
    return {"$defs": {**definitions, str(levels): {"type": "null"}}, "$ref": "#/$defs/0"}


HOSTILE: dict[str, object] = {
    "deep": nested(400),
    "deeper than Python": json.loads('{"items":' * 900 + "{}" + "}" * 900),
    "chain": chained(1_500),
    "doubling": doubled(40),
    "product": {
        "allOf": [
            {"anyOf": [{"properties": {f"{i}{j}": {"type": "null"}}} for j in range(4)]}
            for i in range(12)
        ]
    },
    "many properties": {"properties": {str(i): {} for i in range(5_000)}},
    "many constants": {"enum": [str(i) for i in range(30_000)]},
    "large": {"description": "x" * 500_000},
    "wide pattern": {"type": "string", "pattern": "((((a{1000}){1000}){1000}){1000})"},
    "unbalanced pattern": {"type": "string", "pattern": "(" * 10_000},
    "deep pattern": {"type": "string", "pattern": "(" * 10_000 + "a" + ")" * 10_000},
    "backtracking pattern": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"},
    "exponential pattern": {"type": "string", "pattern": "(.*a){40}(.*b){40}[^c]{3,90}x"},
    "look-ahead": {"type": "string", "pattern": "^(?!a)"},
    "endless": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "long": {"type": "string", "minLength": 10**9},
    "many items": {"type": "array", "minItems": 10**9},
    "nothing": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "contradiction": {"allOf": [{"type": "string"}, {"type": "number"}]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_refused_or_followed_and_nothing_else(
    name: str, compiler: ConstraintCompiler, tokenizer: Tokenizer
) -> None:
    spec = ConstraintSpec("json_schema", json.dumps(HOSTILE[name]))
    try:
        text = draw(compiler, tokenizer, spec, 0, 60)
    except ConstraintError as error:
        assert 10 < len(str(error)) < 700
    else:
        if text is not None:
            json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "nonsense", '{"type": NaN}', "[" * 100_000, "1" * 5_000])
def test_what_is_no_json_is_refused(text: str, compiler: ConstraintCompiler) -> None:
    with pytest.raises(ConstraintError):
        compiler.compile(ConstraintSpec("json_schema", text))


NAMES = st.sampled_from(["a", "b", "a b", "é", 'q"'])
CONSTANTS = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text('ab\n"é', max_size=3))
LEAVES = st.one_of(
    st.fixed_dictionaries({}, optional={"const": CONSTANTS}),
    st.builds(lambda v: {"enum": v}, st.lists(CONSTANTS, min_size=1, max_size=3)),
    st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={
            "minLength": st.integers(0, 2),
            "maxLength": st.integers(1, 4),
            "pattern": st.sampled_from(["^a", "b$", "[^a-y]", "a.b", "^(ab|é)*$", "\\d"]),
            "format": st.sampled_from(["date", "ipv4", "uuid", "int32"]),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["integer", "number"])},
        optional={
            "minimum": st.integers(-9, 3) | st.floats(-2, 1, width=16),
            "maximum": st.integers(2, 99),
            "exclusiveMinimum": st.integers(-9, 1),
            "exclusiveMaximum": st.floats(1.5, 9, width=16),
            "multipleOf": st.sampled_from([1, 3, 0.5]),
        },
    ),
    st.just({"type": ["null", "boolean"]}),
)


def compound(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object")},
            optional={
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "required": st.lists(NAMES, max_size=2, unique=True),
                "additionalProperties": st.booleans() | inner,
                "patternProperties": st.dictionaries(st.sampled_from(["^x", "a"]), inner),
                "anyOf": several,
            },
        ),
        st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": inner,
                "prefixItems": several,
                "minItems": st.integers(0, 2),
                "maxItems": st.integers(1, 3),
            },
        ),
        st.builds(lambda v: {"anyOf": v}, several),
        st.builds(lambda v: {"oneOf": v}, several),
        st.builds(lambda v: {"allOf": v}, several),
    )


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(LEAVES, compound, max_leaves=8), st.integers(0, 2**32))
def test_no_schema_lets_an_invalid_reply_through(
    compiler: ConstraintCompiler, tokenizer: Tokenizer, schema: Schema, seed: int
) -> None:
    spec = ConstraintSpec("json_schema", json.dumps(schema))
    try:
        text = draw(compiler, tokenizer, spec, seed, 60)
    except ConstraintError:
        return
    if text is not None:
        validate(json.loads(text), schema)
