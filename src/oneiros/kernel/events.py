"""Events: all that ever happens to a process. Its state is a fold over them (`state.py`).

Events are plain data, and their JSON form is the journal's; VERSION counts its changes. Texts are
not in events, but in blobs named by their hashes, so that a text can be erased and the log stays
whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from oneiros.kernel.label import Label
from oneiros.kernel.tools import Wake
from oneiros.memory.pages import Page

VERSION = 1

LoadBlob = Callable[[str], bytes]  # by its hash; raises BlobErasedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a process may use; None: as much as it wants."""

    tokens: int | None = None  # generated, and read without finding them in a cache
    seconds: float | None = None  # of generation and calls, not of waiting
    calls: int | None = None  # of tools
    money: float | None = None  # US dollars, for remote models


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What was used of a budget."""

    tokens: int = 0
    seconds: float = 0.0
    calls: int = 0
    money: float = 0.0

    def plus(self, other: Used) -> Used:
        """The sum."""
        return Used(
            tokens=self.tokens + other.tokens,
            seconds=self.seconds + other.seconds,
            calls=self.calls + other.calls,
            money=self.money + other.money,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A process began."""

    kind: Literal["started"] = "started"
    owner: str
    app: str
    program: str  # the name of its program
    model: str
    title: str = ""
    parent: int | None = None
    priority: int = 0  # lower runs first; 0: somebody is waiting for its answers
    budget: Budget = Budget()
    capabilities: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()  # effects that the app's manifest allows unasked
    quarantine: bool = False  # whether results of the model's calls stay behind handles
    endorsed: float = 0.0  # bits of plain answers of inspections that are not its to have
    sampling: str | None = None  # hash of how replies are drawn, as JSON; None: the model's way
    pages: tuple[Page, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A process began as a copy of another one, whose parent is its parent."""

    kind: Literal["forked"] = "forked"
    parent: int  # the other one
    at: int  # its last event
    state: str  # hash of its state then, as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStarted:
    """A process spawned another one."""

    kind: Literal["child-started"] = "child-started"
    child: int
    used: Used = Used()  # of the budget, that was handed to it
    endorsed: float = 0.0  # bits of plain answers of inspections, that were handed to it


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsOffered:
    """The tools that the process may call from now on."""

    kind: Literal["tools-offered"] = "tools-offered"
    tools: str  # hash of their descriptions, as JSON (`syscalls.describe`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A message came into the inbox."""

    kind: Literal["delivered"] = "delivered"
    sender: str  # "user", "process:PID", "timer"
    text: str  # hash
    label: Label
    once: str | None = None  # a name of the message, under which no other one comes


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The program took the first messages of its inbox into its context, a page each."""

    kind: Literal["received"] = "received"
    pages: tuple[Page, ...]
    # A message too long for the context is a document, read in parts: paths on the disk.
    documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """A page was added that nobody sent: a kernel's notice, a recalled page, a summary."""

    kind: Literal["noticed"] = "noticed"
    page: Page
    told: tuple[str, ...] = ()  # parts of the budget whose end it announces
    used: Used = Used()  # by whoever wrote it
    by_program: bool = False  # whether the program asked for it
    last_steps: int = 0  # that the process may still take, though its budget is used up


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationStarted:
    """A reply is being generated."""

    kind: Literal["generation-started"] = "generation-started"
    seed: int
    options: str  # hash of what the program asked for, as JSON (`program.Generate`)
    limit: int  # tokens that the reply may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A piece of the reply, for those who watch; after a restart it is generated again, equal."""

    kind: Literal["generated"] = "generated"
    text: str  # hash
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationEnded:
    """The reply is there, or there is none."""

    kind: Literal["generation-ended"] = "generation-ended"
    page: Page | None
    reason: str  # "stop", "length", "tool_calls", "interrupted", "failed"
    used: Used
    prompt_tokens: int = 0
    cached_tokens: int = 0
    error: str | None = None  # hash of what went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Charged:
    """Something was computed of which nothing stays: a stopped reply, a summary given up."""

    kind: Literal["charged"] = "charged"
    used: Used


@dataclass(frozen=True, slots=True, kw_only=True)
class CallIntended:
    """A call is about to be made, asked about, or refused: the policy's decision."""

    kind: Literal["call-intended"] = "call-intended"
    call_id: str
    tool: str
    arguments: str  # hash of JSON
    decision: Literal["allow", "ask", "deny"]
    why: str | None = None  # hash of the question, or of the reason
    meaning: str = ""  # of the question
    label: Label = Label()
    model_call: str | None = None  # the id that the model gave the call; None: the program's call
    handle: bool = False  # whether what is untrusted of the result stays behind handles
    released: tuple[str, ...] = ()  # who gets to know something by it, after private data was read


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAnswered:
    """A person answered the question about a call."""

    kind: Literal["call-answered"] = "call-answered"
    call_id: str
    allowed: bool
    always: bool = False  # and all calls of the same meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSuspended:
    """A call waits for something; nothing is held meanwhile."""

    kind: Literal["call-suspended"] = "call-suspended"
    call_id: str
    wake: Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """A call is over, and its result is a page."""

    kind: Literal["call-ended"] = "call-ended"
    call_id: str
    outcome: Literal["done", "failed", "denied", "unknown", "cancelled"]
    page: Page
    # Of what the call brought, without what influenced the call; None: it was not kept apart, and
    # the page's label has all.
    own: Label | None = None
    used: Used = Used()
    data: str | None = None  # hash of JSON
    held: str | None = None  # hash of the whole text, where the page has handles in its place
    document: str | None = None  # path on the disk of the whole output, where the page has a part
    received: int = 0  # first messages of the inbox that the result holds
    derived: bool = False  # whether it is of what is behind a handle, and has a reading already
    # Bits that the answer of an inspection can carry, whose label has no untrusted origins although
    # it was made of what has some: an endorsement.
    endorsed: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """Pages left the context, and a mark (or a longer one) stands in their place."""

    kind: Literal["evicted"] = "evicted"
    pages: tuple[int, ...]
    mark: Page


@dataclass(frozen=True, slots=True, kw_only=True)
class PageErased:
    """A page's text was erased; a message that says so is in its place, with its calls' names."""

    kind: Literal["page-erased"] = "page-erased"
    page: int
    message: str  # hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Signalled:
    """Somebody changed how the process runs."""

    kind: Literal["signalled"] = "signalled"
    signal: Literal["stop", "continue"]
    why: str | None = None  # hash; where the kernel itself stopped it


@dataclass(frozen=True, slots=True, kw_only=True)
class Reniced:
    """The priority changed."""

    kind: Literal["reniced"] = "reniced"
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChanged:
    """Another model thinks from now on; token ids of the one before mean nothing to it."""

    kind: Literal["model-changed"] = "model-changed"
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChanged:
    """The budget changed; what was told of its end may have to be told again."""

    kind: Literal["budget-changed"] = "budget-changed"
    budget: Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The process is over."""

    kind: Literal["ended"] = "ended"
    status: Literal["done", "killed", "failed", "budget"]
    result: str | None = None  # hash of a text
    label: Label = Label()
    by_program: bool = False  # whether the program said so


Event = Annotated[
    Started
    | Forked
    | ChildStarted
    | ToolsOffered
    | Delivered
    | Received
    | Noticed
    | GenerationStarted
    | Generated
    | GenerationEnded
    | Charged
    | CallIntended
    | CallAnswered
    | CallSuspended
    | CallEnded
    | Evicted
    | PageErased
    | Signalled
    | Reniced
    | ModelChanged
    | BudgetChanged
    | Ended,
    Field(discriminator="kind"),
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def to_json(event: Event) -> bytes:
    """An event as the journal keeps it."""
    return _EVENT.dump_json(event)


def from_json(data: bytes | str) -> Event:
    """The event of a journal's JSON. Raises pydantic.ValidationError for anything else."""
    return _EVENT.validate_json(data)
