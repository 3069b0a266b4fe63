"""JSON schemas that constrained decoding enforces whole, or refuses by the place of a keyword.

llguidance ignores or rejects some keywords, and a few combinations come out wider than they should
(an additional property may spell a declared name with an escape). Here a schema is translated into
one without them: references are flattened, bounds made inclusive, `oneOf` becomes `anyOf` where
that is provably the same, and what cannot be enforced is an error. A complete output is always
valid by the schema as it was given.

Translations may be narrower than the schema where that serves: objects get no properties but
those that they declare, unless `additionalProperties` says so, because small models would go on
inventing some; and integers stay within what all readers of JSON keep exactly.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator

from oneiros.model.json_schema_keywords import (
    ANNOTATIONS,
    IN_PLACE,
    KNOWN,
    OBJECT,
    OBJECT_SIZE,
    REFUSED,
    Schema,
    check_value,
    count,
    number_keywords,
    refuse,
    string_keywords,
    types_of,
)
from oneiros.model.json_schema_overlap import References, Work, mapping, names

# How far a schema may be narrowed: not at all, because others describe the same value; to declared
# properties where it says nothing of additional ones; or also where it allows all of them.
_OPEN, _CLOSED, _STRICT = 0, 1, 2

# Keywords that are not supported, with values that change nothing.
_HARMLESS = (("uniqueItems", False), ("propertyNames", {"type": "string"}), ("propertyNames", True))

_DEEPEST = 48
_MOST_SCHEMAS = 4_000
_MOST_PROPERTIES = 500  # of one object; all optional ones are alternatives at each place
_CONTROL = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
_CONTROL_PATTERN = re.compile(r"[\x00-\x1f\x7f]|\\[vxuc0]")
_OLD_DRAFT = re.compile(r"draft-0[3467]|2019-09")


def check_schema(schema: object, path: str = "schema") -> None:
    """Check that constrained decoding can enforce a schema.

    Args:
        schema: as parsed from JSON.
        path: where it stands, for messages.

    Raises:
        ConstraintError: a keyword is unknown, malformed or not supported; the message begins with
            its path ("parameters.properties.city.not: ...").
    """
    enforceable_schema(schema, path)


def enforceable_schema(schema: object, path: str = "schema") -> dict[str, object]:
    """An equal or narrower schema that llguidance enforces, with its settings under "x-guidance".

    Raises:
        ConstraintError: as `check_schema`.
    """
    return _Translation(schema, path).result()


class _Translation:
    """Translates a schema, one definition after the other."""

    def __init__(self, root: object, path: str) -> None:
        self._root = root
        self._path = path
        self._work = Work(self._characters())
        self._references = References(root, self._work)
        draft = root.get("$schema") if isinstance(root, dict) else None
        self._old = isinstance(draft, str) and _OLD_DRAFT.search(draft) is not None
        self._draft4 = isinstance(draft, str) and "draft-04" in draft
        self._schemas = 0
        self._open_names = False  # an object has declared and additional properties
        self._control: list[str] = []  # places of constants and patterns with control characters
        self._names: dict[tuple[str, int], str] = {}  # (pointer, closing) -> name of definition
        self._waiting: deque[tuple[str, int]] = deque()
        self._in_place: dict[str, set[str]] = {}  # definition -> those it refers to as itself

    def result(self) -> dict[str, object]:
        root = self._reference("#", _CLOSED)
        definitions: dict[str, object] = {}
        while self._waiting:
            pointer, closing = self._waiting.popleft()
            name = self._names[pointer, closing]
            path = self._path + pointer.removeprefix("#").replace("/", ".")
            definitions[name] = self._schema(
                self._references.target(pointer, path), path, closing, name, 0
            )
        self._check_cycles()
        if self._open_names and self._control:
            refuse(
                self._control[0],
                "has control characters, which are not supported beside additional properties: "
                "set additionalProperties to false.",
            )
        escapes = 'nrbtf\\"' + ("" if self._open_names else "u")
        return {
            # The way Python and chat templates write JSON. Free white space would let a model
            # write nothing but that.
            "x-guidance": {
                "whitespace_flexible": False,
                "item_separator": ", ",
                "key_separator": ": ",
                "json_allowed_escapes": escapes,
            },
            "$defs": definitions,
            **root,
        }

    def _characters(self) -> int:
        """The length of the schema as JSON, which it has to be."""
        try:
            return len(json.dumps(self._root, allow_nan=False, ensure_ascii=False).encode())
        except UnicodeEncodeError:
            refuse(self._path, "holds half of a surrogate pair, which is no character.")
        except (ValueError, TypeError, RecursionError):
            refuse(self._path, "is not JSON: nested too deeply, circular, or NaN.")

    def _reference(self, pointer: str, closing: int) -> dict[str, object]:
        key = pointer, closing
        if key not in self._names:
            self._names[key] = str(len(self._names))
            self._waiting.append(key)
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _schema(
        self, node: object, path: str, closing: int, inside: str | None, depth: int
    ) -> dict[str, object] | bool:
        """Translate one schema.

        Args:
            node: the schema.
            path: its place.
            closing: how far it may be narrowed.
            inside: the definition whose value this is itself, not a part of it.
            depth: of nesting.
        """
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            refuse(path, "a schema is an object, true or false.")
        self._schemas += 1
        if depth > _DEEPEST or self._schemas > _MOST_SCHEMAS:
            refuse(path, f"nested deeper than {_DEEPEST}, or more than {_MOST_SCHEMAS:,} schemas.")
        self._work.spend(_size(node), path)
        self._check_keywords(node, path)
        types = types_of(node, path)
        result: dict[str, object] = {}
        if types is not None:
            result["type"] = types if len(types) > 1 else types[0]
        for keyword in ("const", "enum"):
            if keyword in node:
                result[keyword] = self._constant(node[keyword], f"{path}.{keyword}", keyword)
        possible = types or ["number", "string", "array", "object"]
        if {"number", "integer"} & set(possible):
            result |= number_keywords(node, possible, path, self._draft4)
        if "string" in possible:
            result |= string_keywords(node, path)
            if _CONTROL_PATTERN.search(str(node.get("pattern", ""))):
                self._control.append(f"{path}.pattern")
        if "array" in possible:
            result |= self._array(node, path, depth)
        if "object" in possible:
            result |= self._object(node, path, closing, depth)
        applied = [
            *_list(result.pop("allOf", [])),
            *self._applied(node, path, closing, inside, depth),
        ]
        if applied:
            result["allOf"] = applied
        return result

    def _check_keywords(self, node: Schema, path: str) -> None:
        for keyword, value in node.items():
            place = f"{path}.{keyword}"
            if (keyword, value) in _HARMLESS:
                continue
            if keyword in REFUSED:
                refuse(place, "not supported.")
            if keyword == "$id" and path != self._path:
                refuse(place, "only supported at the root.")
            if keyword not in KNOWN and keyword not in ANNOTATIONS and not keyword.startswith("x-"):
                refuse(place, "no keyword of JSON Schema.")

    def _constant(self, value: object, path: str, keyword: str) -> object:
        if keyword == "enum" and (not isinstance(value, list) or not value):
            refuse(path, "must be a list of at least one value.")
        check_value(value, path)
        text = "".join(_strings(value))
        self._work.spend(len(text) // 16, path)
        if _CONTROL.search(text):
            self._control.append(path)
        return value

    def _array(self, node: Schema, path: str, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        for keyword in ("minItems", "maxItems"):
            number = count(node, keyword, path)
            result |= {} if number is None else {keyword: number}
        first, rest, named = node.get("prefixItems"), node.get("items"), "items"
        if isinstance(rest, list):
            if not self._old:
                refuse(f"{path}.items", "must be one schema; prefixItems takes a list of them.")
            first, rest, named = rest, node.get("additionalItems"), "additionalItems"
        elif first is not None and self._old:
            refuse(f"{path}.prefixItems", "no keyword of the draft that $schema names.")
        if first is not None:
            if not isinstance(first, list):
                refuse(f"{path}.prefixItems", "must be a list of schemas.")
            result["prefixItems"] = [
                self._schema(item, f"{path}.prefixItems.{i}", _CLOSED, None, depth + 1)
                for i, item in enumerate(first)
            ]
        if rest is not None:
            result["items"] = self._schema(rest, f"{path}.{named}", _CLOSED, None, depth + 1)
        return result

    def _object(self, node: Schema, path: str, closing: int, depth: int) -> dict[str, object]:
        properties = mapping(node.get("properties", {}), f"{path}.properties")
        patterns = mapping(node.get("patternProperties", {}), f"{path}.patternProperties")
        if len(properties) > _MOST_PROPERTIES:
            refuse(f"{path}.properties", f"more than {_MOST_PROPERTIES} properties.")
        required = names(node.get("required", []), f"{path}.required")
        result: dict[str, object] = {}
        if "properties" in node:
            result["properties"] = {
                name: self._schema(value, f"{path}.properties.{name}", _CLOSED, None, depth + 1)
                for name, value in properties.items()
            }
        if patterns:
            result["patternProperties"] = {
                name: self._schema(
                    value, f"{path}.patternProperties.{name}", _CLOSED, None, depth + 1
                )
                for name, value in patterns.items()
            }
            if any(_CONTROL_PATTERN.search(pattern) for pattern in patterns):
                self._control.append(f"{path}.patternProperties")
        more = node.get("additionalProperties")
        undecided = more is None or (more is True and closing == _STRICT)
        declares = "properties" in node or bool(patterns)
        if closing and undecided and declares and self._references.may_close(node, path):
            result["additionalProperties"] = False
        elif more is not None:
            place = f"{path}.additionalProperties"
            result["additionalProperties"] = self._schema(more, place, _CLOSED, None, depth + 1)
        if required:
            result["required"] = required
        if result.get("additionalProperties") is not False and (properties or patterns or required):
            self._open_names = True
        return result | _sizes(node, path, set(properties), set(required), result)

    def _applied(
        self, node: Schema, path: str, closing: int, inside: str | None, depth: int
    ) -> Iterator[object]:
        """Translations of the further schemas that apply to the same value."""
        present = [keyword for keyword in IN_PLACE if keyword in node]
        alone = len(present) == 1 and not any(k in node for k in (*OBJECT, *OBJECT_SIZE))
        for keyword in present:
            place, value = f"{path}.{keyword}", node[keyword]
            if keyword == "$ref":
                yield self._referred(value, place, closing if alone else _OPEN, inside)
                continue
            if not isinstance(value, list) or not value:
                refuse(place, "must be a list of at least one schema.")
            narrow = closing if alone and (keyword != "allOf" or len(value) == 1) else _OPEN
            if keyword == "oneOf":
                narrow = _STRICT if narrow else _OPEN
            branches = [
                self._schema(item, f"{place}.{i}", narrow, inside, depth + 1)
                for i, item in enumerate(value)
            ]
            if keyword == "oneOf":
                self._check_exclusive(value, place, narrow == _STRICT)
            if keyword == "allOf":
                yield from branches
            else:
                yield {"anyOf": branches}

    def _referred(
        self, value: object, place: str, closing: int, inside: str | None
    ) -> dict[str, object]:
        if not isinstance(value, str):
            refuse(place, "must be a text.")
        if value != "#" and not value.startswith("#/"):
            refuse(
                place, f"{value!r}: only references within the schema (#/$defs/...) are followed."
            )
        target = self._references.target(value, place)
        if not isinstance(target, dict | bool):
            refuse(place, f"{value!r} is no schema.")
        reference = self._reference(value, closing)
        if inside is not None:
            self._in_place.setdefault(inside, set()).add(self._names[value, closing])
        return reference

    def _check_cycles(self) -> None:
        """Refuse definitions that are defined as themselves."""
        done: set[str] = set()
        for start in self._in_place:
            trail = [(start, iter(sorted(self._in_place[start])))]
            open_ = {start}
            while trail:
                name, others = trail[-1]
                other = next(others, None)
                if other in open_:
                    pointer = next(p for (p, _), n in self._names.items() if n == other)
                    refuse(self._path, f"{pointer} is defined as itself, by way of $ref.")
                if other is None:
                    trail.pop()
                    open_.discard(name)
                    done.add(name)
                elif other not in done:
                    open_.add(other)
                    trail.append((other, iter(sorted(self._in_place.get(other, ())))))

    def _check_exclusive(self, branches: list[object], path: str, closed: bool) -> None:
        """Refuse oneOf unless what one branch generates is certainly invalid in the others."""
        both = self._references.overlap(branches, closed, path)
        if both is not None:
            refuse(
                path,
                f"branches {both[0]} and {both[1]} may allow the same value. Give them different "
                "types, or a required property with different constants; or use anyOf.",
            )


def _sizes(
    node: Schema, path: str, properties: set[str], required: set[str], result: Schema
) -> dict[str, object]:
    """The numbers of properties, as far as they are not certain anyway.

    llguidance counts additional names twice that occur twice, and counts no optional ones.
    """
    least, most = (count(node, keyword, path) for keyword in OBJECT_SIZE)
    optional = properties - required
    sizes: dict[str, object] = {}
    if least is not None and least > len(required):
        if optional or least > 1:
            refuse(f"{path}.minProperties", "not supported beside optional properties, or above 1.")
        sizes["minProperties"] = least
    bounded = result.get("additionalProperties") is False and "patternProperties" not in result
    if most is not None and not (bounded and len(properties) <= most):
        if optional:
            refuse(f"{path}.maxProperties", "not supported beside optional properties.")
        sizes["maxProperties"] = most
    return sizes


def _size(node: Schema) -> int:
    """Entries of a schema, and its characters by 16, without those of the schemas in it."""
    size = 0
    for value in node.values():
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list | dict):
            size += len(texts) + sum(len(text) for text in texts if isinstance(text, str)) // 16
    return size + len(node)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
