"""What a schema refers to, which properties it speaks of, and whether two can mean one value."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oneiros.model.json_schema_keywords import (
    IN_PLACE,
    Schema,
    check_value,
    refuse,
    values_of,
)

_FURTHEST = 8  # references and branches that are followed in search of an answer

# Steps of work that a schema is worth: a few for each of its characters, because comparing branches
# takes the square of their number, and at most what takes about a second.
_LEAST_WORK, _WORK_PER_CHARACTER, _MOST_WORK = 5_000, 16, 500_000


class Work:
    """Counts the steps spent on one schema, so that the same one is refused on every machine."""

    def __init__(self, characters: int) -> None:
        """`characters`: of the schema as JSON."""
        self._left = min(_LEAST_WORK + _WORK_PER_CHARACTER * characters, _MOST_WORK)

    def spend(self, steps: int, path: str) -> None:
        """Count steps that are about to be done for the sake of what stands at `path`.

        Raises:
            ConstraintError: they are more than the schema is worth.
        """
        self._left -= steps
        if self._left < 0:
            refuse(
                path,
                "too complex. Use fewer branches of anyOf and oneOf, and fewer references from "
                "them to each other.",
            )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one schema says by itself; properties and required of objects only."""

    constants: frozenset[str] | None
    types: frozenset[str]
    properties: Mapping[str, object]
    required: tuple[str, ...]


