"""Whether arguments are what a tool's JSON schema takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_LONGEST = 300  # characters of what is said about one argument


def misfit(schema: Mapping[str, object], arguments: object) -> str | None:
    """What is wrong with arguments, or with their schema; None: nothing.

    Servers write schemas. One that is no JSON schema, or refers to what is not in it, takes no
    arguments: nothing is ever fetched.
    """
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        wrong = next(_validator(json.dumps(schema)).iter_errors(arguments), None)
    except (SchemaError, Unresolvable, RecursionError) as error:
        said = error.message if isinstance(error, SchemaError) else str(error)
        return f"its schema is broken, so that it cannot be called: {said[:_LONGEST]}"
    if wrong is None:
        return None
    place = ".".join(map(str, wrong.absolute_path)) or "the arguments"
    return f"{place}: {wrong.message[:_LONGEST]}"


@lru_cache(maxsize=500)
def _validator(schema: str) -> Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    parsed = json.loads(schema)
    Draft202012Validator.check_schema(parsed)
    # The registry that is used by default opens addresses.
    return Draft202012Validator(parsed, registry=Registry())
