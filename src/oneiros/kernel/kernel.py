"""The kernel: processes on one journal, started, watched, signalled, and ended."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import fields, replace
from pathlib import Path

from oneiros.errors import JournalError, ModelNotFoundError, ProcessError
from oneiros.kernel import events as e
from oneiros.kernel import handles
from oneiros.kernel.answers import Schema
from oneiros.kernel.budgets import handed_over
from oneiros.kernel.calls import answer_question, cancelled_in_fork
from oneiros.kernel.generating import MARKUP, Talk, room
from oneiros.kernel.handles import CAPABILITY
from oneiros.kernel.journal import Journal, Recorded
from oneiros.kernel.label import SYSTEM, USER, Label
from oneiros.kernel.models import Models
from oneiros.kernel.policy import MOST_REFUSALS
from oneiros.kernel.process import Process
from oneiros.kernel.program import Program
from oneiros.kernel.quarantine import (
    CHARACTERS_PER_TOKEN,
    MOST_ENDORSED,
    child_budget,
    child_pages,
    longest_reply,
)
from oneiros.kernel.quarantine import PROGRAM as INSPECTION
from oneiros.kernel.questions import Question, questions_of
from oneiros.kernel.replay import replay
from oneiros.kernel.scheduler import Scheduler
from oneiros.kernel.services import Memory, Services
from oneiros.kernel.spec import AppRules, ProcessSpec
from oneiros.kernel.state import STATE, ProcessState, apply
from oneiros.kernel.syscalls import Toolbox
from oneiros.kernel.tools import Tool, Wake
from oneiros.kernel.view import Texts, without_text
from oneiros.kernel.watchers import Watchers
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message

_log = logging.getLogger(__name__)
MOST_PROCESSES = 1_000  # that live
MOST_CHILDREN = 32  # of one process, that live
_PRIORITIES = range(20)
_SLOTS = 8  # replies of background processes that are generated at once
_JOURNAL_PAUSE = 5.0  # seconds until a process goes on whose events could not be journalled


class Kernel:
    """Runs processes. Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        models: Models,
        tools: Callable[[], Mapping[str, Tool]],
        programs: Mapping[str, Program],
        memory: Memory,
        prompts: Mapping[str, str] | None = None,
        slots: int = _SLOTS,
        ended: Callable[[int], None] = lambda pid: None,
        apps: Mapping[str, AppRules] | None = None,
        about_handles: str = "",
    ) -> None:
        """Make a kernel; `resume` then lets the processes of its journal go on.

        Args:
            journal: what happened so far.
            models: what processes think with.
            tools: what they may call, by name; asked again before each step.
            programs: what they do, by name.
            memory: documents, recall, facts.
            prompts: system prompts by app.
            slots: replies of background processes that are generated at once.
            ended: called with the number of each process that ended.
            apps: what its owner said about each app.
            about_handles: what processes in quarantine are told beside the system prompt.
        """
        self._ended = ended
        self._journal = journal
        self._texts = Texts(journal.load)
        self._prompts = dict(prompts or {})
        self._apps = dict(apps or {})
        self._about_handles = about_handles
        self._processes: dict[int, Process] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._watchers = Watchers()
        self._services = Services(
            journal=journal,
            texts=self._texts,
            models=models,
            toolbox=Toolbox(tools),
            programs=programs,
            scheduler=Scheduler(slots),
            memory=memory,
            lookup=self._lookup,
            watched=self._watchers.watched,
        )

    async def resume(self) -> None:
        """Let every process go on where it was.

        One whose model is not open waits, until its user wants it to go on with the default model:
        by a message, or by `cont`.
        """
        for pid in self._journal.live():
            state = self._journal.state(pid)
            self._processes[pid] = Process(state, self._services, self._record)
            if self._is_open(state.model):
                self._go_on(pid)

    def _is_open(self, model: str) -> bool:
        try:
            self._services.models.check(model)
        except ModelNotFoundError:
            return False
        return True

    def _wanted(self, pid: int) -> None:
        """The user wants a process to go on, whose model may not be open."""
        process = self._live(pid)
        if not self._is_open(process.state.model):
            process.append(e.ModelChanged(model=self._services.models.default))
            self._go_on(pid)

    async def close(self) -> None:
        """Stop everything where it is. The journal knows how to go on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watchers.close()

    async def start(self, spec: ProcessSpec) -> int:
        """Start a process; its pid.

        Raises:
            ProcessError: there is no such program or parent.
            ModelNotFoundError: there is no such model.
        """
        if spec.program not in self._services.programs:
            known = ", ".join(sorted(self._services.programs))
            raise ProcessError(f'There is no program "{spec.program}"; there are: {known}.')
        model = spec.model or self._services.models.default
        self._services.models.check(model)
        app = self._apps.get(spec.app, AppRules())
        spec = replace(
            spec,
            grants=spec.grants | app.grants,
            quarantine=spec.quarantine or app.quarantine,
        )
        said = Label.of(USER, readers=[spec.owner])
        delivered = [] if spec.text is None else [self._mail("user", spec.text, said)]
        started = self._started(spec, model)
        pid = self._journal.new_pid()
        self._begin(pid, started, *delivered)
        return pid

    def _started(
        self,
        spec: ProcessSpec,
        model: str,
        pages: tuple[Page, ...] | None = None,
        endorsed: float = 0.0,
    ) -> e.Started:
        """The first event of a process, which begins with these pages, or its app's.

        Raises:
            ProcessError: there are too many processes.
        """
        self._check_room()
        _check_priority(spec.priority)
        sampling = None
        if spec.sampling is not None:
            options = {one.name: getattr(spec.sampling, one.name) for one in fields(spec.sampling)}
            options["logit_bias"] = dict(spec.sampling.logit_bias)
            sampling = self._journal.put(json.dumps(options).encode())
        title = spec.title or (spec.text or "").strip().partition("\n")[0][:80]
        return e.Started(
            owner=spec.owner,
            app=spec.app,
            program=spec.program,
            model=model,
            title=title.encode(errors="replace").decode(),
            parent=spec.parent,
            priority=spec.priority,
            budget=spec.budget,
            # Who is shown handles can use them.
            capabilities=spec.capabilities | ({CAPABILITY} if spec.quarantine else set()),
            grants=spec.grants,
            quarantine=spec.quarantine,
            endorsed=endorsed,
            sampling=sampling,
            pages=self._first_pages(spec, model) if pages is None else pages,
        )

    def _check_room(self) -> None:
        if len(self._processes) >= MOST_PROCESSES:
            raise ProcessError(f"There are {MOST_PROCESSES:,} processes already: end some first.")

    def _first_pages(self, spec: ProcessSpec, model: str) -> tuple[Page, ...]:
        text = self._prompts.get(spec.app, "") if spec.system is None else spec.system
        label = Label.of(SYSTEM if spec.system is None else USER)
        if spec.quarantine and self._about_handles:
            text = f"{text}\n\n{self._about_handles}".strip()
            label = label.join(Label.of(SYSTEM))
        facts = self._services.memory.facts(spec.owner)
        if facts is not None:
            text, label = f"{text}\n\n{facts[0]}".strip(), label.join(facts[1])
        if not text:
            return ()
        message = json.dumps({"role": "system", "content": text}, ensure_ascii=False)
        page = Page(
            id=1,
            kind=PageKind.SYSTEM,
            message=self._journal.put(message.encode(errors="replace")),
            tokens=self._services.models.count(model, text),
            label=label,
            pinned=True,
        )
        return (page,)

    async def spawn(
        self,
        parent: int,
        task: str,
        tools: tuple[str, ...] | None = None,
        budget: e.Budget | None = None,
    ) -> int:
        """Start a child with a task; its pid.

        It gets capabilities of its parent only, and what is limited of its budget is taken from the
        parent's.

        Args:
            parent: the process that asks.
            task: the child's first message.
            tools: what it may call; None: what the parent may.
            budget: what it may use; None: half of what the parent has left.

        Raises:
            ProcessError: the parent has not got so much left, or ended.
        """
        process = self._live(parent)
        state = process.state
        capabilities = state.capabilities
        if tools is not None:
            wanted = {self._services.toolbox.get(name).capability for name in tools}
            capabilities = frozenset(wanted if "*" in capabilities else wanted & capabilities)
        budget, used = handed_over(state, budget)
        spec = ProcessSpec(
            owner=state.owner,
            app=state.app,
            program=state.program,
            model=state.model,
            title=task.strip().partition("\n")[0][:80],
            priority=max(1, state.priority),
            budget=budget,
            capabilities=capabilities,
            grants=state.grants,
            quarantine=state.quarantine,
            parent=parent,
        )
        # Bits are shared out as budgets are: else children would have some for their parent.
        bits = max(0.0, MOST_ENDORSED - state.endorsed) / 2
        started = self._started(spec, state.model, endorsed=MOST_ENDORSED - bits)
        mail = self._mail(f"process:{parent}", task, state.label)
        return self._adopt(
            process, e.ChildStarted(child=0, used=used, endorsed=bits), started, mail
        )

    def _adopt(self, process: Process, adopted: e.ChildStarted, *events: e.Event) -> int:
        """Start a child that begins with events. Raises ProcessError: there are too many."""
        children = sum(child in self._processes for child in process.state.children)
        if children >= MOST_CHILDREN:
            raise ProcessError(
                f"Process {process.pid} has {children} children; wait for some to end."
            )
        # The parent's event comes first: after a crash between the two its budget is charged for a
        # child that is not there, and not the other way round.
        pid = self._journal.new_pid()
        process.append(replace(adopted, child=pid))
        self._begin(pid, *events)
        return pid

    def behind(self, pid: int, handle: str) -> tuple[str, Label]:
        """What is behind a process's handle, with its label.

        Raises:
            ToolError: there is no such handle, or it was erased.
            ProcessError: there is no such process.
        """
        return handles.content(self.state(pid), self._journal.load, handle)

    def longest_inspected(self, pid: int) -> int:
        """Characters that a child of a process can read: those of no more than its context has."""
        context = self._services.models.context(self.state(pid).model)
        return room(context).longest_message * CHARACTERS_PER_TOKEN

    async def inspect(
        self, parent: int, question: str, text: tuple[str, Label], schema: Schema
    ) -> Wake:
        """Have a child without capabilities answer a question about a text.

        Args:
            parent: the process that asks.
            question: its question.
            text: with its label.
            schema: of the answer, checked (`answers.answer_schema`).

        Returns:
            What the child's end wakes.

        Raises:
            ProcessError: the parent has not got the budget, or too many children, or ended.
        """
        process = self._live(parent)
        state, models = process.state, self._services.models
        wanted = json.dumps(schema, ensure_ascii=False)
        characters = len(question) + len(text[0]) + len(wanted)
        budget, used = child_budget(state, characters, schema)

        def put(text: str) -> str:
            return self._journal.put(text.encode(errors="replace"))

        def count(text: str) -> int:
            return models.count(state.model, text)

        pages = child_pages(state, question, text, schema, put, count)
        spec = ProcessSpec(
            owner=state.owner,
            app=state.app,
            program=INSPECTION,
            model=state.model,
            title=f"inspects: {question.strip().partition(chr(10))[0][:60]}",
            priority=state.priority,
            budget=budget,
            capabilities=frozenset(),
            parent=parent,
        )
        started = self._started(spec, state.model, pages)
        # Of a text that has more tokens than it looks, nothing but that comes.
        limit = room(models.context(state.model), longest_reply(schema)).limit
        over = sum(page.tokens + MARKUP for page in pages) > limit
        events = [e.Ended(status="failed", label=text[1])] if over else []
        mail = self._mail(f"process:{parent}", wanted, state.label)
        child = self._adopt(process, e.ChildStarted(child=0, used=used), started, mail, *events)
        return Wake(child=child, schema=wanted)

    async def send(
        self,
        pid: int,
        text: str,
        *,
        sender: str = "user",
        label: Label | None = None,
        once: str | None = None,
    ) -> None:
        """Put a message into a process's inbox.

        Args:
            pid: the process.
            text: the message.
            sender: who sends it.
            label: what influenced it; None: the process's owner alone.
            once: a name of the message; nothing happens if one of that name came already.

        Raises:
            ProcessError: the process has ended.
        """
        state = self._live(pid).state
        if once is None or once not in state.came:
            said = label or Label.of(USER, readers=[state.owner])
            self._deliver(pid, sender, text, said, once)
        if sender == "user":
            self._wanted(pid)

    async def kill(self, pid: int) -> None:
        """End a process and its children. Raises ProcessError: it has ended."""
        process = self._live(pid)
        # First itself, so that it cannot act on the end of its children, or start more.
        task = self._tasks.get(pid)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        for child in process.state.children:
            if child in self._processes:
                await self.kill(child)
        if process.state.end is None and pid in self._processes:
            process.append(e.Ended(status="killed", label=process.state.label))
            self._forget(pid)

    async def stop(self, pid: int) -> None:
        """Let a process pause until `cont`. Calls under way come to their end."""
        process = self._live(pid)
        if not process.state.stopped:
            process.append(e.Signalled(signal="stop"))
            if process.state.generation is not None:
                process.interrupt()

    async def cont(self, pid: int) -> None:
        """Let a stopped process go on."""
        process = self._live(pid)
        if process.state.stopped:
            process.append(e.Signalled(signal="continue"))
        self._wanted(pid)

    async def interrupt(self, pid: int) -> None:
        """End the reply or the calls that are under way; what was said stays."""
        self._live(pid).interrupt()

    async def renice(self, pid: int, priority: int) -> None:
        """Change the priority: 0 for a process that somebody waits for, up to 19 for less.

        A reply that waits for its turn has the new one; one that is being generated goes on as it
        began.

        Raises:
            ProcessError: it is out of this range, or the process has ended.
        """
        process = self._live(pid)
        _check_priority(priority)
        process.append(e.Reniced(priority=priority))
        process.talk = Talk()  # made with the old one
        self._services.scheduler.renice(pid, priority)

    async def set_model(self, pid: int, model: str) -> None:
        """Let another model think. Raises ModelNotFoundError: it is not open."""
        process = self._live(pid)
        self._services.models.check(model)
        process.append(e.ModelChanged(model=model))
        process.talk = Talk()
        if pid not in self._tasks:
            self._go_on(pid)

    async def set_budget(self, pid: int, budget: e.Budget) -> None:
        """Change what a process may use, in all."""
        self._live(pid).append(e.BudgetChanged(budget=budget))

    async def fork(self, pid: int) -> int:
        """Start a copy of a process, as it is now; the copy's pid."""
        process = self._live(pid)
        self._check_room()
        seq, load = process.state.seq, self._journal.load

        def fold(_pid: int, events: tuple[e.Event, ...], _durable: bool) -> ProcessState:
            state = copy.state
            for event in events:
                state = apply(state, pid, seq, event, load)
            return state

        # Its calls stay the original's: they are over in the copy from its first event on.
        copy = Process(process.state, self._services, fold)
        cancelled_in_fork(copy)
        snapshot = self._journal.put(STATE.dump_json(copy.state))
        child = self._journal.new_pid()
        self._begin(child, e.Forked(parent=pid, at=seq, state=snapshot))
        return child

    def processes(self, *, ended: bool = False) -> list[ProcessState]:
        """The states of the processes that live, or of all."""
        live = [process.state for process in self._processes.values()]
        if not ended:
            return sorted(live, key=lambda state: state.pid)
        return [self.state(pid) for pid in self._journal.pids()]

    def state(self, pid: int) -> ProcessState:
        """The state of a process, ended ones too. Raises ProcessError: there is none."""
        state = self._lookup(pid)
        if state is None:
            raise ProcessError(f"There is no process {pid}.")
        return state

    def text(self, blob: str) -> str:
        """A text by its hash; of an erased one, a text that says so."""
        return self._texts.text(blob)

    def message(self, page: Page) -> Message:
        """A page's message; of an erased one, one that says so."""
        return self._texts.message(page)

    def tools(self) -> list[Tool]:
        """All tools there are."""
        return self._services.toolbox.offered(frozenset({"*"}))

    def questions(self, pid: int | None = None) -> list[Question]:
        """What processes (or one) ask people."""
        return [
            question
            for process in self._processes.values()
            if pid in (None, process.pid)
            for question in questions_of(process.state, self.text)
        ]

    async def answer(
        self,
        call_id: str,
        *,
        pid: int | None = None,
        allow: bool | None = None,
        always: bool = False,
        text: str | None = None,
    ) -> None:
        """Answer a question: allow or refuse a call, or say something.

        Args:
            call_id: of a call that asks; calls about which the same is asked are answered with it.
            pid: of the process that asks; None: whichever does.
            allow: whether a call may be made.
            always: whether all calls of its meaning may, from now on.
            text: the answer to a question that is not about a permission.

        Raises:
            ProcessError: nothing is asked there, or the answer is of the other kind.
        """
        for question in self.questions(pid):
            if call_id not in question.calls:
                continue
            process = self._processes[question.pid]
            if question.kind == "permission":
                if allow is None:
                    raise ProcessError(f"Call {call_id} asks for a permission: yes or no.")
                answers = (
                    e.CallAnswered(call_id=one, allowed=allow, always=always)
                    for one in question.calls
                )
                process.append(*answers, durable=allow)
                if allow:
                    process.running_calls.update(question.calls)
                elif len(process.state.refused) >= MOST_REFUSALS:
                    # Nobody is to say yes to the last of many questions by mistake.
                    left = (call for call in process.state.calls if call.phase == "asked")
                    refused = [e.CallAnswered(call_id=c.call_id, allowed=False) for c in left]
                    if refused:
                        process.append(*refused)
                return
            if text is None:
                raise ProcessError(f"Call {call_id} asks a question: answer it with a text.")
            call = next(call for call in process.state.calls if call.call_id == call_id)
            answer_question(process, call, text)
            return
        raise ProcessError(f"Call {call_id} asks nothing; it may have been answered already.")

    async def watch(
        self, pid: int | None = None, after: int | None = None
    ) -> AsyncGenerator[Recorded, None]:
        """Events as they come, of one process or of all; close it when it is no longer needed.

        Args:
            pid: the process; None: all.
            after: of one process: first give the events there are after this one; None: only new
                ones.

        Raises:
            ProcessError: there is no such process, or whoever watches is too slow.
        """
        if pid is not None:
            self.state(pid)
        past = self._journal.events if pid is not None and after is not None else None
        async with aclosing(self._watchers.watch(pid, past, after or 0)) as events:
            async for recorded in events:
                yield recorded

    async def replay(self, pid: int) -> int:
        """Execute a process again from its journal, with no model and no tool.

        Returns:
            How many events there were.

        Raises:
            ReplayError: it did something else; the event is named.
        """
        state = self.state(pid)
        program = self._services.programs.get(state.program)
        if program is None:
            raise ProcessError(f'There is no program "{state.program}" here.')
        return await replay(self._journal, pid, program, lambda: self.state(pid))

    def erase(self, pid: int, page: int | None = None) -> None:
        """Erase the text of a page and all that it was made of, or all texts of a process.

        The log stays whole, and calls stay with their results: what is left says that it was
        erased.

        Raises:
            ProcessError: there is no such process or page.
        """
        state = self.state(pid)
        if page is not None and page not in {one.id for one in (*state.pages, *state.evicted)}:
            raise ProcessError(f"Process {pid} has no page {page}.")
        texts = self._journal.texts_of(pid, page)
        states = [state, *(other.state for other in self._processes.values() if other.pid != pid)]
        for each in states:
            gone = tuple(one for one in (*each.pages, *each.evicted) if one.message in texts)
            if not gone:
                continue
            process = self._processes.get(each.pid)
            if process is not None:
                process.append(*(self._blank(one) for one in gone))
                process.talk = Talk()
            self._services.memory.erased(each, gone)
        self._journal.erase_texts(texts)
        self._texts.forget()

    def _blank(self, page: Page) -> e.PageErased:
        left = json.dumps(without_text(self._texts.message(page)), ensure_ascii=False)
        blob = self._journal.put(left.encode(errors="replace"))
        return e.PageErased(page=page.id, message=blob)

    def backup(self, path: Path) -> None:
        """Copy the journal, while everything goes on; may run in another thread."""
        self._journal.backup(path)

    def _begin(self, pid: int, *events: e.Event) -> None:
        for recorded in self._journal.append(pid, events):
            self._watchers.tell(recorded)
        self._run(self._journal.state(pid))

    def _run(self, state: ProcessState) -> None:
        self._processes[state.pid] = Process(state, self._services, self._record)
        self._go_on(state.pid)

    def _go_on(self, pid: int) -> None:
        self._tasks[pid] = asyncio.create_task(self._drive(pid), name=f"process {pid}")

    async def _drive(self, pid: int) -> None:
        """Let a process run to its end, whatever goes wrong on the way."""
        while True:
            run = asyncio.ensure_future(self._processes[pid].run())
            try:
                await asyncio.wait({run})
            finally:
                run.cancel()
                await asyncio.wait({run})
            error = run.exception()
            try:
                if error is not None and not _is_of(error, JournalError):
                    self._fail(pid, error)
                    error = None
            except JournalError as full:
                error = full
            if error is None:
                self._forget(pid)
                return
            # Nothing is lost: it goes on from what was journalled, as after a restart.
            _log.error("process %d pauses: %s", pid, error)
            await asyncio.sleep(_JOURNAL_PAUSE)
            state = self._journal.state(pid)
            self._processes[pid] = Process(state, self._services, self._record)

    def _fail(self, pid: int, error: BaseException) -> None:
        """End a process whose program, or the kernel itself, has a bug."""
        _log.error("process %d failed", pid, exc_info=error)
        said = "".join(traceback.format_exception_only(error)).strip()
        result = self._journal.put(said.encode(errors="replace"))
        process = self._processes[pid]
        process.append(e.Ended(status="failed", result=result, label=process.state.label))

    def _record(self, pid: int, events: tuple[e.Event, ...], durable: bool) -> ProcessState:
        for recorded in self._journal.append(pid, events, durable=durable):
            self._watchers.tell(recorded)
        state = self._journal.state(pid)
        if state.end is not None:
            for process in self._processes.values():
                process.notify()
        return state

    def _mail(self, sender: str, text: str, label: Label, once: str | None = None) -> e.Delivered:
        blob = self._journal.put(text.encode(errors="replace"))
        return e.Delivered(sender=sender, text=blob, label=label, once=once)

    def _deliver(
        self, pid: int, sender: str, text: str, label: Label, once: str | None = None
    ) -> None:
        self._live(pid).append(self._mail(sender, text, label, once))

    def _live(self, pid: int) -> Process:
        process = self._processes.get(pid)
        if process is None or process.state.end is not None:
            state = self.state(pid)
            ended = "" if state.end is None else f" ({state.end.status})"
            raise ProcessError(f"Process {pid} has ended{ended}.")
        return process

    def _lookup(self, pid: int) -> ProcessState | None:
        process = self._processes.get(pid)
        if process is not None:
            return process.state
        try:
            return self._journal.state(pid)
        except ProcessError:
            return None

    def _forget(self, pid: int) -> None:
        self._processes.pop(pid, None)
        self._tasks.pop(pid, None)
        self._services.scheduler.forget(pid)
        self._ended(pid)


def _is_of(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether an error is of a kind, or a group that has one."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)


def _check_priority(priority: int) -> None:
    if priority not in _PRIORITIES:
        raise ProcessError(
            f"The priority {priority} is not from {_PRIORITIES[0]} to {_PRIORITIES[-1]}."
        )
