"""A process that runs: asks its program what to do next, and sees that it is done.

All that it knows is its state, so that it can be stopped at any instruction and go on from the
journal.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine

from oneiros.errors import DiskError
from oneiros.kernel import events as e
from oneiros.kernel import program
from oneiros.kernel.budgets import LAST_STEPS, end_of_budget
from oneiros.kernel.calls import begin_calls, cancel_waiting, finish_calls
from oneiros.kernel.generating import MARKUP, Talk, generate, remind, resume, room
from oneiros.kernel.idle import QUIET, sum_up, unsummarized
from oneiros.kernel.label import SYSTEM, Label
from oneiros.kernel.services import Services
from oneiros.kernel.state import Mail, ProcessState
from oneiros.kernel.view import ProcessView
from oneiros.memory.documents import fitted
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message


class Process:
    """A process under way. Belongs to one event loop."""

    def __init__(
        self,
        state: ProcessState,
        services: Services,
        record: Callable[[int, tuple[e.Event, ...], bool], ProcessState],
    ) -> None:
        """Go on from a state.

        Args:
            state: where it is.
            services: what it runs on.
            record: journals events, and gives the state after them.
        """
        self.state = state
        self.services = services
        self.running_calls: set[str] = set()  # begun since this process was made
        self.talk = Talk()
        self.under_way: set[asyncio.Future[object]] = set()  # what an interruption ends
        self.interruptions = 0
        self._offered: bytes | None = None
        self._record = record
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int:
        return self.state.pid

    @property
    def texts(self) -> ProcessView:
        """The state as the program sees it."""
        return ProcessView(self.state, self.services.texts)

    def append(self, *events: e.Event, durable: bool = False) -> None:
        """Journal events; the state is then the one after them."""
        self.state = self._record(self.pid, events, durable)
        self._changed.set()

    def put(self, text: str) -> str:
        """Keep a text; its hash."""
        # Half a surrogate pair can come from JSON, and has no UTF-8.
        return self.services.journal.put(text.encode(errors="replace"))

    def put_json(self, value: object) -> str:
        """Keep JSON-like data; its hash."""
        return self.put(json.dumps(value, ensure_ascii=False))

    def page(
        self,
        kind: PageKind,
        message: Message,
        label: Label,
        *,
        sender: str = "",
        offset: int = 0,
        pinned: bool = False,
        call_id: str | None = None,
        stands_for: tuple[int, ...] = (),
    ) -> Page:
        """A new page; `offset` counts those that are made for the same event."""
        return Page(
            id=self.state.next_page + offset,
            kind=kind,
            message=self.put_json(message),
            tokens=0 if kind is PageKind.VALUE else self.tokens(message),
            label=label,
            sender=sender,
            pinned=pinned,
            call_id=call_id,
            stands_for=stands_for,
        )

    def tokens(self, message: Message) -> int:
        """About what a message takes in the context."""
        count = self.count(message["content"])
        calls = message.get("tool_calls")
        if calls:
            count += self.count(json.dumps(calls))
        return count + MARKUP

    def count(self, text: str) -> int:
        """Tokens of a text, for this process's model."""
        return self.services.models.count(self.state.model, text)

    def notify(self) -> None:
        """Something changed that the process may wait for."""
        self._changed.set()

    def interrupt(self) -> None:
        """End the reply that is generated, and the calls that are made; what was said stays."""
        self.interruptions += 1
        for work in self.under_way:
            work.cancel()
        cancel_waiting(self)

    async def until(
        self, ready: Callable[[], bool], seconds: Callable[[], float | None] = lambda: None
    ) -> None:
        """Wait until something is so, or so many seconds are over."""
        while not ready():
            self._changed.clear()
            left = seconds()
            if left is not None and left <= 0:
                return
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                continue

    async def attend(self, work: Coroutine[object, object, None]) -> bool:
        """Do something that an interruption ends; whether it came to its end."""
        task: asyncio.Future[object] = asyncio.ensure_future(work)
        self.under_way.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self.under_way.discard(task)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            return False
        task.result()
        return True

    async def run(self) -> None:
        """Go on until the process has ended. Cancelling it loses nothing."""
        while self.state.end is None:
            if self.state.stopped:
                await self.until(lambda: not self.state.stopped or self.state.end is not None)
            elif self.state.generation is not None:
                await resume(self)
            elif self.state.calls:
                await finish_calls(self)
            elif not self._end_of_budget():
                await self._step()

    async def _step(self) -> None:
        self._offer_tools()
        action = self.services.programs[self.state.program].step(self.texts)
        match action:
            case program.Generate():
                await generate(self, action)
            case program.Call():
                begin_calls(self, action.requests)
            case program.Receive():
                await self._receive()
            case program.Note():
                message: Message = {"role": "user", "content": action.text}
                page = self.page(
                    action.page_kind, message, self.state.label, stands_for=action.stands_for
                )
                self.append(e.Noticed(page=page, by_program=True))
            case program.Exit():
                self.append(
                    e.Ended(
                        status=action.status,
                        result=self.put(action.result),
                        label=self.state.label,
                        by_program=True,
                    )
                )

    def _offer_tools(self) -> None:
        data = self.services.toolbox.description(self.state.capabilities)
        if data is not self._offered:
            self._offered = data
            blob = self.services.journal.put(data)
            if blob != self.state.tools:
                self.append(e.ToolsOffered(tools=blob))

    async def _receive(self) -> None:
        """Take the first message of the inbox, when there is one."""
        await self._idle()
        if self._disturbed():
            return
        mail = self.state.inbox[0]
        text = self.services.texts.text(mail.text)
        page, documents = self._received(mail, text)
        self.append(e.Received(pages=(page,), documents=documents))
        await remind(self, text)

    async def _idle(self) -> None:
        """Wait for a message; use the time for a summary, where one is due."""

        def called() -> bool:
            return bool(self.state.inbox) or self._disturbed()

        if unsummarized(self) and self.services.models.origin(self.state.model) is None:
            quiet = time.monotonic() + QUIET
            await self.until(called, lambda: quiet - time.monotonic())
            if not called():
                work = asyncio.ensure_future(self.attend(sum_up(self)))
                work.add_done_callback(lambda _: self.notify())
                try:
                    await self.until(lambda: called() or work.done())
                finally:
                    work.cancel()
                    await asyncio.wait({work})
        await self.until(called)

    def _disturbed(self) -> bool:
        return self.state.stopped or self.state.end is not None

    def _received(self, mail: Mail, text: str) -> tuple[Page, tuple[str, ...]]:
        context = self.services.models.context(self.state.model)
        longest = room(context).longest_message
        documents: tuple[str, ...] = ()
        if self.count(text) > longest:
            name = f"message-{self.pid}-{self.state.next_page}.txt"
            try:
                kept = self.services.memory.keep(self.state, name, text, mail.label)
                documents, text = (kept.path,), kept.shown
            except DiskError as error:
                remark = f"\n[What is not shown of this message could not be kept: {error}]"
                left = longest - self.count(remark)
                text = fitted(text, len(text), left, self.count) + remark
        if mail.sender != "user":
            text = f"[from {mail.sender}]\n{text}"
        message: Message = {"role": "user", "content": text}
        return self.page(PageKind.USER, message, mail.label, sender=mail.sender), documents

    def _end_of_budget(self) -> bool:
        """Announce what is nearly used up; end the process where something is."""
        end = end_of_budget(self.state)
        if end.over and self.state.last_steps:
            return False
        if end.over and not self.state.told.issuperset(end.over):
            parts = " and ".join(end.over)
            self._notice(
                f"[Your budget of {parts} is used up. Say in a few words what you did and found: "
                "it is the last that you say.]",
                told=end.over,
                last_steps=LAST_STEPS,
            )
            return False
        if end.over:
            result = f"The budget of {' and '.join(end.over)} is used up."
            last = [page for page in self.state.context if page.kind is PageKind.ASSISTANT]
            if last:
                result += f" Said last: {self.services.texts.message(last[-1])['content']}"
            self.append(e.Ended(status="budget", result=self.put(result), label=self.state.label))
            return True
        if end.near:
            text = f"[Your budget is nearly used up. Left: {end.left}. Come to an end.]"
            self._notice(text, told=end.near)
        return False

    def _notice(self, text: str, *, told: tuple[str, ...], last_steps: int = 0) -> None:
        page = self.page(PageKind.NOTICE, {"role": "user", "content": text}, Label.of(SYSTEM))
        self.append(e.Noticed(page=page, told=told, last_steps=last_steps))
