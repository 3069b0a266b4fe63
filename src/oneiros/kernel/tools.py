"""Tools as the kernel sees them: a function with a schema and a contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from oneiros.errors import OneirosError
from oneiros.kernel.contract import Contract
from oneiros.kernel.label import PUBLIC, Label

Json = Mapping[str, object]


class ToolError(OneirosError):
    """A call failed in a way that its caller can act on; the message goes to the model."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """Who calls a tool, and on whose behalf."""

    pid: int
    call_id: str  # unique over all processes and restarts: effects are reconciled by it
    owner: str  # principal
    app: str
    label: Label  # of everything that could influence the call


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call brought."""

    text: str  # for the model
    data: object = None  # the same as JSON-like data, for programs; None: there is none
    files: tuple[str, ...] = ()  # paths on the process's disk that the call wrote: figures, tables
    label: Label = PUBLIC  # beside what the contract says: of a file that was read, say
    cost: float = 0.0  # US dollars
    shown: bool = False  # even where results stay behind handles: it was asked for by its handle


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """What ends a wait. Whichever comes first; at least one is given."""

    at: float | None = None  # seconds since the epoch
    message: bool = False  # a message arrives
    child: int | None = None  # a child ends
    question: str | None = None  # a person answers this; the text is the question
    # Of a child that inspects something: the checked schema of its answer, as JSON.
    schema: str | None = None


# What a tool returns to wait without holding anything: the call goes on when it is woken, after
# a restart too. Its result is then the time, the message, the child's result or the answer.
Outcome = ToolResult | Wake
ToolFunction = Callable[[Json, CallContext], Awaitable[Outcome]]
# Looks for the effect of a call whose end is not known: its result, or None if it did not happen.
# Raises ToolError where that cannot be known.
Reconcile = Callable[[Json, CallContext], Awaitable[ToolResult | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that processes may call."""

    name: str  # letters, digits, "_" and "-", at most 64
    description: str  # for the model: one or two sentences
    parameters: Json  # JSON schema of an object
    contract: Contract
    run: ToolFunction = field(repr=False)
    reconcile: Reconcile | None = field(default=None, repr=False)

    @property
    def capability(self) -> str:
        """What a process has to hold to call it."""
        return self.contract.capability or self.name

    def openai(self) -> dict[str, object]:
        """The tool in the shape that models are told of tools."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }
