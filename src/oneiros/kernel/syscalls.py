"""System calls: what every call of a tool goes through, whoever makes it.

Look the tool up, check the arguments against its schema, decide by capability, contract, label and
the user's words (`decisions.py`), journal the intent, run the device with a deadline, label the
result, journal it. The journalling is `calls.py`'s; here are the parts that need no process.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from oneiros.errors import OneirosError
from oneiros.kernel.contract import PLACEHOLDER, Contract
from oneiros.kernel.handles import held
from oneiros.kernel.label import PUBLIC, Label, is_trusted
from oneiros.kernel.readings import Arguments, vouched
from oneiros.kernel.schemas import misfit
from oneiros.kernel.tools import CallContext, Json, Outcome, Tool, ToolError, ToolResult

_PATIENCE = 5.0  # seconds that a cancelled tool may take to clean up


class OutcomeUnknownError(ToolError):
    """A call failed after its effect may have happened: a server died, a deadline passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Description:
    """What programs and policies see of a tool, and the journal keeps."""

    name: str
    description: str
    parameters: dict[str, Any]
    contract: Contract


_DESCRIPTIONS: TypeAdapter[list[_Description]] = TypeAdapter(list[_Description])


def describe(tools: Sequence[Tool]) -> bytes:
    """Tools as the journal keeps them."""
    return _DESCRIPTIONS.dump_json(
        [
            _Description(
                name=tool.name,
                description=tool.description,
                parameters=dict(tool.parameters),
                contract=tool.contract,
            )
            for tool in sorted(tools, key=lambda tool: tool.name)
        ]
    )


def described(data: bytes) -> tuple[Tool, ...]:
    """Tools that can be looked at and not called, from the journal."""
    return tuple(
        Tool(
            name=one.name,
            description=one.description,
            parameters=one.parameters,
            contract=one.contract,
            run=_not_here,
        )
        for one in _DESCRIPTIONS.validate_json(data)
    )


async def _not_here(arguments: Json, context: CallContext) -> Outcome:
    raise ToolError("This is a tool's description. Call the tool itself.")


class Toolbox:
    """Tools by name, and the checks of their arguments."""

    def __init__(self, tools: Callable[[], Mapping[str, Tool]]) -> None:
        """Offer what `tools` gives; it is asked each time, because servers' tools change."""
        self._tools = tools
        self._described: dict[frozenset[str], tuple[list[Tool], bytes]] = {}

    def offered(self, capabilities: frozenset[str]) -> list[Tool]:
        """The tools that a process with these capabilities may call."""
        return [
            tool
            for tool in self._tools().values()
            if "*" in capabilities or tool.capability in capabilities
        ]

    def description(self, capabilities: frozenset[str]) -> bytes:
        """The same, described; the same object as long as nothing has changed."""
        tools = self.offered(capabilities)
        known = self._described.get(capabilities)
        if known is None or known[0] != tools:
            known = self._described[capabilities] = (tools, describe(tools))
        return known[1]

    def get(self, name: str) -> Tool:
        """A tool. Raises ToolError: there is none of this name."""
        tools = self._tools()
        if name not in tools:
            raise ToolError(f'There is no tool "{name}". There are: {", ".join(sorted(tools))}.')
        return tools[name]

    def arguments(self, tool: Tool, text: str) -> Arguments:
        """A call's arguments. Raises ToolError: they are no JSON, or not what the tool takes."""
        try:
            parsed = json.loads(text or "{}")
            # Half a surrogate pair, which JSON may escape, has no UTF-8: nobody could take it.
            arguments = json.loads(json.dumps(parsed, ensure_ascii=False).encode(errors="replace"))
        except (ValueError, RecursionError) as error:
            raise ToolError(f"The arguments of {tool.name} are not JSON: {error}.") from error
        if not isinstance(arguments, dict):
            raise ToolError(f"The arguments of {tool.name} are not a JSON object.")
        wrong = misfit(tool.parameters, arguments)
        if wrong is not None:
            raise ToolError(f"{tool.name} cannot be called so: {wrong}")
        return arguments


async def run(tool: Tool, arguments: Arguments, context: CallContext, seconds: float) -> Outcome:
    """Run a tool, for so many seconds at most.

    Raises:
        ToolError: it failed, crashed or took too long; OutcomeUnknownError where it may have had
            an effect all the same.
    """
    task = asyncio.ensure_future(tool.run(arguments, context))
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            # A tool that ignores its cancellation is left behind, not waited for.
            await asyncio.wait({task}, timeout=_PATIENCE)
    effects = tool.contract.effects
    if not task.done() or task.cancelled():
        text = f"{tool.name} was stopped: it took longer than {seconds:g} seconds."
        if effects:
            raise OutcomeUnknownError(f"{text} Whether it had an effect is not known.")
        raise ToolError(text)
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, OneirosError):
        raise error if isinstance(error, ToolError) else ToolError(str(error)) from error
    text = f"{tool.name} crashed: {type(error).__name__}: {str(error)[:500]}"
    if effects:
        raise OutcomeUnknownError(f"{text}. Whether it had an effect is not known.") from error
    raise ToolError(text) from error


def result_label(
    tool: Tool, arguments: Arguments, context: CallContext, result: ToolResult
) -> Label:
    """The label of what a call itself brought: of where it comes from, and for whom it is."""
    contract = tool.contract
    own = f"tool:{tool.name}"
    origins = [_filled(origin, arguments) for origin in contract.origins] or [own]
    if _is_vouched_for(contract, result):
        origins = [origin if is_trusted(origin) else own for origin in origins]
    readers = [context.owner] if contract.private else None
    return Label.of(*origins, readers=readers).join(result.label)


def as_vouched_for(tool: Tool, result: ToolResult) -> ToolResult:
    """A result; where its data are fields alone that its tool vouches for, it says no more."""
    if all(map(is_trusted, tool.contract.origins)) or not _is_vouched_for(tool.contract, result):
        return result
    data = json.loads(json.dumps(result.data, ensure_ascii=False, default=str))
    # As behind handles: names of fields without a value could be somebody's words, too.
    return replace(result, text=held("", "", data, tool.contract, PUBLIC))


def _is_vouched_for(contract: Contract, result: ToolResult) -> bool:
    # The names of files are whatever the call has made of what it read.
    return result.data is not None and not result.files and vouched(result.data, contract)


def _filled(template: str, arguments: Arguments) -> str:
    """An origin's name, with the arguments that it names; of addresses the host."""

    def value(match: re.Match[str]) -> str:
        text = str(arguments.get(match[1], "unknown"))
        try:
            return urlsplit(text).hostname or text if "://" in text else text
        except ValueError:  # no address at all
            return text

    return PLACEHOLDER.sub(value, template)
