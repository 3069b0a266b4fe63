"""The state of a process: a fold over its events, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, NoReturn

from pydantic import TypeAdapter

from oneiros.errors import JournalError
from oneiros.kernel import events as e
from oneiros.kernel.label import PUBLIC, Label, join_all
from oneiros.kernel.tools import Wake
from oneiros.memory.pages import Page, PageKind

CallPhase = Literal["intended", "asked", "denied", "suspended"]
# Outcomes of calls that bring something: the text of an error is somebody's, too.
_BROUGHT = ("done", "failed", "unknown")
_PHASES: dict[str, CallPhase] = {"allow": "intended", "ask": "asked", "deny": "denied"}


class Status(StrEnum):
    """What a process is doing."""

    READY = "ready"  # it could go on
    RUNNING = "running"  # a reply is generated, or a call is made
    WAITING = "waiting"  # for a message, a time, a child or a person
    STOPPED = "stopped"  # by a signal
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A message in the inbox."""

    sender: str
    text: str  # hash
    label: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class CallState:
    """A call that is not over."""

    call_id: str
    tool: str
    arguments: str  # hash
    phase: CallPhase
    label: Label
    model_call: str | None
    why: str | None = None  # hash
    meaning: str = ""
    handle: bool = False  # whether what is untrusted of the result stays behind handles
    wake: Wake | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeCall:
    """A call that was allowed."""

    call_id: str
    tool: str
    arguments: str  # hash
    tools: str | None  # hash of the tools that were offered then, with their contracts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingState:
    """What a call brought: decisions look values up in it, and handles lead to it."""

    call_id: str
    tool: str
    arguments: str  # hash
    tools: str | None  # hash of the tools that were offered then, with their contracts
    data: str | None  # hash of JSON
    held: str | None  # hash of the whole text, where the page has handles in its place
    page: int
    own: Label  # of what it brought, without what influenced the call
    clean: bool  # whether nothing untrusted had been read when the call was made
    derived: bool = False  # whether it is of what is behind a handle: another reading has that


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A reply that is being generated."""

    seed: int
    options: str  # hash
    limit: int
    pieces: tuple[str, ...] = ()  # hashes of what was generated


_NOTHING = e.Used()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """Everything that is known of a process."""

    pid: int
    seq: int  # of the last event in it
    owner: str
    app: str
    program: str
    model: str
    title: str
    parent: int | None  # that waits for its result
    forked_from: int | None = None
    ancestors: tuple[int, ...] = ()  # that process, the one it was forked from, and so on
    priority: int
    budget: e.Budget
    used: e.Used = _NOTHING
    told: frozenset[str] = frozenset()  # parts of the budget whose end was announced
    last_steps: int = 0  # that it may still take, though its budget is used up
    capabilities: frozenset[str]
    label: Label = PUBLIC  # of all that it has read: the join of all pages, the evicted ones too
    sampling: str | None = None  # hash
    tools: str | None = None  # hash of the tools offered
    granted: frozenset[str] = frozenset()  # meanings of questions that are allowed for good
    grants: frozenset[str] = frozenset()  # effects that the app's manifest allows unasked
    quarantine: bool = False  # whether results of the model's calls stay behind handles
    readings: tuple[ReadingState, ...] = ()
    # Whether private data came otherwise than by a call: a message of another process. States of
    # before this was kept do not say.
    private: bool = True
    # Since the user's last message came into the context:
    asked: frozenset[str] = frozenset()  # meanings of questions
    refused: frozenset[str] = frozenset()  # those that a person said no to
    made: tuple[MadeCall, ...] = ()
    made_before: int = 0  # of them, before the user's last message
    endorsed: float = 0.0  # bits of plain answers of inspections, those of children included
    pages: tuple[Page, ...] = ()  # the context, and values
    evicted: tuple[Page, ...] = ()
    inbox: tuple[Mail, ...] = ()
    came: frozenset[str] = frozenset()  # names of messages that come only once
    calls: tuple[CallState, ...] = ()
    generation: Generation | None = None
    last_reason: str = ""  # why the last reply ended
    failures: int = 0  # replies of which nothing came, since the last message or reply
    children: tuple[int, ...] = ()
    documents: tuple[str, ...] = ()
    stopped: bool = False
    next_page: int = 1
    next_call: int = 1
    end: e.Ended | None = None

    @property
    def context(self) -> tuple[Page, ...]:
        """The pages that the model reads."""
        return tuple(page for page in self.pages if page.kind is not PageKind.VALUE)

    @property
    def status(self) -> Status:
        """As `oneiros ps` shows it."""
        if self.end is not None:
            return Status.ENDED
        if self.stopped:
            return Status.STOPPED
        if self.generation is not None:
            return Status.RUNNING
        if self.calls:
            phases = {call.phase for call in self.calls}
            return Status.RUNNING if phases & {"intended", "denied"} else Status.WAITING
        if not self.inbox and self.pages and not self._has_work:
            return Status.WAITING
        return Status.READY

    @property
    def _has_work(self) -> bool:
        last = self.context[-1] if self.context else None
        return last is not None and (last.kind is not PageKind.ASSISTANT or last.calls > 0)


STATE: TypeAdapter[ProcessState] = TypeAdapter(ProcessState)


def apply(
    state: ProcessState | None, pid: int, seq: int, event: e.Event, load: e.LoadBlob
) -> ProcessState:
    """The state after an event.

    Args:
        state: before it; None: before the first one, which is Started or Forked.
        pid: the process.
        seq: the event's number.
        event: what happened.
        load: reads a blob; only a fork's state is read.

    Raises:
        JournalError: the event cannot follow: the journal is damaged.
    """
    match event:
        case e.Started() if state is None:
            return ProcessState(
                pid=pid,
                seq=seq,
                owner=event.owner,
                app=event.app,
                program=event.program,
                model=event.model,
                title=event.title,
                parent=event.parent,
                priority=event.priority,
                budget=event.budget,
                capabilities=event.capabilities,
                grants=event.grants,
                quarantine=event.quarantine,
                endorsed=event.endorsed,
                private=any(page.label.private for page in event.pages),
                sampling=event.sampling,
                label=join_all(page.label for page in event.pages),
                pages=event.pages,
                next_page=1 + max((page.id for page in event.pages), default=0),
            )
        case e.Forked() if state is None:
            original = STATE.validate_json(load(event.state))
            return replace(
                original,
                pid=pid,
                seq=seq,
                forked_from=event.parent,
                ancestors=(event.parent, *original.ancestors),
                children=(),
            )
    if state is None or isinstance(event, e.Started | e.Forked) or state.end is not None:
        raise JournalError(
            f"Event {seq} of process {pid} ({event.kind}) cannot follow what is before it."
        )
    return replace(_after(state, event), seq=seq)


def _after(state: ProcessState, event: e.Event) -> ProcessState:
    match event:
        case e.ChildStarted():
            used = state.used.plus(event.used)
            state = replace(state, endorsed=state.endorsed + event.endorsed)
            return replace(state, children=(*state.children, event.child), used=used)
        case e.ToolsOffered():
            return replace(state, tools=event.tools)
        case e.Delivered():
            mail = Mail(sender=event.sender, text=event.text, label=event.label)
            came = state.came if event.once is None else state.came | {event.once}
            return replace(state, inbox=(*state.inbox, mail), came=came)
        case e.Received():
            state = replace(state, documents=(*state.documents, *event.documents))
            state = replace(state, inbox=state.inbox[len(event.pages) :], failures=0)
            said = [page.sender == "user" for page in event.pages]
            others = (page for page, by_user in zip(event.pages, said, strict=True) if not by_user)
            if any(page.label.private for page in others):
                state = replace(state, private=True)
            if any(said):
                state = _spoken_to(state)
            return _with(state, *event.pages)
        case e.Noticed():
            if event.by_program:
                state = _step(state)
            elif event.last_steps:
                state = replace(state, last_steps=event.last_steps)
            state = replace(state, told=state.told | set(event.told))
            return _with(replace(state, used=state.used.plus(event.used)), event.page)
        case e.GenerationStarted():
            begun = Generation(seed=event.seed, options=event.options, limit=event.limit)
            return replace(state, generation=begun)
        case e.Generated():
            generation = state.generation or _damaged(state, event)
            pieces = (*generation.pieces, event.text)
            return replace(state, generation=replace(generation, pieces=pieces))
        case e.GenerationEnded():
            pages: tuple[Page, ...] = () if event.page is None else (event.page,)
            used = state.used.plus(event.used)
            failures = 0 if pages else state.failures + 1
            state = replace(state, generation=None, used=used, failures=failures, last_steps=0)
            return _with(replace(state, last_reason=event.reason), *pages)
        case e.Charged():
            return replace(state, used=state.used.plus(event.used))
        case e.CallIntended():
            if not state.calls:  # those that are made at once are one step
                state = _step(state)
            call = CallState(
                call_id=event.call_id,
                tool=event.tool,
                arguments=event.arguments,
                phase=_PHASES[event.decision],
                label=event.label,
                model_call=event.model_call,
                why=event.why,
                meaning=event.meaning,
                handle=event.handle,
            )
            if event.decision == "ask":
                state = replace(state, asked=state.asked | {event.meaning})
            elif event.decision == "allow":
                state = _with_made(state, call)
            return replace(state, calls=(*state.calls, call), next_call=state.next_call + 1)
        case e.CallAnswered():
            phase: CallPhase = "intended" if event.allowed else "denied"
            call = replace(_call(state, event), phase=phase)
            if event.allowed and event.always:
                state = replace(state, granted=state.granted | {call.meaning})
            if event.allowed:
                state = _with_made(state, call)
            else:
                state = replace(state, refused=state.refused | {call.meaning})
            return _with_call(state, call)
        case e.CallSuspended():
            return _with_call(
                state, replace(_call(state, event), phase="suspended", wake=event.wake)
            )
        case e.CallEnded():
            ended = _call(state, event)
            calls = tuple(call for call in state.calls if call.call_id != event.call_id)
            documents = state.documents + ((event.document,) if event.document else ())
            used = state.used.plus(event.used)
            if event.outcome in _BROUGHT:
                state = _with_reading(state, ended, event)
            if any(mail.sender == "user" for mail in state.inbox[: event.received]):
                state = _spoken_to(state)
            state = replace(state, calls=calls, documents=documents, used=used)
            state = replace(state, endorsed=state.endorsed + event.endorsed)
            return _with(replace(state, inbox=state.inbox[event.received :]), event.page)
        case e.Evicted():
            gone = set(event.pages)
            evicted = tuple(page for page in state.pages if page.id in gone)
            if len(evicted) != len(gone):
                _damaged(state, event)
            first = state.pages.index(evicted[0])
            left = [page for page in state.pages if page.id not in gone]
            left.insert(first, event.mark)
            return replace(
                state,
                pages=tuple(left),
                evicted=(*state.evicted, *evicted),
                next_page=max(state.next_page, event.mark.id + 1),
            )
        case e.PageErased():
            return replace(
                state,
                pages=_blanked(state.pages, event),
                evicted=_blanked(state.evicted, event),
            )
        case e.Signalled():
            if event.signal == "stop":
                return replace(state, stopped=True)
            # A person lets it go on, and so ask again.
            return replace(state, stopped=False, asked=frozenset(), refused=frozenset())
        case e.Reniced():
            return replace(state, priority=event.priority)
        case e.ModelChanged():
            return replace(
                state,
                model=event.model,
                pages=_without_replies(state.pages),
                evicted=_without_replies(state.evicted),
            )
        case e.BudgetChanged():
            return replace(state, budget=event.budget, told=frozenset(), last_steps=0)
        case e.Ended():
            return replace(state, end=event, calls=(), generation=None)
    return _damaged(state, event)


def _with(state: ProcessState, *pages: Page) -> ProcessState:
    last = max((page.id for page in pages), default=0)
    return replace(
        state,
        label=state.label.join(*(page.label for page in pages)),
        pages=(*state.pages, *pages),
        next_page=max(state.next_page, last + 1),
    )


def _with_made(state: ProcessState, call: CallState) -> ProcessState:
    made = MadeCall(
        call_id=call.call_id, tool=call.tool, arguments=call.arguments, tools=state.tools
    )
    return replace(state, made=(*state.made, made))


def _with_reading(state: ProcessState, call: CallState, event: e.CallEnded) -> ProcessState:
    reading = ReadingState(
        call_id=call.call_id,
        tool=call.tool,
        arguments=call.arguments,
        tools=state.tools,  # offered between calls only: they are those of when it was made
        data=event.data,
        held=event.held,
        page=event.page.id,
        own=event.page.label if event.own is None else event.own,
        clean=call.label.trusted,
        derived=event.derived,
    )
    return replace(state, readings=(*state.readings, reading))


def _spoken_to(state: ProcessState) -> ProcessState:
    """The user said something: what was asked until then was for another request.

    What was done stays: a message that speaks of something else is no leave to do it again.
    """
    before = len(state.made)
    return replace(state, asked=frozenset(), refused=frozenset(), endorsed=0.0, made_before=before)


def _step(state: ProcessState) -> ProcessState:
    return replace(state, last_steps=max(0, state.last_steps - 1)) if state.last_steps else state


def _blanked(pages: tuple[Page, ...], event: e.PageErased) -> tuple[Page, ...]:
    return tuple(
        replace(page, message=event.message, reply=None) if page.id == event.page else page
        for page in pages
    )


def _without_replies(pages: tuple[Page, ...]) -> tuple[Page, ...]:
    return tuple(replace(page, reply=None) for page in pages)


def _call(state: ProcessState, event: e.CallAnswered | e.CallSuspended | e.CallEnded) -> CallState:
    for call in state.calls:
        if call.call_id == event.call_id:
            return call
    return _damaged(state, event)


def _with_call(state: ProcessState, changed: CallState) -> ProcessState:
    calls = tuple(changed if c.call_id == changed.call_id else c for c in state.calls)
    return replace(state, calls=calls)


def _damaged(state: ProcessState, event: e.Event) -> NoReturn:
    raise JournalError(
        f"An event of process {state.pid} ({event.kind}, after event {state.seq}) speaks of "
        "something that is not there."
    )
