"""Devices made of functions."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from oneiros.devices.define import device
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Outcome, Tool, ToolError, ToolResult, Wake

CONTEXT = CallContext(pid=1, call_id="1.1", owner="ann", app="assistant", label=Label.of("user"))


class Unit(StrEnum):
    METRE = "m"
    FOOT = "ft"


@dataclass
class Place:
    name: str
    height: float = 0.0


@device(contract=Contract())
async def measure(
    context: CallContext,
    count: Annotated[int, Field(description="How many.", ge=1)],
    title: str = "none",
    unit: Unit = Unit.METRE,
    json: Literal["a", "b"] | None = None,
    places: tuple[Place, ...] = (),
) -> str:
    """Measure something,
    and say so.

    Details that no model is told.
    """
    return f"{context.owner} {count!r} {title!r} {unit!r} {json!r} {places!r}"


def call(tool: Tool, **arguments: object) -> Outcome:
    return asyncio.run(tool.run(arguments, CONTEXT))


def test_name_description_and_schema_come_from_the_function() -> None:
    assert (measure.name, measure.capability) == ("measure", "measure")
    assert measure.description == "Measure something, and say so."
    Draft202012Validator.check_schema(measure.parameters)
    assert measure.parameters == {
        "$defs": {
            "Place": {
                "properties": {
                    "name": {"type": "string"},
                    "height": {"default": 0.0, "type": "number"},
                },
                "required": ["name"],
                "type": "object",
            },
            "Unit": {"enum": ["m", "ft"], "type": "string"},
        },
        "properties": {
            "count": {"description": "How many.", "minimum": 1, "type": "integer"},
            "title": {"default": "none", "type": "string"},
            "unit": {"$ref": "#/$defs/Unit", "default": "m"},
            "json": {"enum": ["a", "b"], "type": "string"},
            "places": {"default": [], "items": {"$ref": "#/$defs/Place"}, "type": "array"},
        },
        "required": ["count"],
        "type": "object",
    }


def test_arguments_are_coerced_to_the_hints() -> None:
    result = call(
        measure, count="3", title=7, unit="ft", json=None, places=[{"name": "x", "height": 2}]
    )
    assert result == ToolResult(
        "ann 3 '7' <Unit.FOOT: 'ft'> None (Place(name='x', height=2.0),)", label=Label()
    )
    assert isinstance(call(measure, count=1, title=None), ToolResult)  # null: left out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, 'measure: argument "count" is missing'),
        ({"count": 0}, 'argument "count" is 0'),
        ({"count": "x" * 1000}, 'argument "count" is \'xxx'),
        ({"count": 1, "colour": "red"}, 'no argument "colour"; it takes count, json, places'),
        ({"count": 1, "places": [{"height": 1}]}, 'argument "places.0.name" is missing'),
        ({"count": 1, "unit": "mile"}, "argument \"unit\" is 'mile'"),
    ],
)
def test_wrong_arguments_are_errors_that_name_the_field(
    arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(ToolError) as caught:
        call(measure, **arguments)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_a_device_returns_goes_through() -> None:
    @device(contract=Contract(deadline=5), name="nap-2")
    async def nap(context: CallContext) -> Wake:
        """Sleep."""
        return Wake(at=5.0)

    assert (nap.name, nap.contract.deadline) == ("nap-2", 5)
    assert nap.parameters == {"properties": {}, "type": "object"}
    assert call(nap) == Wake(at=5.0)


def test_a_function_that_cannot_be_a_device_is_refused() -> None:
    plain = device(contract=Contract())
    with pytest.raises(TypeError, match="docstring"):

        @plain
        async def silent(context: CallContext) -> str:
            return ""

    with pytest.raises(TypeError, match="async"):

        @plain
        def blocking(context: CallContext) -> str:  # type: ignore[arg-type]
            """Block."""
            return ""

    with pytest.raises(TypeError, match='first parameter of a device is "context"'):

        @plain
        async def alone(x: int) -> str:
            """Nothing."""
            return ""

    with pytest.raises(TypeError, match="no schema"):

        @plain
        async def anything(context: CallContext, **rest: int) -> str:
            """Nothing."""
            return ""

    with pytest.raises(TypeError, match="no name for a tool"):
        device(contract=Contract(), name="send mail")(measure.run)


@pytest.mark.parametrize(
    "contract",
    [
        Contract(effects=frozenset({Effect.SEND}), critical=("adress",)),
        Contract(sinks=("web:{link}",)),
        Contract(origins=("file:{name}",)),
    ],
)
def test_a_contract_that_speaks_of_no_argument_is_refused(contract: Contract) -> None:
    with pytest.raises(TypeError, match="speaks of"):

        @device(contract=contract)
        async def send(context: CallContext, address: str) -> str:
            """Send."""
            return ""
