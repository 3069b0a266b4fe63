"""What the policy is told about a call, and what it says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oneiros.kernel.contract import Contract
from oneiros.kernel.label import Label
from oneiros.kernel.readings import Arguments, Reading, Scalar


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a process wants to make."""

    tool: str
    arguments: Arguments
    contract: Contract
    capability: str
    # Names of arguments that the tool's schema does not have: whoever calls it made them up.
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """All that a decision depends on."""

    owner: str
    app: str
    capabilities: frozenset[str]  # "*": every one
    granted: frozenset[str]  # meanings of questions that a person allowed for good
    request: Callable[[], str]  # what the user wrote: all messages, read when they are asked for
    label: Label  # of the context that the call comes from
    readings: Callable[[], Sequence[Reading]] = tuple  # what earlier calls brought, in order
    # Calls with effects or readers that were allowed earlier.
    made: Callable[[], Sequence[ToolCall]] = tuple
    lately: Callable[[], Sequence[ToolCall]] = tuple  # of them, since the user's last message
    app_grants: frozenset[str] = frozenset()  # tools, and readers, that the app's owner allowed
    private: bool = False  # whether private data came into the context by another way than a call
    asked: int = 0  # questions since the user's last message
    refused: int = 0  # of them


@dataclass(frozen=True, slots=True)
class Allow:
    """The call may be made."""

    # Who reads what it says, or at least that it was made, after private data was read: what is
    # made known to them with the user's consent. Journalled, so that it can be looked at later.
    released: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """The call may be made if a person agrees."""

    question: str
    meaning: str  # equal for calls that one answer settles


@dataclass(frozen=True, slots=True)
class Deny:
    """The call may not be made."""

    reason: str
    stop: bool = False  # whether the process may not go on by itself, either


Decision = Allow | Ask | Deny


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a call is not allowed without a question."""

    kind: str  # as `policy.decide_all` lists them
    about: str = ""  # an argument's path, or a reader
    value: Scalar | None = None
