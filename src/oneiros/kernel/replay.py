"""Executing a process again from its journal, with no model and no tool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from oneiros.errors import BlobErasedError, ReplayError
from oneiros.kernel import events as e
from oneiros.kernel.calls import intended
from oneiros.kernel.journal import Journal
from oneiros.kernel.program import ACTION, Action, Call, Exit, Note, Program, Receive
from oneiros.kernel.state import ProcessState, apply
from oneiros.kernel.syscalls import Toolbox
from oneiros.kernel.view import ProcessView, Texts

_AT_ONCE = 0.005  # seconds: then others have their turn


async def replay(
    journal: Journal, pid: int, program: Program, expected: Callable[[], ProcessState]
) -> int:
    """Ask a process's program again at every moment at which it was asked.

    Where the journal says that the program did something, the program has to say the same at the
    state before; what came from outside (replies, results, messages, signals) is taken from the
    journal. Decisions about calls are made again, too. What needs a text that was erased cannot be
    compared, and is taken to be the same. The process may go on meanwhile.

    Args:
        journal: what happened.
        pid: the process.
        program: its program.
        expected: gives the state that has to come out after the last event there is.

    Returns:
        How many events there were.

    Raises:
        ReplayError: something is different; the event is named.
    """
    run = _Replay(pid, program, journal.load)
    state: ProcessState | None = None
    began = time.monotonic()
    for recorded in journal.events(pid):
        if state is not None:
            run.check(state, recorded.event, recorded.seq)
        state = apply(state, pid, recorded.seq, recorded.event, journal.load)
        if time.monotonic() - began > _AT_ONCE:
            await asyncio.sleep(0)
            began = time.monotonic()
    if state is None or state != expected():
        raise ReplayError(f"Process {pid} is in another state than the one its events give.")
    return state.seq


class _Replay:
    """The program's part of what happened."""

    def __init__(self, pid: int, program: Program, load: e.LoadBlob) -> None:
        self._pid = pid
        self._program = program
        self._load = load
        self._texts = Texts(self._read)
        self._erased = False  # whether a text was missing, since the program was asked
        # States at which the program may have been asked since it did something.
        self._asked: list[ProcessState] = []
        # What the program asked for, with the decisions about it, and is to come.
        self._calls: list[e.CallIntended | e.Signalled] = []

    def check(self, state: ProcessState, event: e.Event, seq: int) -> None:
        """Whether the program does what an event says. Raises ReplayError: it does not."""
        at_rest = state.generation is None and not state.calls
        if at_rest and (not self._asked or _makes_room(event)):
            self._asked.append(state)
        if not self._calls:
            self._erased = False
        if isinstance(event, e.CallIntended) or (self._calls and isinstance(event, e.Signalled)):
            if isinstance(event, e.CallIntended) and not self._calls:
                self._calls = self._intended(state, event, seq)
            # The reason of a refusal may name tools that were there, and are not described.
            if replace(self._calls.pop(0), why=None) != replace(event, why=None):
                self._differs(seq, event, "another call, or another decision")
        elif self._calls:
            self._differs(seq, event, _named(self._calls[0]))
        elif (did := self._did(state, event)) is not None:
            # Between the question and the event there may have been others: messages, evictions.
            asked = (state, *reversed(self._asked))
            if not any(did == self._say(before) for before in asked):
                self._differs(seq, event, _shown(self._say(state)))
        else:
            return
        self._asked = []

    def _say(self, state: ProcessState) -> Action:
        return self._program.step(ProcessView(state, self._texts))

    def _did(self, state: ProcessState, event: e.Event) -> Action | None:
        """What a program has said that an event comes from; None: it comes from elsewhere."""
        match event:
            case e.GenerationStarted() if state.generation is None:
                return ACTION.validate_json(self._texts.text(event.options))
            case e.Received():
                return Receive()
            case e.Noticed(by_program=True):
                text = self._texts.message(event.page)["content"]
                page = event.page
                return Note(text=text, page_kind=page.kind, stands_for=page.stands_for)
            case e.Ended(by_program=True, status=status, result=blob) if status != "killed":
                return Exit(result="" if blob is None else self._texts.text(blob), status=status)
        return None

    def _intended(
        self, state: ProcessState, event: e.CallIntended, seq: int
    ) -> list[e.CallIntended | e.Signalled]:
        said = self._say(state)
        if not isinstance(said, Call):
            self._differs(seq, event, _shown(said))
            return [event]
        tools = {tool.name: tool for tool in self._texts.tools(state.tools)}
        toolbox = Toolbox(lambda: tools)
        return intended(state, said.requests, toolbox, self._texts, _hash)

    def _read(self, blob: str) -> bytes:
        try:
            return self._load(blob)
        except BlobErasedError:
            self._erased = True
            raise

    def _differs(self, seq: int, event: e.Event, wanted: str) -> None:
        if self._erased:
            self._calls = []
            return
        raise ReplayError(
            f"Event {seq} of process {self._pid} is {event.kind}, and its program wants {wanted}."
        )


def _makes_room(event: e.Event) -> bool:
    """Whether the kernel makes room for a reply that was asked for, or adds to what it answers."""
    return isinstance(event, e.Evicted) or (isinstance(event, e.Noticed) and not event.by_program)


def _named(event: e.CallIntended | e.Signalled) -> str:
    return f"a call of {event.tool}" if isinstance(event, e.CallIntended) else "to be stopped"


def _hash(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()  # as processes put their texts


def _shown(action: Action) -> str:
    return ACTION.dump_json(action).decode()[:300]
