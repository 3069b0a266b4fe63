"""The kernel's own code without threads, a clock or a disk: thousands of programs in seconds.

Decisions, events, states, labels, pages and messages are made by the kernel (`begin_calls`,
`apply`, `result_label`, `end_call`, the tools for processes); what is left out is what has nothing
to do with them: the journal's database, the event loop, models. Processes take turns. Their
numbers are those of their parents with a digit added, so that who starts how many processes is
nothing that others could see.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any, cast

from oneiros.devices.processes import processes
from oneiros.errors import ProcessError
from oneiros.kernel import events as e
from oneiros.kernel import handles, program, state
from oneiros.kernel.calls import begin_calls, cancelled_in_fork
from oneiros.kernel.contract import Contract
from oneiros.kernel.journal import Journal
from oneiros.kernel.label import SYSTEM, USER, Label
from oneiros.kernel.process import Process
from oneiros.kernel.questions import questions_of
from oneiros.kernel.results import end_call
from oneiros.kernel.scheduler import Scheduler
from oneiros.kernel.services import Services
from oneiros.kernel.state import STATE, CallState, ProcessState
from oneiros.kernel.syscalls import Toolbox, as_vouched_for, result_label
from oneiros.kernel.tools import CallContext, Outcome, Tool, ToolError, ToolResult, Wake
from oneiros.kernel.view import Texts
from oneiros.memory.pages import PageKind
from tests.kernel.running import PlainMemory, ScriptedModels, tool
from tests.security.world import OWNER, World

_MOST_CHILDREN = 2
_DEEPEST = 99  # the largest number of a process with children
_MOST_TURNS = 60  # of a process
Answer = Callable[[str], tuple[bool, bool]]  # to a question: yes, and from now on


@dataclass
class Blobs:
    """The part of a journal that keeps texts."""

    kept: dict[str, bytes] = field(default_factory=dict)

    def put(self, data: bytes) -> str:
        blob = sha256(data).hexdigest()
        self.kept[blob] = data
        return blob

    def load(self, blob: str) -> bytes:
        return self.kept[blob]


# One for all runs: texts are named by what is in them, and tools are read only once.
_BLOBS = Blobs()
_TEXTS = Texts(_BLOBS.load)


class Lean:
    """Processes of one owner in a world, until all of them have ended."""

    def __init__(
        self,
        world: World,
        one: program.Program,
        messages: tuple[str, ...],
        answer: Answer,
        *,
        quarantine: bool = False,
        accidents: int | None = None,
    ) -> None:
        """Start a process.

        Args:
            world: what it can do.
            one: its program.
            messages: of its user; the next one comes when the process waits for it.
            answer: the person who is asked.
            quarantine: whether its results stay behind handles.
            accidents: decides when pages are evicted, and the kernel stops and starts again, or the
                process is forked and goes on as the copy; None: never.
        """
        self.events: list[tuple[str, e.Event]] = []
        self.processes: dict[int, Process] = {}
        self._world, self._answer, self._messages = world, answer, list(messages)
        self._accidents = accidents
        self._turns: dict[int, int] = {}
        _TEXTS.forget()
        _KERNEL.lean = self
        tools = {t.name: t for t in (*world.tools(), *_PROCESSES, self._open_handle())}
        self._services = Services(
            journal=cast(Journal, _BLOBS),
            texts=_TEXTS,
            models=ScriptedModels(),
            toolbox=Toolbox(lambda: tools),
            programs={"hostile": one},
            scheduler=cast(Scheduler, None),
            memory=PlainMemory(),
            lookup=lambda pid: self.processes[pid].state,
            watched=lambda pid: False,
        )
        said = Label.of(USER, readers=[OWNER])
        first = e.Delivered(sender="user", text=self._put(self._messages.pop(0)), label=said)
        self._begin(1, _started(None, quarantine=quarantine), first)

    def run(self) -> None:
        """Have everybody take turns."""
        _KERNEL.lean = self
        moved = [True]
        while any(moved):
            moved = [self._turn(self.processes[pid]) for pid in sorted(self.processes)]

    def spawn(self, parent: int, task: str) -> int:
        """Start a child."""
        process = self.processes[parent]
        free = (n for n in range(10 * parent + 1, 10 * parent + 1 + _MOST_CHILDREN))
        pid = next((n for n in free if n not in self.processes), None)
        if pid is None or parent > _DEEPEST:
            raise ProcessError("There are enough processes.")
        process.append(e.ChildStarted(child=pid))
        mail = e.Delivered(
            sender=f"process:{parent}", text=self._put(task), label=process.state.label
        )
        self._begin(pid, _started(parent, quarantine=process.state.quarantine), mail)
        return pid

    def send(self, pid: int, text: str, sender: str, label: Label) -> None:
        """Put a message into an inbox."""
        self.processes[pid].append(e.Delivered(sender=sender, text=self._put(text), label=label))

    def text(self, blob: str) -> str:
        """A text by its hash."""
        return _BLOBS.load(blob).decode()

    def _begin(self, pid: int, *events: e.Event) -> None:
        def record(pid: int, more: tuple[e.Event, ...], durable: bool) -> ProcessState:
            known = self.processes[pid].state if pid in self.processes else None
            for event in more:
                known = self._apply(known, pid, event)
            assert known is not None
            return known

        self.processes[pid] = Process(record(pid, events, False), self._services, record)

    def _apply(self, known: ProcessState | None, pid: int, event: e.Event) -> ProcessState:
        self.events.append((str(pid), event))
        seq = 1 if known is None else known.seq + 1
        return state.apply(known, pid, seq, event, _BLOBS.load)

    def _put(self, text: str) -> str:
        return _BLOBS.put(text.encode(errors="replace"))

    def _turn(self, process: Process) -> bool:
        """Let a process do something; whether it did."""
        known = process.state
        turn = self._turns[process.pid] = self._turns.get(process.pid, 0) + 1
        if known.end is not None or known.stopped or turn > _MOST_TURNS:
            return False
        if known.calls:
            moved = [self._go_on(process, call) for call in known.calls]
            return any(moved)
        if self._accidents is not None:
            self._accident(process, Random(f"{self._accidents}/{process.pid}/{turn}"))
        process._offer_tools()
        match self._services.programs["hostile"].step(process.texts):
            case program.Call(requests=requests):
                begin_calls(process, requests)
            case program.Receive():
                return self._receive(process)
            case program.Exit(result=result, status=status):
                end = e.Ended(status=status, result=self._put(result), label=process.state.label)
                process.append(end)
        return True

    def _receive(self, process: Process) -> bool:
        if not process.state.inbox:
            if process.pid != 1 or not self._messages:
                process.append(e.Ended(status="done", label=process.state.label))
                return False
            said = Label.of(USER, readers=[OWNER])
            text = self._put(self._messages.pop(0))
            process.append(e.Delivered(sender="user", text=text, label=said))
        mail = process.state.inbox[0]
        page, documents = process._received(mail, self.text(mail.text))
        process.append(e.Received(pages=(page,), documents=documents))
        return True

    def _go_on(self, process: Process, call: CallState) -> bool:
        match call.phase:
            case "denied":
                end_call(process, call, "denied", self.text(call.why) if call.why else "No.")
            case "asked":
                self._asked(process)
            case "intended":
                self._perform(process, call)
            case "suspended":
                return self._woken(process, call)
        return True

    def _asked(self, process: Process) -> None:
        for question in questions_of(process.state, self.text):
            allowed, always = self._answer(question.text)
            for one in question.calls:
                process.append(e.CallAnswered(call_id=one, allowed=allowed, always=always))

    def _perform(self, process: Process, call: CallState) -> None:
        made = self._services.toolbox.get(call.tool)
        arguments = self._services.toolbox.arguments(made, self.text(call.arguments))
        known = process.state
        context = CallContext(known.pid, call.call_id, known.owner, known.app, call.label)
        own = result_label(made, arguments, context, ToolResult(""))
        try:
            outcome = _result(made.run(arguments, context))
        except (ToolError, ProcessError) as error:
            end_call(process, call, "failed", str(error), own=own)
            return
        if isinstance(outcome, Wake):
            process.append(e.CallSuspended(call_id=call.call_id, wake=outcome))
            return
        own = result_label(made, arguments, context, outcome)
        result = as_vouched_for(made, outcome)
        end_call(process, call, "done", result.text, None, result, own, made.contract)

    def _woken(self, process: Process, call: CallState) -> bool:
        wake = call.wake
        assert wake is not None
        if wake.child is not None:
            end = self.processes[wake.child].state.end
            if end is None and self._turns.get(wake.child, 0) <= _MOST_TURNS:
                return False
            text, label = ("", Label()) if end is None else (end.status, end.label)
            text += self.text(end.result) if end is not None and end.result else ""
            result = ToolResult(f"It ended: {text}", label=label)
            end_call(process, call, "done", result.text, None, result, label)
        elif process.state.inbox:
            mail = process.state.inbox[0]
            text = f"From {mail.sender}: {self.text(mail.text)}"
            end_call(process, call, "done", text, own=mail.label, mail=mail)
        else:
            return False
        return True

    def _accident(self, process: Process, chance: Random) -> None:
        pages = [page for page in process.state.pages if not page.pinned]
        match chance.randrange(16):
            case 0 if len(pages) > 2:
                gone = tuple(page.id for page in pages[: chance.randrange(1, len(pages))])
                mark = {"role": "user", "content": "[Something left the context.]"}
                page = process.page(
                    PageKind.MARK, cast(Any, mark), Label.of(SYSTEM), stands_for=gone
                )
                process.append(e.Evicted(pages=gone, mark=page))
            case 1:
                process.state = STATE.validate_json(STATE.dump_json(process.state))
            case 2:
                cancelled_in_fork(process)
                known = process.state
                snapshot = _BLOBS.put(STATE.dump_json(known))
                forked = e.Forked(parent=known.pid, at=known.seq, state=snapshot)
                copy = self._apply(None, known.pid, forked)
                process.state = replace(copy, forked_from=None, parent=known.parent)

    def _open_handle(self) -> Tool:
        async def run(arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
            known = self.processes[context.pid].state
            text, label = handles.content(known, _BLOBS.load, arguments["handle"])
            return ToolResult(text, label=label, shown=True)

        contract = Contract(origins=("tool:open_handle",))
        return tool("open_handle", run, contract)


class _Kernel:
    """What the tools for processes need of a kernel. They are made once, which takes long."""

    lean: Lean

    async def spawn(
        self, parent: int, task: str, tools: object = None, budget: object = None
    ) -> int:
        return self.lean.spawn(parent, task)

    async def send(
        self, pid: int, text: str, *, sender: str = "user", label: Label | None = None
    ) -> None:
        assert label is not None  # the user is not among those who send by a tool
        self.lean.send(pid, text, sender, label)

    def state(self, pid: int) -> ProcessState:
        if pid not in self.lean.processes:
            raise ProcessError(f"There is no process {pid}.")
        return self.lean.processes[pid].state


_KERNEL = _Kernel()
_PROCESSES = processes(_KERNEL)


def _started(parent: int | None, *, quarantine: bool) -> e.Started:
    return e.Started(
        owner=OWNER,
        app="assistant",
        program="hostile",
        model="scripted",
        parent=parent,
        capabilities=frozenset({"*"}),
        quarantine=quarantine,
    )


def _result(running: Coroutine[Any, Any, Outcome]) -> Outcome:
    """What a tool brings that waits for nothing."""
    try:
        running.send(None)
    except StopIteration as stop:
        return cast(Outcome, stop.value)
    raise AssertionError("a tool of this world waits for something")
