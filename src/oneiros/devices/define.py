"""Devices from functions: schema, description and checks come from the function itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from oneiros.kernel.contract import Contract
from oneiros.kernel.tools import (
    CallContext,
    Json,
    Outcome,
    Reconcile,
    Tool,
    ToolError,
    ToolResult,
)
from oneiros.model.json_schema import check_schema

DeviceFunction = Callable[..., Awaitable[Outcome | str]]

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_SHOWN: Final = 80  # characters of a wrong value that a message repeats


def device(
    *, contract: Contract, name: str | None = None, reconcile: Reconcile | None = None
) -> Callable[[DeviceFunction], Tool]:
    """Make a tool of an async function whose first parameter is `context`, the `CallContext`.

    The other parameters are the tool's: their hints become its JSON schema, with what
    `Annotated[..., Field(description=...)]` adds, and arguments are coerced to them (null stands
    for an argument that is left out). The first paragraph of the docstring is the description.

    Args:
        contract: what the tool may do.
        name: of the tool; default: the function's.
        reconcile: finds out whether a call of unknown outcome happened.

    Raises:
        TypeError: the function or its contract do not fit: a mistake in the program.
        ConstraintError: a hint's schema cannot be enforced on models.
    """

    def define(function: DeviceFunction) -> Tool:
        named = name or str(getattr(function, "__name__", ""))
        if not _NAME.fullmatch(named):
            raise TypeError(f'"{named}" is no name for a tool: letters, digits, "_", "-", up to 64')
        arguments = _arguments(named, function)
        _check_contract(named, contract, arguments)
        schema = _compact(arguments.model_json_schema())
        check_schema(schema, named)

        async def run(given: Json, context: CallContext) -> Outcome:
            outcome = await function(context, **_checked(named, arguments, given))
            return ToolResult(outcome) if isinstance(outcome, str) else outcome

        return Tool(
            name=named,
            description=_description(named, function),
            parameters=schema,
            contract=contract,
            run=run,
            reconcile=reconcile,
        )

    return define


def _arguments(named: str, function: DeviceFunction) -> type[BaseModel]:
    """A model of the parameters. Its fields have a "_" more, to be none of pydantic's names."""
    parameters = list(inspect.signature(function).parameters.values())
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{named}: a device is an async function")
    if not parameters or parameters[0].name != "context":
        raise TypeError(f'{named}: the first parameter of a device is "context"')
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f'{named}: "{parameter}" has no schema; name each parameter')
        if parameter.name not in hints:
            raise TypeError(f'{named}: parameter "{parameter.name}" has no type hint')
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"{parameter.name}_"] = (hints[parameter.name], default)
    config = ConfigDict(
        extra="forbid",
        coerce_numbers_to_str=True,  # models like to write an expression such as 2 without quotes
        alias_generator=lambda field: field.removesuffix("_"),
    )
    return create_model(named, __config__=config, **fields)


def _check_contract(named: str, contract: Contract, arguments: type[BaseModel]) -> None:
    """Contracts speak of arguments by name; a name that is none would never be checked."""
    known = _names(arguments)
    spoken = set(contract.critical) - {"*"}
    for template in (*contract.sinks, *contract.origins):
        spoken |= set(_PLACEHOLDER.findall(template))
    if spoken - known:
        raise TypeError(
            f"{named}: its contract speaks of {sorted(spoken - known)}, which it does not take"
        )


def _description(named: str, function: DeviceFunction) -> str:
    text = inspect.getdoc(function)
    if not text:
        raise TypeError(f"{named}: a device needs a docstring, which is what models are told of it")
    return " ".join(text.partition("\n\n")[0].split())


def _checked(named: str, arguments: type[BaseModel], given: Json) -> dict[str, object]:
    """The arguments as the function takes them.

    Raises:
        ToolError: they do not fit; the message names each that does not.
    """
    fields = arguments.model_fields
    without = {
        name: value
        for name, value in given.items()
        if value is not None or not _may_be_left_out(fields.get(f"{name}_"))
    }
    try:
        values = arguments.model_validate(without)
    except ValidationError as error:
        wrong = "; ".join(_wrong(detail, arguments) for detail in error.errors()[:5])
        raise ToolError(f"{named}: {wrong}. Call it again with arguments that fit.") from error
    return {field.removesuffix("_"): getattr(values, field) for field in fields}


def _may_be_left_out(field: Any) -> bool:
    """Whether null means that an argument is not given."""
    return (
        field is not None and not field.is_required() and NoneType not in get_args(field.annotation)
    )


def _wrong(detail: ErrorDetails, arguments: type[BaseModel]) -> str:
    place = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f'argument "{place}" is missing'
    if detail["type"] == "extra_forbidden":
        takes = ", ".join(sorted(_names(arguments))) or "no arguments"
        return f'there is no argument "{place}"; it takes {takes}'
    value = repr(detail["input"])
    if len(value) > _SHOWN:
        value = f"{value[:_SHOWN]}…"
    return f'argument "{place}" is {value}: {detail["msg"][:1].lower()}{detail["msg"][1:]}'


def _names(arguments: type[BaseModel]) -> set[str]:
    return {field.removesuffix("_") for field in arguments.model_fields}


def _compact(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without what costs tokens and tells a model nothing.

    Titles repeat names, objects are closed by constrained decoding anyway, and leaving an optional
    argument out says what null would.
    """
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if (
            (key == "title" and isinstance(value, str))
            or (key == "additionalProperties" and value is False)
            or (key == "default" and value is None)
        ):
            continue
        if key in ("properties", "$defs"):
            result[key] = {name: _compact(inner) for name, inner in value.items()}
        elif isinstance(value, dict) and key not in ("default", "const"):
            result[key] = _compact(value)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            result[key] = [_compact(inner) for inner in value]
        else:
            result[key] = value
    branches = [branch for branch in result.get("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1 and "default" in schema:
        del result["anyOf"]
        result = {**branches[0], **result}
    return result
