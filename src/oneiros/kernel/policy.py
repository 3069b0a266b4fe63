"""What may be done: one pure function over contracts, labels and capabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.label import Label

Arguments = dict[str, object]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a process wants to make."""

    tool: str
    arguments: Arguments
    contract: Contract
    capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """All that a decision depends on."""

    owner: str
    app: str
    capabilities: frozenset[str]  # "*": every one
    granted: frozenset[str]  # meanings of questions that a person allowed for good
    request: Callable[[], str]  # what the user wrote: all messages, read when they are asked for
    label: Label  # of the context that the call comes from


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may be made."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The call may be made if a person agrees."""

    question: str
    meaning: str  # equal for calls that one answer settles


@dataclass(frozen=True, slots=True)
class Deny:
    """The call may not be made."""

    reason: str


Decision = Allow | Ask | Deny


def decide(call: ToolCall, context: PolicyContext) -> Decision:
    """Whether a call may be made.

    A process needs the tool's capability. What only reads or computes is then allowed, and so are
    changes that the kernel can undo; every other effect needs a person who agrees.
    """
    if not {call.capability, "*"} & context.capabilities:
        return Deny(f"This process may not use {call.tool}: it lacks {call.capability!r}.")
    effects = call.contract.effects - {Effect.LOCAL}
    if not effects:
        return Allow()
    meaning = f"{call.tool}: {', '.join(sorted(effects))}"
    if meaning in context.granted:
        return Allow()
    return Ask(_question(call, effects, context.label), meaning)


def _question(call: ToolCall, effects: frozenset[Effect], label: Label) -> str:
    arguments = ", ".join(f"{name}={_short(value)}" for name, value in call.arguments.items())
    text = f"{call.tool}({arguments}) would {' and '.join(sorted(effects))}. Allow it?"
    if label.untrusted_origins:
        text += f" The process has read from {', '.join(sorted(label.untrusted_origins))}."
    return text


def _short(value: object, longest: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
