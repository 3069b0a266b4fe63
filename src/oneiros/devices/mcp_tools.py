"""Tools of MCP servers as tools of ours: names, descriptions and schemas, all of them untrusted."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from oneiros.errors import ConstraintError
from oneiros.model.json_schema import check_schema
from oneiros.model.json_schema_keywords import ANNOTATIONS, KNOWN, TYPES

LONGEST_NAME = 64
LONGEST_DESCRIPTION = 600  # characters
LONGEST_NOTE = 160  # characters of a parameter's description
LARGEST_SCHEMA = 20_000  # characters of JSON
MOST_TOOLS = 1_000  # of one server

_HASHED = re.compile(r"_[0-9a-f]{8}$")
_DEEPEST = 32
_NAMES = ("properties", "$defs", "definitions")  # their keys are names, not keywords
_LISTS = ("anyOf", "allOf", "prefixItems")
_SCHEMAS = frozenset({*_NAMES, *_LISTS, "oneOf", "items", "additionalProperties"})
# Python's regular expressions, with which arguments are checked, can be made to run for ever.
_UNSAFE = frozenset({"pattern", "patternProperties"})


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool as a server describes it."""

    name: str
    description: str
    schema: Mapping[str, object]  # of its arguments, as the server gave it
    hints: tuple[str, ...] = ()  # what the server says of its effects, which nothing relies on

    @property
    def sha256(self) -> str:
        """A hash of all of it: what a person agreed to is not what the server may say later."""
        parts = [self.name, self.description, self.schema]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Adopted:
    """A tool as models are shown it."""

    definition: Definition
    description: str
    parameters: Mapping[str, object]
    notes: tuple[str, ...] = ()  # what of its schema is not enforced


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tool that is not offered."""

    name: str
    reason: str


def adopt(server: str, definitions: Sequence[Definition]) -> tuple[list[Adopted], list[LeftOut]]:
    """The tools of a server that can be offered, and those that cannot."""
    adopted: dict[str, Adopted] = {}
    left_out: list[LeftOut] = []
    for definition in definitions[:MOST_TOOLS]:
        shown = plain(definition.name, 80)
        if definition.name in adopted:
            left_out.append(LeftOut(shown, "the server lists another tool of this name"))
            continue
        try:
            parameters, notes = simplified(definition.schema)
        except ConstraintError as error:
            left_out.append(LeftOut(shown, f"its schema cannot be enforced: {error}"))
            continue
        said = plain(definition.description, LONGEST_DESCRIPTION)
        description = said or f"{shown} of the MCP server {server}."
        adopted[definition.name] = Adopted(definition, description, parameters, notes)
    if len(definitions) > MOST_TOOLS:
        reason = f"only the first {MOST_TOOLS:,} tools of a server are offered"
        left_out.append(LeftOut(f"{len(definitions) - MOST_TOOLS:,} more", reason))
    return list(adopted.values()), left_out


def named(tools: Iterable[tuple[str, str]], reserved: Collection[str] = ()) -> list[str]:
    """Valid names, each once, for (server, tool).

    SERVER_TOOL where that is a name and nobody else's; otherwise it ends in a hash of both, and so
    does what looks as if it did. Names do not depend on the order of servers.
    """
    pairs = list(tools)
    wanted = [re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}_{tool}") for server, tool in pairs]
    often = Counter(wanted)
    names = []
    for (server, tool), name in zip(pairs, wanted, strict=True):
        exact = re.sub(r"[ ./]", "_", f"{server}_{tool}") == name and not _HASHED.search(name)
        if often[name] > 1 or name in reserved or len(name) > LONGEST_NAME or not exact:
            digest = hashlib.sha256(f"{server}\0{tool}".encode("utf-8", "replace")).hexdigest()[:8]
            name = f"{name[: LONGEST_NAME - 9]}_{digest}"
        names.append(name)
    return names


def plain(text: str, longest: int) -> str:
    """Untrusted text in one line: bounded, and without characters that nobody sees.

    Control and format characters, private ones and halves of pairs go: they hide instructions from
    people that models read.
    """
    kept = "".join(
        " " if c.isspace() else c
        for c in text[: 8 * longest]
        if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    line = " ".join(kept.split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def simplified(schema: Mapping[str, object]) -> tuple[dict[str, object], tuple[str, ...]]:
    """A schema of arguments that constrained decoding enforces, and what of the given it does not.

    It may be wider than the given one: the server checks its arguments itself.

    Raises:
        ConstraintError: there is none.
    """
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConstraintError("it is not JSON, or nested too deeply.") from error
    if size > LARGEST_SCHEMA:
        raise ConstraintError(f"it has {size:,} characters, and {LARGEST_SCHEMA:,} are the limit.")
    notes: list[str] = []
    result = _cleaned(schema, "", notes, 0)
    # Servers leave these out of tools without arguments.
    result = {"type": "object", "properties": {}} | result
    if result["type"] != "object" or not isinstance(result["properties"], dict):
        raise ConstraintError("it is none of an object's.")
    if _error(result) is not None:
        result = _loosened(result, notes)
    if (wrong := _error(result)) is not None:
        raise wrong
    return result, tuple(notes[:20])


def _error(schema: Mapping[str, object]) -> ConstraintError | None:
    try:
        check_schema(schema, "arguments")
    except ConstraintError as error:
        return error
    return None


def _cleaned(
    node: Mapping[str, object], place: str, notes: list[str], depth: int
) -> dict[str, object]:
    """A schema without what says nothing, is not supported, or is not safe."""
    if depth > _DEEPEST:
        raise ConstraintError("it is nested too deeply.")
    result: dict[str, object] = {}
    for key, value in node.items():
        if key in _NAMES and isinstance(value, dict):
            for name in value:
                if not name or not _is_shown_as_it_is(name):
                    raise ConstraintError(f"a name in it is {name[:40]!r}.")
            result[key] = {
                name: _part(inner, f"{place}.{name}".lstrip("."), notes, depth)
                for name, inner in value.items()
            }
        elif key == "oneOf" and isinstance(value, list) and "anyOf" not in node:
            result["anyOf"] = [_part(inner, place, notes, depth) for inner in value]
        elif key in _LISTS and isinstance(value, list):
            result[key] = [_part(inner, place, notes, depth) for inner in value]
        elif key in ("items", "additionalProperties") and isinstance(value, dict | bool):
            result[key] = _part(value, place, notes, depth)
        elif key == "description" and isinstance(value, str):
            if text := plain(value, LONGEST_NOTE):
                result[key] = text
        elif key == "default":
            if _is_shown_as_it_is(value):
                result[key] = value
        elif key in KNOWN - _UNSAFE - _SCHEMAS and _is_shown_as_it_is(value):
            result[key] = value
        elif key not in ANNOTATIONS and not key.startswith("x-"):
            notes.append(f"{plain(place, 60) or 'arguments'}: {plain(key, 30)} is not enforced")
    return result


def _is_shown_as_it_is(value: object) -> bool:
    """Whether all texts in a value are short, and what people see of them is all there is."""
    match value:
        case str():
            return plain(value, 100) == value
        case list():
            return all(map(_is_shown_as_it_is, value))
        case dict():
            return all(map(_is_shown_as_it_is, (*value, *value.values())))
    return True


def _part(value: object, place: str, notes: list[str], depth: int) -> object:
    return _cleaned(value, place, notes, depth + 1) if isinstance(value, dict) else value


def _loosened(schema: Mapping[str, object], notes: list[str]) -> dict[str, object]:
    """The schema with arguments that may be anything of their type, where theirs is not supported.

    What they refer to goes along, because it may be what is not supported.
    """
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    properties = schema["properties"]
    assert isinstance(properties, dict)
    kept: dict[str, object] = {}
    for name, inner in properties.items():
        if _error({"type": "object", "properties": {name: inner}, **shared}) is None:
            kept[name] = inner
            continue
        notes.append(f"{plain(name, 60)}: only its type is enforced")
        kind = inner.get("type") if isinstance(inner, dict) else None
        said = inner.get("description") if isinstance(inner, dict) else None
        kept[name] = ({"description": said} if said else {}) | (
            {"type": kind} if kind in TYPES else {}
        )
    needed = schema.get("required", [])
    return {
        "type": "object",
        "properties": kept,
        "required": needed if isinstance(needed, list) else [],
        **shared,
    }
