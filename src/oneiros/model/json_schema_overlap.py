"""What a schema refers to, which properties it speaks of, and whether two can mean one value."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Mapping, Sequence

from oneiros.model.json_schema_keywords import IN_PLACE, Schema, refuse, values_of

_FURTHEST = 8  # references and branches that are followed in search of an answer


class References:
    """Looks things up in one schema."""

    def __init__(self, root: object, path: str) -> None:
        """`path`: where the schema stands, for messages."""
        self._root = root
        self._path = path

    def target(self, pointer: str, path: str) -> object:
        """What a pointer (RFC 6901) within the schema points at.

        Raises:
            ConstraintError: nothing is there.
        """
        target = self._root
        for step in pointer.split("/")[1:]:
            step = urllib.parse.unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and step in target:
                target = target[step]
            elif isinstance(target, list) and step.isdecimal() and int(step) < len(target):
                target = target[int(step)]
            else:
                refuse(path, f"is not there, and a $ref points at it ({pointer}).")
        return target

    def may_close(self, node: Schema) -> bool:
        """Whether an object of declared properties alone can be valid."""
        required = set(names(node.get("required", []), f"{self._path}.required"))
        if "patternProperties" in node:
            return not required and not any(keyword in node for keyword in IN_PLACE)
        mentioned = required.union(*(self._mentioned(node.get(k), _FURTHEST) for k in IN_PLACE))
        return mentioned <= mapping(node.get("properties", {}), self._path).keys()

    def _mentioned(self, value: object, further: int) -> set[str]:
        """Names of properties that a schema, its branches and references speak of."""
        if isinstance(value, str) and value.startswith("#"):
            value = self.target(value, self._path)
        if isinstance(value, list):
            return set().union(*(self._mentioned(item, further) for item in value))
        if not isinstance(value, dict):
            return set()
        if further == 0:
            return {""}  # too far to look: as if it named something else
        found = {*mapping(value.get("properties", {}), self._path)}
        found |= set(names(value.get("required", []), self._path))
        return found.union(*(self._mentioned(value.get(k), further - 1) for k in IN_PLACE))

    def excludes(self, one: object, other: object, closed: bool, further: int = _FURTHEST) -> bool:
        """Whether no value that is generated for `one` is valid in `other`.

        `closed`: objects of `one` get declared properties only, where they may.
        """
        one, other = self._resolved(one), self._resolved(other)
        if one is False or other is False:
            return True
        if not isinstance(one, dict) or not isinstance(other, dict) or further == 0:
            return False
        return (
            self._branches_exclude(one, other, further)
            or _constants_differ(one, other)
            or not _types(one) & _types(other)
            or (
                _types(one) == _types(other) == {"object"}
                and self._objects(one, other, closed, further)
            )
        )

    def _branches_exclude(self, one: Schema, other: Schema, further: int) -> bool:
        for keyword in ("anyOf", "oneOf"):
            mine, theirs = one.get(keyword), other.get(keyword)
            if isinstance(mine, list) and all(
                self.excludes(branch, other, False, further - 1) for branch in mine
            ):
                return True
            if isinstance(theirs, list) and all(
                self.excludes(one, branch, False, further - 1) for branch in theirs
            ):
                return True
        return False

    def _objects(self, one: Schema, other: Schema, closed: bool, further: int) -> bool:
        mine, theirs = (mapping(s.get("properties", {}), self._path) for s in (one, other))
        my_needs, their_needs = (
            set(names(s.get("required", []), self._path)) for s in (one, other)
        )
        more = one.get("additionalProperties", True)
        only_mine = more is False or (
            more is True and closed and "properties" in one and self.may_close(one)
        )
        if only_mine and "patternProperties" not in one and not their_needs <= mine.keys():
            return True
        return any(
            self.excludes(mine[name], theirs[name], False, further - 1)
            for name in (my_needs | their_needs) & mine.keys() & theirs.keys()
        )

    def _resolved(self, node: object) -> object:
        for _ in range(_FURTHEST):
            if not isinstance(node, dict) or not isinstance(node.get("$ref"), str):
                return node
            node = self.target(node["$ref"], self._path)
        return node


def mapping(value: object, path: str) -> Mapping[str, object]:
    """A value that has to be an object, or ConstraintError."""
    if not isinstance(value, dict):
        refuse(path, "must be an object.")
    return value


def names(value: object, path: str) -> list[str]:
    """A list that has to be one of names, each once, or ConstraintError."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        refuse(path, "must be a list of names.")
    return list(dict.fromkeys(value))


def _constants_differ(one: Schema, other: Schema) -> bool:
    values, others = values_of(one), values_of(other)
    return values is not None and others is not None and not values & others


def _types(node: Schema) -> set[str]:
    """The types of value that a schema may allow; integers are numbers."""
    constants = values_of(node)
    if constants is not None:
        return {_type(json.loads(text)) for text in constants}
    named = node.get("type")
    types: Sequence[object] = [named] if isinstance(named, str) else []
    if isinstance(named, list):
        types = named
    if not types:
        return {"null", "boolean", "number", "string", "array", "object"}
    return {"number" if name == "integer" else str(name) for name in types}


def _type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"
