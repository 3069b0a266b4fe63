"""Real tools: those of public MCP servers and of AgentDojo, with their sources and licences.

In the data, descriptions of more than 160 characters and definitions that nothing refers to are
left out; all else is as the servers send it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

JsonObject = dict[str, Any]

_DATA = Path(__file__).parent.parent / "data" / "tool_schemas.json"

# The one tool with a keyword that cannot be enforced: names of properties by a pattern.
UNSUPPORTED = "create-index"


def servers() -> dict[str, list[JsonObject]]:
    """Tools of each server as requests have them: name of server -> tools."""
    return {
        group["server"]: [{"type": "function", "function": tool} for tool in group["tools"]]
        for group in json.loads(_DATA.read_text())
    }


def functions() -> list[JsonObject]:
    """Name, description and parameters of every tool whose schema is supported."""
    tools = [tool["function"] for group in servers().values() for tool in group]
    return [tool for tool in tools if tool["name"] != UNSUPPORTED]


def validate(value: object, schema: Mapping[str, Any]) -> None:
    """Raises jsonschema.ValidationError where a value is not valid, its formats included."""
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    kind(schema, format_checker=kind.FORMAT_CHECKER).validate(value)
