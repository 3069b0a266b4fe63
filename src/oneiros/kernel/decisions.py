"""Decisions about a process's calls: what the policy is told comes from the state alone.

So whoever executes the process again decides the same (`replay.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Protocol

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.policy import decide, decide_all
from oneiros.kernel.program import ToolRequest
from oneiros.kernel.readings import Reading
from oneiros.kernel.state import MadeCall, ProcessState, ReadingState
from oneiros.kernel.syscalls import Toolbox
from oneiros.kernel.tools import ToolError
from oneiros.kernel.verdict import Ask, Decision, Deny, PolicyContext, ToolCall
from oneiros.memory.pages import Page
from oneiros.model.chat_format import Message

# What a reply of a model on another machine is to the policy.
_THINK = "think"
_SENDS = frozenset({Effect.SEND})
_SAID_NO = (
    "A person said no to this since the last message, and is not asked again. Go on without it."
)


class StateTexts(Protocol):
    """What a state names by hash, read (`view.Texts`)."""

    def message(self, page: Page) -> Message: ...
    def reading(self, reading: ReadingState) -> Reading: ...
    def made(self, call: MadeCall) -> ToolCall: ...


def decisions(
    state: ProcessState, requests: Sequence[ToolRequest], toolbox: Toolbox, texts: StateTexts
) -> list[Decision]:
    """Whether a process may make calls, all at once: tool, schema, budget, and the policy.

    A person who said no is asked for the same again only after a new message.
    """
    decided: dict[int, Decision] = {}
    calls: dict[int, ToolCall] = {}
    for number, request in enumerate(requests):
        try:
            calls[number] = _call(state, request, toolbox, number)
        except ToolError as error:
            decided[number] = Deny(str(error))
    context = policy_context(state, texts)
    for number, one in zip(calls, decide_all([*calls.values()], context), strict=True):
        refused = isinstance(one, Ask) and one.meaning in state.refused
        decided[number] = Deny(_SAID_NO) if refused else one
    return [decided[number] for number in range(len(requests))]


def _call(state: ProcessState, request: ToolRequest, toolbox: Toolbox, before: int) -> ToolCall:
    """A call that can be decided about; `before` others are made with it. Raises ToolError."""
    tool = toolbox.get(request.tool)
    arguments = toolbox.arguments(tool, request.arguments)
    budget = state.budget.calls
    if budget is not None and state.used.calls + len(state.calls) + before >= budget:
        raise ToolError(f"The budget of {budget:,} calls is used up.")
    properties = tool.parameters.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    unknown = tuple(name for name in arguments if name not in known)
    return ToolCall(tool.name, arguments, tool.contract, tool.capability, unknown)


def thinking(origin: str, state: ProcessState, texts: StateTexts) -> Decision:
    """Whether a model on another machine may read a process's context, to answer it.

    The owner chose the model for the process, which is consent to all that the owner may read.

    Args:
        origin: the model's, "model:NAME"; it is the reader.
        state: of the process.
        texts: reads what the state names.
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
    context = policy_context(state, texts)
    consent = replace(
        context,
        capabilities=context.capabilities | {origin},
        app_grants=context.app_grants | {_THINK, origin},
    )
    return decide(call, consent)


def policy_context(state: ProcessState, texts: StateTexts) -> PolicyContext:
    """What a decision about a process's call depends on; texts are read when they are needed."""

    @cache
    def request() -> str:
        said = [page for page in (*state.evicted, *state.pages) if page.sender == "user"]
        said.sort(key=lambda page: page.id)
        # A blank line between, so that no quotation spans two messages.
        return "\n\n".join(texts.message(page)["content"] for page in said)

    @cache
    def readings() -> tuple[Reading, ...]:
        return tuple(map(texts.reading, state.readings))

    def remembered(calls: tuple[MadeCall, ...]) -> tuple[ToolCall, ...]:
        made = map(texts.made, calls)
        return tuple(call for call in made if call.contract.effects or call.contract.sinks)

    @cache
    def made() -> tuple[ToolCall, ...]:
        return remembered(state.made)

    @cache
    def lately() -> tuple[ToolCall, ...]:
        return remembered(state.made[state.made_before :])

    return PolicyContext(
        owner=state.owner,
        app=state.app,
        capabilities=state.capabilities,
        granted=state.granted,
        request=request,
        label=state.label,
        readings=readings,
        made=made,
        lately=lately,
        app_grants=state.grants,
        private=state.private,
        asked=len(state.asked),
        refused=len(state.refused),
    )
