"""Answers of few possibilities: the schemas that bound them, and the bits that they can carry.

Who has read something untrusted may answer whatever its author wanted. An answer that is one of N
possibilities, which were fixed before, lets that author choose among N and do no more: log2(N)
bits. So what matters here is that each possibility has one form, and that no other one gets by.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from oneiros.kernel.readings import is_plain
from oneiros.kernel.tools import ToolError

MOST_BITS: Final = 32  # of one answer
LONGEST_TEXT: Final = 4_000  # characters of an answer in words
_CHOICES: Final = range(2, 65)  # of an enumeration
_LARGEST: Final = 2**53  # what all readers of JSON keep exactly
_DEEPEST: Final = 4  # objects within objects
_LONGEST_JSON: Final = 8 * LONGEST_TEXT  # characters of an answer's JSON; each may be an escape
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_ABOUT: Final = {"title", "description"}  # keywords that change nothing
_KEYWORDS: Final = {
    "boolean": {"type"},
    "enum": {"type", "enum"},
    "integer": {"type", "minimum", "maximum"},
    "number": {"type", "minimum", "maximum", "multipleOf"},
    "object": {"type", "properties", "required", "additionalProperties"},
    "string": {"type", "maxLength"},
}
_KINDS: Final = (
    "A boolean; an enum of 2 to 64 short texts; an integer with minimum and maximum; a number with "
    "these and multipleOf; an object of such properties; or by itself a string with maxLength."
)

Schema = Mapping[str, Any]


class MisfitError(ValueError):
    """A text is none of the answers that a schema has."""


def answer_schema(schema: object) -> dict[str, Any]:
    """A schema of answers, with everything said that it leaves to be understood.

    Args:
        schema: JSON schema: boolean; enum of texts; integer with bounds; number with bounds and
            multipleOf; object of such properties, all of them required; string with maxLength.

    Raises:
        ToolError: it is another one, or its answers can carry more than MOST_BITS.
    """
    found = _checked(schema, "schema", 0)
    if possibilities(found) > 2**MOST_BITS:
        raise ToolError(
            f"schema: an answer could carry {math.log2(possibilities(found)):.0f} bits, and "
            f"{MOST_BITS} are the most. Ask for less at once: fewer choices, smaller ranges, "
            "fewer properties."
        )
    return found


def is_text(schema: Schema) -> bool:
    """Whether a checked schema is for an answer in words, which nothing bounds."""
    return schema.get("type") == "string" and "enum" not in schema


def possibilities(schema: Schema) -> int:
    """How many answers a checked schema has; for words it is one, the handle that is shown."""
    match schema["type"]:
        case "boolean":
            return 2
        case "integer":
            return int(schema["maximum"]) - int(schema["minimum"]) + 1
        case "number":
            low, high = _steps(schema)
            return high - low + 1
        case "object":
            return math.prod(map(possibilities, schema["properties"].values()))
    return len(schema.get("enum", [None]))


def bits(schema: Schema) -> float:
    """What the end of an inspection can tell; that there is no answer is one possibility more."""
    return math.log2(possibilities(schema) + 1)


def for_model(schema: Schema) -> dict[str, Any]:
    """A checked schema without what constrained decoding cannot enforce, and is seen to later."""
    found = {name: value for name, value in schema.items() if name != "multipleOf"}
    if "properties" in found:
        found["properties"] = {
            name: for_model(inner) for name, inner in schema["properties"].items()
        }
    return found


def answer(schema: Schema, text: str) -> object:
    """The answer that a text is, in its one form; numbers are rounded to their multipleOf.

    Args:
        schema: a checked one.
        text: JSON, by whomever.

    Raises:
        MisfitError: it is none of the answers.
    """
    if len(text) > _LONGEST_JSON:
        raise MisfitError("too long")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise MisfitError("no JSON") from error
    return _read(schema, value)


def _checked(schema: object, at: str, depth: int) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        raise ToolError(f"{at}: a JSON schema is needed. {_KINDS}")
    kind = "enum" if "enum" in schema else schema.get("type")
    known = _KEYWORDS.get(kind) if isinstance(kind, str) else None
    if known is None or depth > _DEEPEST:
        raise ToolError(f"{at}: this type bounds no answer. {_KINDS}")
    if more := sorted(set(map(str, schema)) - known - _ABOUT):
        raise ToolError(f'{at}: "{more[0][:40]}" is not possible here. {_KINDS}')
    about = {name: str(schema[name]) for name in sorted(_ABOUT & set(schema))}
    match kind:
        case "boolean":
            found: dict[str, Any] = {"type": "boolean"}
        case "enum":
            found = {"type": "string", "enum": _choices(schema, at)}
        case "integer" | "number":
            found = _range(schema, at)
        case "object":
            found = _properties(schema, at, depth)
        case _:
            if depth:
                raise ToolError(f"{at}: an answer in words is asked for by itself.")
            longest: Any = schema.get("maxLength")
            if not _is_whole(longest) or not 1 <= longest <= LONGEST_TEXT:
                raise ToolError(f"{at}: maxLength is needed, from 1 to {LONGEST_TEXT:,}.")
            found = {"type": "string", "maxLength": longest}
    return found | about


def _choices(schema: Schema, at: str) -> list[str]:
    choices = schema["enum"]
    if schema.get("type", "string") != "string" or not isinstance(choices, Sequence):
        raise ToolError(f"{at}: an enum is of texts.")
    if len(choices) not in _CHOICES or len(set(map(str, choices))) < len(choices):
        raise ToolError(f"{at}: an enum has 2 to 64 different texts.")
    if not all(isinstance(choice, str) and choice and is_plain(choice) for choice in choices):
        raise ToolError(f"{at}: the texts of an enum have 1 to 80 characters, in one line.")
    return list(choices)


def _range(schema: Schema, at: str) -> dict[str, Any]:
    whole = schema["type"] == "integer"
    wanted = ("minimum", "maximum") if whole else ("minimum", "maximum", "multipleOf")
    for name in wanted:
        value: Any = schema.get(name)
        if not (_is_whole(value) or (isinstance(value, float) and not whole)):
            raise ToolError(f"{at}: {' and '.join(wanted)} are needed, as numbers.")
        if not abs(value) <= _LARGEST:
            raise ToolError(f"{at}.{name}: {value} is more than 2^53.")
    found = {"type": schema["type"]} | {name: schema[name] for name in wanted}
    if not whole and found["multipleOf"] <= 0:
        raise ToolError(f"{at}.multipleOf: it has to be more than 0.")
    if possibilities(found) < 1:
        raise ToolError(f"{at}: no number is in this range.")
    return found


def _properties(schema: Schema, at: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not 1 <= len(properties) <= MOST_BITS:
        raise ToolError(f"{at}: an object has 1 to {MOST_BITS} properties.")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in properties):
        raise ToolError(f"{at}: properties have names of letters, digits and _, up to 32.")
    required = schema.get("required", [*properties])
    closed = schema.get("additionalProperties", False) is False
    if not closed or not isinstance(required, Sequence) or {*map(str, required)} != {*properties}:
        raise ToolError(
            f"{at}: all properties are required, and there are no others: leave required and "
            "additionalProperties out."
        )
    return {
        "type": "object",
        "properties": {
            name: _checked(inner, f"{at}.{name}", depth + 1) for name, inner in properties.items()
        },
        "required": [*properties],
        "additionalProperties": False,
    }


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read(schema: Schema, value: object) -> object:
    """A value of JSON as the answer that it is. Raises MisfitError."""
    match schema["type"]:
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" | "number" if _is_in_range(schema, value):
            return _rounded(schema, value)
        case "object" if isinstance(value, dict) and value.keys() == schema["properties"].keys():
            return {name: _read(inner, value[name]) for name, inner in schema["properties"].items()}
        case "string" if isinstance(value, str):
            if value in schema["enum"] if "enum" in schema else len(value) <= schema["maxLength"]:
                return value
    raise MisfitError("none of the answers")


def _is_in_range(schema: Schema, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(schema["minimum"] <= value <= schema["maximum"])


def _rounded(schema: Schema, value: Any) -> int | float:
    if schema["type"] == "integer":
        if value != int(value):
            raise MisfitError("not whole")
        return int(value)
    low, high = _steps(schema)
    step = _exact(schema["multipleOf"])
    # From floats, so that no exponent is too large to compute with.
    exact = step * min(max(round(Fraction(value) / step), low), high)
    return int(exact) if exact.denominator == 1 else float(exact)


def _steps(schema: Schema) -> tuple[int, int]:
    """The first and the last multiple in a number's range."""
    step = _exact(schema["multipleOf"])
    return math.ceil(_exact(schema["minimum"]) / step), math.floor(_exact(schema["maximum"]) / step)


def _exact(value: float) -> Fraction:
    return Fraction(str(value))  # as it was written: 0.1 is a tenth


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MisfitError("a name that stands there twice")
    return found


def _no_number(name: str) -> object:
    raise MisfitError(f"{name} is no number")
