"""Schemas whose branches have to be compared: how much of it is done, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from oneiros.errors import ConstraintError
from oneiros.model.json_schema import check_schema

Schema = dict[str, Any]


def united(count: int) -> Schema:
    """Objects that a constant tells apart."""
    kinds = [{"properties": {"kind": {"const": i}}, "required": ["kind"]} for i in range(count)]
    return {"oneOf": [{"type": "object", **kind} for kind in kinds]}


def entangled(count: int, keyword: str) -> Schema:
    """Two objects, of which each property is one of them again."""
    names = [str(i) for i in range(count)]
    ends = [
        {
            "type": "object",
            "required": names,
            "properties": {name: {"$ref": f"#/$defs/{end}"} for name in names},
        }
        for end in "ab"
    ]
    branches = [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]
    return {"$defs": dict(zip("ab", ends, strict=True)), keyword: branches}


def themselves(count: int) -> Schema:
    """A definition whose branches are all itself."""
    node = {"properties": {"x": {}}, "anyOf": [{"$ref": "#/$defs/a"}] * count}
    return {"$defs": {"a": node}, "type": "array", "items": {"$ref": "#/$defs/a"}}


def crossed(count: int) -> Schema:
    """Definitions, of which each property is another one: too many pairs to compare."""
    names = [str(i) for i in range(count)]
    choose = random.Random(0)
    definitions = {
        name: {
            "type": "object",
            "required": names,
            "properties": {other: {"$ref": f"#/$defs/{choose.choice(names)}"} for other in names},
        }
        for name in names
    }
    return {"$defs": definitions, "oneOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def spelled(count: int) -> Schema:
    """References to one long definition, each spelled differently."""
    pointers = ["".join("%61" if i >> bit & 1 else "a" for bit in range(10)) for i in range(count)]
    long = {"enum": [str(i) for i in range(5_000)]}
    return {"$defs": {"a" * 10: long}, "anyOf": [{"$ref": f"#/$defs/{p}"} for p in pointers]}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (united(1_000), r"schema\.oneOf: too complex\. Use fewer"),
        ({"items": united(1_000), "type": "array"}, r"schema\.items\.oneOf: too complex"),
        (crossed(60), r"schema\.oneOf: too complex"),
        (spelled(1_000), r"schema\.\$defs\.[a%61]+: too complex"),
        ({"oneOf": [{"type": "string"}] * 3_000}, r"schema\.oneOf: too complex"),
        (entangled(50, "oneOf"), r"schema\.oneOf: branches 0 and 1"),
        (themselves(500), r"schema: #/\$defs/a is defined as itself"),
    ],
)
def test_a_schema_that_takes_too_much_work_is_refused_by_its_place(
    schema: Schema, message: str
) -> None:
    with pytest.raises(ConstraintError, match=f"^{message}"):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        united(150),
        entangled(50, "anyOf"),
        {"oneOf": [{"const": i} for i in range(3_000)]},
        {"oneOf": [*({"enum": [i, str(i)]} for i in range(1_000)), {"type": "object"}]},
    ],
)
def test_large_schemas_are_supported_where_little_has_to_be_compared(schema: Schema) -> None:
    check_schema(schema)


def test_constants_that_two_branches_allow_are_found_among_many() -> None:
    branches = [{"const": i} for i in range(1_000)]
    with pytest.raises(ConstraintError, match="branches 7 and 1000 may allow the same value"):
        check_schema({"oneOf": [*branches, {"enum": ["x", 7.0]}]})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {}, "anyOf": ["#/anyOf"]},
        {"type": "integer", "maximum": 10**400},
        {"$ref": "#/anyOf/" + "1" * 5_000, "anyOf": [{}]},
    ],
)
def test_a_schema_of_impossible_values_is_refused(schema: Schema) -> None:
    with pytest.raises(ConstraintError, match=r"^schema\."):
        check_schema(schema)
