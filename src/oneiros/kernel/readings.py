"""Readings: what calls brought, as records with fields that their tools vouch for.

A tool's contract says which fields of its output no outsider can write, or not more than a short
plain value: ids, amounts, senders. Those are what a decision may rest on; everything else in a
result is somebody's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from oneiros.kernel.contract import Contract

Arguments = dict[str, object]
Scalar = str | int | float | bool
Compared = str | Decimal

VALUE = "value"  # the field of a record that is one value
_LONGEST = 80  # characters of a plain text
_MOST_WORDS = 12
# Not "007", nor "1,2": what is written so is a name.
_NUMBER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|0|[1-9][0-9]*)(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """A call that ended well, and what it brought."""

    tool: str
    arguments: Arguments
    contract: Contract
    data: object  # JSON-like; None: the result had none
    clean: bool  # whether nothing untrusted had been read when the call was made
    private: bool  # whether not everybody may read what it brought
    origins: frozenset[str]  # untrusted origins of what it brought


@dataclass(frozen=True, slots=True)
class Field:
    """A value in a record that the record's tool vouches for."""

    record: int  # its number in the output
    path: str  # "sender"; within others "owner.name"
    value: Scalar


def records(data: object) -> list[Mapping[str, object]]:
    """An output as records: a list's elements, or the one that there is."""
    if data is None:
        return []
    elements = data if isinstance(data, list | tuple) else [data]
    return [one if isinstance(one, Mapping) else {VALUE: one} for one in elements]


def leaves(
    value: object, path: str = "", *, with_names: bool = False
) -> Iterator[tuple[str, Scalar]]:
    """The values in something JSON-like, with their paths; a list's elements share its path.

    Args:
        value: of any depth.
        path: its own.
        with_names: also the names in objects, with the path of their object, but for the outermost.
            In arguments that a process made up they are its words as much as the values.
    """
    waiting = [(path, value)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            inner = [(f"{path}.{name}" if path else str(name), one) for name, one in value.items()]
            waiting += reversed(inner)
            if with_names and path:
                yield from ((path, str(name)) for name in value)
        elif isinstance(value, list | tuple):
            waiting += ((path, one) for one in reversed(value))
        elif isinstance(value, str | int | float):
            yield path, value


def is_under(path: str, names: tuple[str, ...]) -> bool:
    """Whether a path is one of the names, or within one; "*" is every path."""
    return any(name in ("*", path) or path.startswith(f"{name}.") for name in names)


def is_vouched(path: str, trusted: tuple[str, ...]) -> bool:
    """Whether a tool's trusted fields cover a path of its output.

    A field is a value, or a list of values. What an object holds has to be named itself
    ("owner.name"): whoever fills an object might choose its keys, too, and spell something by
    them. "*" vouches for all of an output, its keys too: plain ones.
    """
    return path in trusted or ("*" in trusted and is_plain(path))


def is_plain(value: Scalar) -> bool:
    """Whether a value is a number, or a line so short that it holds no message."""
    if not isinstance(value, str):
        return True
    return len(value) <= _LONGEST and value.isprintable() and value.count(" ") < _MOST_WORDS


def vouched(data: object, contract: Contract) -> bool:
    """Whether an output consists of fields alone that its tool vouches for, all of them plain."""
    return bool(contract.trusted_fields) and all(
        is_vouched(path, contract.trusted_fields) and is_plain(value)
        for record in records(data)
        for path, value in leaves(record)
    )


@lru_cache(maxsize=4096)
def fields_of(reading: Reading) -> tuple[Field, ...]:
    """The values that a reading's tool vouches for."""
    trusted = reading.contract.trusted_fields
    if not trusted:
        return ()
    return tuple(
        Field(number, path, value)
        for number, record in enumerate(records(reading.data))
        for path, value in leaves(record)
        if is_vouched(path, trusted) and is_plain(value)
    )


@lru_cache(maxsize=4096)
def values_of(reading: Reading) -> frozenset[Compared]:
    """The same values without their places, as `same` compares them."""
    return frozenset(same(field.value) for field in fields_of(reading))


def same(value: Scalar) -> Compared:
    """A value as it is compared: a number that is written as a text is that number, exactly."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        return Decimal(text.replace(",", "")) if _NUMBER.fullmatch(text) else text
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def computes(contract: Contract) -> bool:
    """Whether a tool only computes: its output depends on its arguments, and on nobody else."""
    return not (contract.effects or contract.origins or contract.private)
