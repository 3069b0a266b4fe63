"""What the keywords of JSON Schema mean to constrained decoding, those of single values first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NoReturn

from oneiros.errors import ConstraintError

Schema = Mapping[str, object]

# Beyond this, JSON's numbers lose digits in most readers (RFC 8259, section 6).
LARGEST_INTEGER = 2**53 - 1

# Keywords that say nothing about which values are valid.
ANNOTATIONS = frozenset(
    {
        *("$schema", "$id", "id", "$anchor", "$comment", "$defs", "definitions", "$vocabulary"),
        *("title", "description", "markdownDescription", "default", "example", "examples"),
        *("deprecated", "readOnly", "writeOnly", "nullable", "discriminator", "externalDocs"),
        *("contentEncoding", "contentMediaType", "contentSchema", "xml"),
        *("enumNames", "enumDescriptions", "errorMessage"),
    }
)
REFUSED = frozenset(
    {
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
        *("dependentRequired", "dependentSchemas", "dependencies", "propertyNames"),
        *("unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "$dynamicAnchor"),
        *("$recursiveRef", "$recursiveAnchor", "extends", "disallow", "divisibleBy"),
    }
)
IN_PLACE = ("$ref", "allOf", "anyOf", "oneOf")
OBJECT = ("properties", "required", "additionalProperties", "patternProperties")
OBJECT_SIZE = ("minProperties", "maxProperties")
ARRAY = ("items", "prefixItems", "additionalItems", "minItems", "maxItems")
STRING = ("minLength", "maxLength", "pattern", "format")
NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
FAMILIES = {
    "object": (*OBJECT, *OBJECT_SIZE),
    "array": ARRAY,
    "string": STRING,
    "number": NUMBER,
}
KNOWN = frozenset({"type", "const", "enum", *IN_PLACE, *(k for f in FAMILIES.values() for k in f)})
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

# Formats by RFC 3339 with the calendar's own rules: leap years, no year 0, no leap seconds.
_LEAP_YEAR = (
    r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])"
    r"|(?:0[48]|[2468][048]|[13579][26])00)"
)
_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+-]{_CLOCK})"
FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
}
ENFORCED_FORMATS = frozenset({"email", "hostname", "ipv4", "ipv6", "uuid", "duration", "uri"})
REFUSED_FORMATS = frozenset(
    {
        *("idn-email", "idn-hostname", "uri-reference", "iri", "iri-reference", "uri-template"),
        *("json-pointer", "relative-json-pointer", "regex"),
    }
)


def refuse(path: str, why: str) -> NoReturn:
    """Raises ConstraintError about the place in a schema that `path` names."""
    raise ConstraintError(f"{path or 'schema'}: {why}")


def types_of(node: Schema, path: str) -> list[str] | None:
    """The types that a schema names, or that its only family of keywords is about.

    A schema with `minLength` and no `type` allows numbers too, which nobody means.
    """
    named = node.get("type")
    if named is None:
        about = [t for t, keywords in FAMILIES.items() if any(k in node for k in keywords)]
        return about if len(about) == 1 and not {"const", "enum"} & node.keys() else None
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not names:
        refuse(f"{path}.type", "must be a type or a list of types.")
    for name in names:
        if name not in TYPES:
            refuse(f"{path}.type", f"{name!r} is no type; they are {', '.join(TYPES)}.")
    return names


def count(node: Schema, keyword: str, path: str) -> int | None:
    """The number of characters, items or properties that a keyword gives."""
    value = node.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1:
        refuse(f"{path}.{keyword}", "must be a whole number from 0.")
    return int(value)


def number_keywords(node: Schema, types: list[str], path: str, draft4: bool) -> dict[str, object]:
    """Bounds as inclusive ones, which survive the rounding of what was written.

    Integers without bounds get those that every reader of JSON keeps exactly.
    """
    whole = "number" not in types
    low, high = _number(node, "minimum", path), _number(node, "maximum", path)
    for keyword, sign in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        value = node.get(keyword)
        if draft4 and isinstance(value, bool):
            bound = (low if sign == 1 else high) if value else None
        else:
            bound = _number(node, keyword, path)
        if bound is None:
            continue
        inner = (
            _next_integer(bound, sign) if whole else bound + sign * max(abs(bound) / 2**50, 1e-9)
        )
        if sign == 1:
            low = inner if low is None else max(low, inner)
        else:
            high = inner if high is None else min(high, inner)
    result: dict[str, object] = {}
    step = _number(node, "multipleOf", path)
    if step is not None:
        # Readers divide floats: 0.3 is no multiple of 0.1 to them, and quarters are exact.
        if step <= 0 or (step * 1024) % 1:
            refuse(
                f"{path}.multipleOf",
                "must be a whole number or a binary fraction (0.5, 0.25): floating-point readers "
                "reject multiples of others.",
            )
        result["multipleOf"] = step
    if whole or step is not None:
        largest = LARGEST_INTEGER if whole else 2**40
        low = max(-largest, low) if low is not None else -largest
        high = min(largest, high) if high is not None else largest
    if whole:
        low, high = math.ceil(low or 0), math.floor(high or 0)
    if low is not None and high is not None and low > high:
        refuse(path, f"no number is from {low} to {high}.")
    result |= {} if low is None else {"minimum": low}
    return result | ({} if high is None else {"maximum": high})


def string_keywords(node: Schema, path: str) -> dict[str, object]:
    """Lengths, the pattern, and the formats that can be enforced."""
    result: dict[str, object] = {}
    for keyword in ("minLength", "maxLength"):
        value = count(node, keyword, path)
        result |= {} if value is None else {keyword: value}
    pattern = node.get("pattern")
    if pattern is not None:
        if not isinstance(pattern, str):
            refuse(f"{path}.pattern", "must be a regular expression.")
        result["pattern"] = pattern
    name = node.get("format")
    if name is None:
        return result
    if not isinstance(name, str) or name in REFUSED_FORMATS:
        refuse(f"{path}.format", f"{name!r} is not supported.")
    if name in FORMAT_PATTERNS:
        if "pattern" in result:
            result["allOf"] = [{"type": "string", "pattern": FORMAT_PATTERNS[name]}]
        else:
            result["pattern"] = FORMAT_PATTERNS[name]
    elif name in ENFORCED_FORMATS:
        result["format"] = name
    return result  # other names (int64, password) are annotations


def check_value(value: object, path: str, depth: int = 0) -> None:
    """Refuse constants that would not come back from JSON as they are."""
    match value:
        case bool() | None | str():
            return
        case int() | float():
            if not abs(value) <= LARGEST_INTEGER:
                refuse(path, f"{value} is beyond what readers of JSON keep exactly (2^53).")
        case list():
            if depth > 32:
                refuse(path, "is nested too deeply.")
            for item in value:
                check_value(item, path, depth + 1)
        case dict():
            check_value(list(value.values()), path, depth + 1)


def values_of(node: Schema) -> frozenset[str] | None:
    """The constants that a schema allows, each in one spelling; None where it names none."""
    constants = [node["const"]] if "const" in node else node.get("enum")
    return frozenset(map(_spelling, constants)) if isinstance(constants, list) else None


def _spelling(value: object) -> str:
    if isinstance(value, float) and not value % 1:
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _number(node: Schema, keyword: str, path: str) -> float | None:
    value = node.get(keyword)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{path}.{keyword}", "must be a number.")
    if not abs(value) <= LARGEST_INTEGER:
        refuse(f"{path}.{keyword}", "is beyond what readers of JSON keep exactly (2^53).")
    return value


def _next_integer(bound: float, sign: int) -> int:
    """The integer beside a bound that is not itself allowed."""
    return math.floor(bound) + 1 if sign == 1 else math.ceil(bound) - 1