class References:
    """Looks things up in one schema.

    Answers are kept by the identity of the schemas they are about, which all are parts of the
    root: otherwise recursive schemas would ask for the same ones exponentially often.
    """

    def __init__(self, root: object, work: Work) -> None:
        self._root = root
        self._work = work
        self._targets: dict[str, object] = {}
        self._facts_of: dict[int, _Facts] = {}
        self._closable: dict[int, bool] = {}
        self._excluded: dict[tuple[int, int, bool, int], bool] = {}

    def target(self, pointer: str, path: str) -> object:
        """What a pointer (RFC 6901) within the schema points at.

        Raises:
            ConstraintError: nothing is there.
        """
        if pointer in self._targets:
            return self._targets[pointer]
        target = self._root
        for step in pointer.split("/")[1:]:
            step = urllib.parse.unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and step in target:
                target = target[step]
            elif isinstance(target, list) and (index := _index(step)) < len(target):
                target = target[index]
            else:
                refuse(path, f"is not there, and a $ref points at it ({pointer}).")
        self._targets[pointer] = target
        return target

    def may_close(self, node: Schema, path: str) -> bool:
        """Whether an object of declared properties alone can be valid."""
        if id(node) not in self._closable:
            required = set(names(node.get("required", []), f"{path}.required"))
            if "patternProperties" in node:
                may = not required and not any(keyword in node for keyword in IN_PLACE)
            else:
                mentioned = required | self._mentioned(node, path)
                may = mentioned <= mapping(node.get("properties", {}), path).keys()
            self._closable[id(node)] = may
        return self._closable[id(node)]

    def _mentioned(self, node: Schema, path: str) -> set[str]:
        """Names of properties that the branches and references of a schema speak of."""
        found: set[str] = set()
        seen: set[int] = set()
        waiting = self._in_place(node, path)
        while waiting:
            value = waiting.pop()
            if not isinstance(value, dict) or id(value) in seen:
                continue
            seen.add(id(value))
            properties = mapping(value.get("properties", {}), path)
            required = names(value.get("required", []), path)
            self._work.spend(1 + len(properties) + len(required), path)
            found.update(properties, required)
            waiting += self._in_place(value, path)
        return found

    def _in_place(self, node: Schema, path: str) -> list[object]:
        """The schemas that apply to the same value as this one."""
        reference = node.get("$ref")
        schemas = [self.target(reference, path)] if isinstance(reference, str) else []
        for keyword in IN_PLACE:
            branches = node.get(keyword)
            if isinstance(branches, list):
                schemas += branches
        self._work.spend(len(schemas), path)
        return schemas

    def overlap(self, branches: Sequence[object], closed: bool, path: str) -> list[int] | None:
        """Two branches of `oneOf` that may allow the same value, or None.

        Args:
            branches: the schemas.
            closed: objects get declared properties only, where they may.
            path: of the keyword, for messages.

        Raises:
            ConstraintError: there are too many to compare.
        """
        owners: dict[str, int] = {}
        others: dict[int, None] = {}  # branches that are no constants, to be compared one by one
        for i, branch in enumerate(branches):
            resolved = self._resolved(branch, path)
            facts = self._facts(resolved, path) if isinstance(resolved, dict) else None
            if facts is None or facts.constants is None:
                others[i] = None
                continue
            for constant in facts.constants:
                if owners.setdefault(constant, i) != i:
                    return [owners[constant], i]
        self._work.spend(len(others) * len(branches), path)
        for i in others:
            for j, branch in enumerate(branches):
                if i == j or (j < i and j in others):
                    continue
                if not (
                    self.excludes(branches[i], branch, closed, path)
                    and self.excludes(branch, branches[i], closed, path)
                ):
                    return sorted((i, j))
        return None

    def excludes(
        self, one: object, other: object, closed: bool, path: str, further: int = _FURTHEST
    ) -> bool:
        """Whether no value that is generated for `one` is valid in `other`.

        `closed`: objects of `one` get declared properties only, where they may.
        """
        self._work.spend(1, path)
        one, other = self._resolved(one, path), self._resolved(other, path)
        if one is False or other is False:
            return True
        if not isinstance(one, dict) or not isinstance(other, dict) or further == 0:
            return False
        key = id(one), id(other), closed, further
        if key not in self._excluded:
            mine, theirs = self._facts(one, path), self._facts(other, path)
            self._excluded[key] = (
                self._constants_differ(mine, theirs, path)
                or not mine.types & theirs.types
                or self._branches_exclude(one, other, path, further)
                or (
                    mine.types == theirs.types == {"object"}
                    and self._objects(one, other, closed, path, further)
                )
            )
        return self._excluded[key]

    def _branches_exclude(self, one: Schema, other: Schema, path: str, further: int) -> bool:
        for keyword in ("anyOf", "oneOf"):
            mine, theirs = one.get(keyword), other.get(keyword)
            if isinstance(mine, list) and all(
                self.excludes(branch, other, False, path, further - 1) for branch in mine
            ):
                return True
            if isinstance(theirs, list) and all(
                self.excludes(one, branch, False, path, further - 1) for branch in theirs
            ):
                return True
        return False

    def _objects(self, one: Schema, other: Schema, closed: bool, path: str, further: int) -> bool:
        mine, theirs = self._facts(one, path), self._facts(other, path)
        self._work.spend(len(mine.required) + 2 * len(theirs.required), path)
        more = one.get("additionalProperties", True)
        only_mine = more is False or (
            more is True and closed and "properties" in one and self.may_close(one, path)
        )
        if (
            only_mine
            and "patternProperties" not in one
            and not all(name in mine.properties for name in theirs.required)
        ):
            return True
        return any(
            self.excludes(mine.properties[name], theirs.properties[name], False, path, further - 1)
            for name in (*mine.required, *theirs.required)
            if name in mine.properties and name in theirs.properties
        )

    def _constants_differ(self, one: _Facts, other: _Facts, path: str) -> bool:
        if one.constants is None or other.constants is None:
            return False
        self._work.spend(min(len(one.constants), len(other.constants)), path)
        return one.constants.isdisjoint(other.constants)

    def _facts(self, node: Schema, path: str) -> _Facts:
        if id(node) not in self._facts_of:
            for keyword in ("const", "enum"):
                check_value(node.get(keyword), path)
            constants = values_of(node)
            types = _types(node, constants)
            objects = types == {"object"}
            properties = mapping(node.get("properties", {}), path) if objects else {}
            required = tuple(names(node.get("required", []), path)) if objects else ()
            self._work.spend(len(required) + sum(map(len, constants or ())) // 16, path)
            self._facts_of[id(node)] = _Facts(constants, types, properties, required)
        return self._facts_of[id(node)]

    def _resolved(self, node: object, path: str) -> object:
        for _ in range(_FURTHEST):
            if not isinstance(node, dict) or not isinstance(node.get("$ref"), str):
                return node
            node = self.target(node["$ref"], path)
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


def _index(step: str) -> int:
    """The place in a list that a step of a pointer names; beyond all lists if it names none."""
    return int(step) if re.fullmatch(r"0|[1-9][0-9]{0,8}", step) else 10**9


def _types(node: Schema, constants: frozenset[str] | None) -> frozenset[str]:
    """The types of value that a schema may allow; integers are numbers."""
    if constants is not None:
        return frozenset(_type(json.loads(text)) for text in constants)
    named = node.get("type")
    types: Sequence[object] = [named] if isinstance(named, str) else []
    if isinstance(named, list):
        types = named
    if not types:
        return frozenset({"null", "boolean", "number", "string", "array", "object"})
    return frozenset("number" if name == "integer" else str(name) for name in types)


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
