"""Histories of processes: sequences of events that could have happened, for property tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from random import Random

from hypothesis import strategies as st

from oneiros.kernel import events as e
from oneiros.kernel.label import Label
from oneiros.kernel.state import STATE, CallState, ProcessState, apply
from oneiros.kernel.tools import Wake
from oneiros.memory.pages import Page, PageKind

ORIGINS = ("user", "system", "app:notes", "tool:files", "web:example.org", "file:plan.md")
READERS = (None, ("ada",), ("ada", "model:remote"))


@dataclass(frozen=True, slots=True)
class History:
    """What happened to a process, with the texts that the events name, and what came of it."""

    pid: int
    events: tuple[e.Event, ...]
    blobs: dict[str, bytes]  # by hash
    state: ProcessState  # after the last event


def histories(
    *, pid: int = 1, most: int = 60, forked_from: History | None = None
) -> st.SearchStrategy[History]:
    """Histories of up to so many events. One that is made shorter keeps its beginning."""
    return st.builds(
        lambda seed, length: make_history(Random(seed), length, pid=pid, forked_from=forked_from),
        st.integers(0, 2**32 - 1),
        st.integers(1, most),
    )


def make_history(
    random: Random, length: int, *, pid: int = 1, forked_from: History | None = None
) -> History:
    """A history of up to so many events: fewer where the process ends before.

    Args:
        random: decides everything.
        length: at least 1.
        pid: the process.
        forked_from: the process that this one was forked from; None: it was started.
    """
    author = Author(random, pid, forked_from)
    events = tuple(islice(author, length))
    assert author.state is not None
    return History(pid, events, author.blobs, author.state)


@dataclass
class Author:
    """Makes up one event after another that may follow those before."""

    random: Random
    pid: int
    forked_from: History | None = None
    state: ProcessState | None = None  # after the events so far
    blobs: dict[str, bytes] = field(default_factory=dict)

    def __iter__(self) -> Iterator[e.Event]:
        seq = 0
        while self.state is None or self.state.end is None:
            seq += 1
            event = self._first() if self.state is None else self._next(self.state)
            self.state = apply(self.state, self.pid, seq, event, self.blobs.__getitem__)
            yield event

    def _first(self) -> e.Event:
        if self.forked_from is not None:
            state = self.forked_from.state
            self.blobs.update(self.forked_from.blobs)
            snapshot = self._put(STATE.dump_json(state))
            return e.Forked(parent=state.pid, at=state.seq, state=snapshot)
        return e.Started(
            owner="ada",
            app="assistant",
            program="agent",
            model="smollm2-135m",
            title=self.random.choice(("", "Plans", "Übersetzung")),
            parent=self.random.choice((None, None, 7)),
            priority=self.random.randrange(3),
            budget=self._budget(),
            capabilities=frozenset(self.random.sample(("files", "python", "*"), 2)),
            grants=frozenset(self.random.sample(("send_mail", "pay"), self.random.randrange(2))),
            quarantine=self.random.random() < 0.3,
            sampling=self.random.choice((None, self._text())),
            pages=tuple(
                self._page(PageKind.SYSTEM, number, pinned=True)
                for number in range(1, self.random.randrange(1, 3))
            ),
        )

    def _next(self, state: ProcessState) -> e.Event:
        choices: list[Callable[[ProcessState], e.Event]] = [self._delivered] * 3
        choices += [self._noticed, self._signalled, self._reniced, self._budget_changed]
        choices += [self._child_started, self._tools_offered]
        if state.inbox:
            choices += [self._received] * 6
        if state.generation is not None:
            choices += [self._generated] * 8 + [self._generation_ended] * 4
        else:
            choices += [self._generation_started] * 4 + [self._intended] * 4
        if state.calls:
            choices += [self._call_goes_on] * 8
        if len(_movable(state)) > 1:
            choices += [self._evicted]
        if state.pages:
            choices += [self._page_erased, self._charged]
        if self.random.random() < 0.01:
            choices = [self._ended]
        return self.random.choice(choices)(state)

    def _page_erased(self, state: ProcessState) -> e.Event:
        page = self.random.choice((*state.pages, *state.evicted))
        return e.PageErased(page=page.id, message=self._text())

    def _charged(self, state: ProcessState) -> e.Event:
        return e.Charged(used=self._used())

    def _delivered(self, state: ProcessState) -> e.Event:
        sender = self.random.choice(("user", "timer", "process:7"))
        return e.Delivered(sender=sender, text=self._text(), label=self._label())

    def _received(self, state: ProcessState) -> e.Event:
        count = self.random.randint(1, len(state.inbox))
        numbers = range(state.next_page, state.next_page + count)
        documents = self.random.choice(((), ("inbox/long.txt",)))
        pages = tuple(
            self._page(PageKind.USER, number, sender=mail.sender)
            for number, mail in zip(numbers, state.inbox, strict=False)
        )
        return e.Received(pages=pages, documents=documents)

    def _noticed(self, state: ProcessState) -> e.Event:
        kind = self.random.choice((PageKind.NOTICE, PageKind.SUMMARY, PageKind.RECALLED))
        told = self.random.choice(((), ("tokens",), ("calls", "seconds")))
        page = self._page(kind, state.next_page)
        return e.Noticed(page=page, told=told, by_program=self.random.random() < 0.5)

    def _signalled(self, state: ProcessState) -> e.Event:
        if state.stopped:
            return e.Signalled(signal="continue")
        return e.Signalled(signal="stop", why=self.random.choice((None, self._text())))

    def _reniced(self, state: ProcessState) -> e.Event:
        return e.Reniced(priority=self.random.randrange(-5, 6))

    def _budget_changed(self, state: ProcessState) -> e.Event:
        return e.BudgetChanged(budget=self._budget())

    def _child_started(self, state: ProcessState) -> e.Event:
        return e.ChildStarted(child=self.random.randrange(100, 200), used=self._used())

    def _tools_offered(self, state: ProcessState) -> e.Event:
        return e.ToolsOffered(tools=self._put(b"[]"))

    def _generation_started(self, state: ProcessState) -> e.Event:
        options = self._put(b'{"kind":"generate"}')
        seed = self.random.getrandbits(31)
        return e.GenerationStarted(seed=seed, options=options, limit=self.random.randint(1, 512))

    def _generated(self, state: ProcessState) -> e.Event:
        return e.Generated(text=self._text(), tokens=self.random.randint(1, 9))

    def _generation_ended(self, state: ProcessState) -> e.Event:
        failed = self.random.random() < 0.2
        page = None if failed else self._page(PageKind.ASSISTANT, state.next_page)
        return e.GenerationEnded(
            page=page,
            reason="failed" if failed else self.random.choice(("stop", "length", "tool_calls")),
            used=self._used(),
            prompt_tokens=self.random.randrange(2000),
            cached_tokens=self.random.randrange(2000),
            error=self._text() if failed else None,
        )

    def _intended(self, state: ProcessState) -> e.Event:
        decision = self.random.choice(("allow", "allow", "ask", "deny"))
        return e.CallIntended(
            call_id=f"{self.pid}-{state.next_call}",
            tool=self.random.choice(("calculator", "write_file", "sleep")),
            arguments=self._put(json.dumps({"number": self.random.randrange(99)}).encode()),
            decision=decision,
            why=None if decision == "allow" else self._text(),
            meaning=self.random.choice(("send a", "send b", "pay")) if decision == "ask" else "",
            label=self._label(),
            model_call=self.random.choice((None, "call_0")),
            handle=self.random.random() < 0.3,
            released=("web:example.org",) if decision == "allow" else (),
        )

    def _call_goes_on(self, state: ProcessState) -> e.Event:
        call = self.random.choice(state.calls)
        if call.phase == "asked" and self.random.random() < 0.8:
            allowed, always = self.random.random() < 0.5, self.random.random() < 0.5
            return e.CallAnswered(call_id=call.call_id, allowed=allowed, always=always)
        if call.phase == "intended" and self.random.random() < 0.3:
            return e.CallSuspended(call_id=call.call_id, wake=self._wake())
        return self._call_ended(state, call)

    def _call_ended(self, state: ProcessState, call: CallState) -> e.Event:
        outcome = self.random.choice(("done", "failed", "unknown", "cancelled"))
        kind = PageKind.TOOL if call.model_call is not None else PageKind.VALUE
        return e.CallEnded(
            call_id=call.call_id,
            outcome="denied" if call.phase == "denied" else outcome,
            page=self._page(kind, state.next_page, call_id=call.call_id),
            used=self._used(),
            data=self.random.choice((None, self._put(b'{"sum":3}'))),
            own=self.random.choice((None, self._label(), self._label())),
            held=self._text() if call.handle else None,
            document=self.random.choice((None, "calls/output.txt")),
            received=self.random.randrange(2) if state.inbox else 0,
        )

    def _evicted(self, state: ProcessState) -> e.Event:
        pages = _movable(state)
        first = self.random.randrange(len(pages) - 1)
        gone = tuple(page.id for page in pages[first : self.random.randint(first + 1, len(pages))])
        mark = self._page(PageKind.MARK, state.next_page, stands_for=gone)
        return e.Evicted(pages=gone, mark=mark)

    def _ended(self, state: ProcessState) -> e.Event:
        status = self.random.choice(("done", "killed", "failed", "budget"))
        result = self.random.choice((None, self._text()))
        return e.Ended(status=status, result=result, label=self._label())

    def _page(self, kind: PageKind, number: int, **fields: object) -> Page:
        message = {"role": "user", "content": self._words()}
        return Page(
            id=number,
            kind=kind,
            message=self._put(json.dumps(message).encode()),
            tokens=0 if kind is PageKind.VALUE else self.random.randint(1, 300),
            label=self._label(),
            **fields,  # type: ignore[arg-type]
        )

    def _wake(self) -> Wake:
        at = self.random.choice((None, 1.7e9 + self.random.random()))
        question = self._words() if self.random.random() < 0.3 else None
        return Wake(at=at, message=at is None and question is None, question=question)

    def _budget(self) -> e.Budget:
        return e.Budget(
            tokens=self.random.choice((None, 10_000)),
            seconds=self.random.choice((None, 60.5)),
            calls=self.random.choice((None, 20)),
        )

    def _used(self) -> e.Used:
        tokens = self.random.randrange(100)
        return e.Used(tokens=tokens, seconds=self.random.random(), calls=self.random.randrange(2))

    def _label(self) -> Label:
        origins = self.random.sample(ORIGINS, self.random.randrange(3))
        return Label.of(*origins, readers=self.random.choice(READERS))

    def _words(self) -> str:
        words = self.random.choices(("plan", "naïve", "文", "🙂", "\x00", "two\nlines"), k=4)
        return f"{' '.join(words)} {self.random.randrange(1000)}"

    def _text(self) -> str:
        return self._put(self._words().encode())

    def _put(self, data: bytes) -> str:
        blob = sha256(data).hexdigest()
        self.blobs[blob] = data
        return blob


def _movable(state: ProcessState) -> list[Page]:
    """The pages after the pinned head."""
    return [page for page in state.pages if not page.pinned]
