"""A kernel without a model, a journal or tools: what its control socket needs of one."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneiros.errors import ProcessError
from oneiros.kernel import events as e
from oneiros.kernel.control_methods import System
from oneiros.kernel.label import USER, Label
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import STATE, ProcessState, apply
from oneiros.kernel.tools import Tool
from oneiros.memory.disk import Disk
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message


@dataclass(frozen=True, slots=True)
class Recorded:
    """As the journal's."""

    seq: int
    time: float
    pid: int
    event: e.Event


@dataclass(frozen=True, slots=True)
class Question:
    """As the kernel's."""

    call_id: str
    pid: int
    tool: str
    text: str
    kind: str
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    path: str
    start: int
    end: int
    text: str
    score: float


class FakeKernel:
    """Processes that answer each message with "You said: ..." in three pieces.

    "write NAME" calls the tool `write`, which asks for permission first and then changes a file;
    "endless" begins a reply that goes on until it is interrupted.
    """

    def __init__(self, folder: Path) -> None:
        """Keep files, and nothing else, in a folder."""
        self.events: dict[int, list[Recorded]] = {}
        self.states: dict[int, ProcessState] = {}
        self.blobs: dict[str, bytes] = {}
        self.erased: list[tuple[int, int | None]] = []
        self.backups: list[Path] = []
        self.specs: list[ProcessSpec] = []
        self.watchers = 0
        self.disk = Disk(folder / "files", folder / "versions", "user")
        self._all: list[Recorded] = []
        self._pids = itertools.count(1)
        self._changed = asyncio.Condition()

    async def start(self, spec: ProcessSpec) -> int:
        self.specs.append(spec)
        pid = next(self._pids)
        await self.append(
            pid,
            e.Started(
                owner=spec.owner,
                app=spec.app,
                program=spec.program,
                model=spec.model or "fake",
                title=spec.title,
                parent=spec.parent,
                priority=spec.priority,
                budget=spec.budget,
                capabilities=spec.capabilities,
                quarantine=spec.quarantine,
                pages=(self.page(1, PageKind.SYSTEM, "system", spec.system or "Be brief."),),
            ),
        )
        if spec.text is not None:
            await self.send(pid, spec.text)
        return pid

    def processes(self, *, ended: bool = False) -> list[ProcessState]:
        return [state for state in self.states.values() if ended or state.end is None]

    def state(self, pid: int) -> ProcessState:
        if pid not in self.states:
            raise ProcessError(f"There is no process {pid}.")
        return self.states[pid]

    async def send(self, pid: int, text: str) -> None:
        self.state(pid)
        await self.append(
            pid, e.Delivered(sender="user", text=self.put(text), label=Label.of(USER))
        )
        page = self.page(self.states[pid].next_page, PageKind.USER, "user", text)
        await self.append(pid, e.Received(pages=(page,)))
        if text.startswith("write "):
            await self._ask(pid, text.removeprefix("write "))
        else:
            await self._reply(pid, text)

    async def watch(
        self, pid: int | None = None, after: int | None = None
    ) -> AsyncGenerator[Recorded, None]:
        if pid is not None:
            self.state(pid)
        events = self._all if pid is None else self.events[pid]
        place = len(events) if after is None else after
        self.watchers += 1
        try:
            while True:
                while place < len(events):
                    place += 1
                    yield events[place - 1]
                async with self._changed:
                    if place == len(events):
                        await self._changed.wait()
        finally:
            self.watchers -= 1

    def text(self, blob: str) -> str:
        return self.blobs[blob].decode()

    def message(self, page: Page) -> Message:
        message: Message = json.loads(self.blobs[page.message])
        return message

    async def kill(self, pid: int) -> None:
        self.state(pid)
        await self.append(pid, e.Ended(status="killed"))

    async def stop(self, pid: int) -> None:
        self.state(pid)
        await self.append(pid, e.Signalled(signal="stop"))

    async def cont(self, pid: int) -> None:
        self.state(pid)
        await self.append(pid, e.Signalled(signal="continue"))

    async def interrupt(self, pid: int) -> None:
        if self.state(pid).generation is not None:
            await self._end_reply(pid, "and so on", "interrupted")

    async def renice(self, pid: int, priority: int) -> None:
        self.state(pid)
        await self.append(pid, e.Reniced(priority=priority))

    async def set_budget(self, pid: int, budget: e.Budget) -> None:
        self.state(pid)
        await self.append(pid, e.BudgetChanged(budget=budget))

    async def fork(self, pid: int) -> int:
        state = self.state(pid)
        child = next(self._pids)
        blob = self.put(STATE.dump_json(state).decode())
        await self.append(pid, e.ChildStarted(child=child))
        await self.append(child, e.Forked(parent=pid, at=state.seq, state=blob))
        return child

    def questions(self, pid: int | None = None) -> Sequence[Any]:
        return [
            Question(
                call.call_id,
                state.pid,
                call.tool,
                self.text(call.why or ""),
                "permission",
                (call.call_id,),
            )
            for state in self.states.values()
            for call in state.calls
            if call.phase == "asked" and pid in (None, state.pid)
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
        for question in self.questions(pid):
            if question.call_id == call_id:
                await self._answered(question.pid, call_id, bool(allow), always)
                return
        raise ProcessError(f"No call {call_id} waits for an answer.")

    async def replay(self, pid: int) -> int:
        return self.state(pid).seq

    def erase(self, pid: int, page: int | None = None) -> None:
        self.state(pid)
        self.erased.append((pid, page))

    def backup(self, path: Path) -> None:
        self.backups.append(path)

    async def append(self, pid: int, *events: e.Event) -> None:
        for event in events:
            seq = len(self.events.setdefault(pid, [])) + 1
            self.states[pid] = apply(
                self.states.get(pid), pid, seq, event, lambda blob: self.blobs[blob]
            )
            recorded = Recorded(seq, 1_800_000_000.0 + len(self._all), pid, event)
            self.events[pid].append(recorded)
            self._all.append(recorded)
        async with self._changed:
            self._changed.notify_all()

    def put(self, text: str) -> str:
        blob = hashlib.sha256(text.encode()).hexdigest()
        self.blobs[blob] = text.encode()
        return blob

    def page(self, number: int, kind: PageKind, role: str, text: str, **more: Any) -> Page:
        message = self.put(json.dumps({"role": role, "content": text}))
        label = Label.of(USER)
        return Page(id=number, kind=kind, message=message, tokens=8, label=label, **more)

    async def _reply(self, pid: int, text: str) -> None:
        await self.append(pid, e.GenerationStarted(seed=1, options=self.put("{}"), limit=100))
        await self.append(pid, e.Generated(text=self.put("You said: "), tokens=3))
        if text != "endless":
            await self.append(pid, e.Generated(text=self.put(text), tokens=2))
            await self._end_reply(pid, f"You said: {text}", "stop")

    async def _end_reply(self, pid: int, text: str, reason: str, calls: int = 0) -> None:
        page = self.page(
            self.states[pid].next_page, PageKind.ASSISTANT, "assistant", text, calls=calls
        )
        used = e.Used(tokens=13, seconds=0.5)  # 8 read, 5 generated
        await self.append(
            pid,
            e.GenerationEnded(
                page=page, reason=reason, used=used, prompt_tokens=20, cached_tokens=12
            ),
        )

    async def _ask(self, pid: int, name: str) -> None:
        await self.append(pid, e.GenerationStarted(seed=1, options=self.put("{}"), limit=100))
        await self._end_reply(pid, "", "tool_calls", calls=1)
        await self.append(
            pid,
            e.CallIntended(
                call_id=f"{pid}.{self.states[pid].next_call}",
                tool="write",
                arguments=self.put(json.dumps({"path": name, "text": "hello"})),
                decision="ask",
                why=self.put(f"write(path='{name}') would send. Allow it?"),
                meaning="write: send",
                model_call="c1",
            ),
        )

    async def _answered(self, pid: int, call_id: str, allow: bool, always: bool) -> None:
        await self.append(pid, e.CallAnswered(call_id=call_id, allowed=allow, always=always))
        call = next(call for call in self.states[pid].calls if call.call_id == call_id)
        path = json.loads(self.text(call.arguments))["path"]
        if allow:
            self.disk.write(path, b"hello", call_id=call_id, label=Label.of(USER))
        text = f"wrote {path}\nand more" if allow else "A person said no."
        page = self.page(self.states[pid].next_page, PageKind.TOOL, "tool", text, call_id=call_id)
        await self.append(
            pid,
            e.CallEnded(
                call_id=call_id,
                outcome="done" if allow else "denied",
                page=page,
                used=e.Used(calls=1, seconds=0.25),
            ),
        )
        await self._reply(pid, "thank you")


def fake_system(
    folder: Path,
    kernel: FakeKernel,
    shutdown: Callable[[], None] = lambda: None,
    tools: Sequence[Tool] = (),
) -> System:
    """A system around a fake kernel."""

    def search(owner: str, query: str, limit: int) -> Any:
        found = [
            Hit(entry.path, 0, entry.size, text, 1.0)
            for entry in kernel.disk.walk()
            if query in (text := kernel.disk.read(entry.path).decode())
        ]
        return found[:limit]

    fake: Any = kernel
    return System(
        kernel=fake,
        owner="user",
        model="fake",
        context=8192,
        folder=folder,
        files=kernel.disk.root,
        address=None,
        tools=lambda: tools,
        disk=lambda owner: kernel.disk,
        search=search,
        shutdown=shutdown,
    )
