"""System calls: what every call of a tool goes through, whoever makes it.

Look the tool up, check the arguments against its schema, decide by capability, contract and label,
journal the intent, run the device with a deadline, label the result, journal it. The journalling is
`process.py`'s; here are the parts that need no process.
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
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import Label
from oneiros.kernel.policy import Arguments, Decision, Deny, PolicyContext, ToolCall, decide
from oneiros.kernel.schemas import misfit
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import CallContext, Json, Outcome, Tool, ToolError, ToolResult
from oneiros.memory.pages import Page
from oneiros.model.chat_format import Message

_PATIENCE = 5.0  # seconds that a cancelled tool may take to clean up
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


# What a reply of a model on another machine is to the policy.
_THINK = "think"
_SENDS = frozenset({Effect.SEND})


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


def decision(
    tool: Tool,
    arguments: Arguments,
    state: ProcessState,
    message: Callable[[Page], Message],
    before: int = 0,
) -> Decision:
    """Whether a process may make a call: the policy, and the budget of calls.

    `before` counts the calls that it makes at once with this one, and come before it.
    """
    budget = state.budget.calls
    if budget is not None and state.used.calls + len(state.calls) + before >= budget:
        return Deny(f"The budget of {budget:,} calls is used up.")
    call = ToolCall(tool.name, arguments, tool.contract, tool.capability)
    return decide(call, policy_context(state, message))


def thinking(origin: str, state: ProcessState, message: Callable[[Page], Message]) -> Decision:
    """Whether a model on another machine may read a process's context, to answer it.

    The owner chose the model for the process, which is consent to all that the owner may read.

    Args:
        origin: the model's, "model:NAME"; it is the reader.
        state: of the process.
        message: reads a page.
    """
    label = state.label
    if not label.readable_by(origin) and not label.readable_by(state.owner):
        readers = ", ".join(sorted(label.readers or ())) or "nobody"
        return Deny(
            f"{origin} runs on another machine, and may not read this process's context: what the "
            f"process has read is for {readers}. Start a process without it, or one with a model "
            "of this machine."
        )
    call = ToolCall(_THINK, {}, Contract(effects=_SENDS, sinks=(origin,)), origin)
    context = policy_context(state, message)
    consent = replace(
        context,
        capabilities=context.capabilities | {origin},
        granted=context.granted | {f"{_THINK}: {Effect.SEND}"},
    )
    return decide(call, consent)


def policy_context(state: ProcessState, message: Callable[[Page], Message]) -> PolicyContext:
    """What a decision about a process's call depends on."""

    def request() -> str:
        pages = sorted((*state.evicted, *state.pages), key=lambda page: page.id)
        return "\n".join(message(page)["content"] for page in pages if page.sender == "user")

    return PolicyContext(
        owner=state.owner,
        app=state.app,
        capabilities=state.capabilities,
        granted=state.granted,
        request=request,
        label=state.label,
    )


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
    """The label of a call's result: of all that could influence it, and of where it comes from."""
    contract = tool.contract
    origins = [_filled(origin, arguments) for origin in contract.origins] or [f"tool:{tool.name}"]
    readers = [context.owner] if contract.private else None
    return context.label.join(Label.of(*origins, readers=readers), result.label)


def _filled(template: str, arguments: Arguments) -> str:
    """An origin's name, with the arguments that it names; of addresses the host."""

    def value(match: re.Match[str]) -> str:
        text = str(arguments.get(match[1], "unknown"))
        return urlsplit(text).hostname or text if "://" in text else text

    return _PLACEHOLDER.sub(value, template)
