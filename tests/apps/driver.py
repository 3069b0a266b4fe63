"""A kernel of one process, for programs: it carries actions out with scripted models and tools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from oneiros.kernel import events as e
from oneiros.kernel.contract import Contract
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.program import ACTION, Action, Call, Exit, Generate, Note, Program, Receive
from oneiros.kernel.state import ProcessState, apply
from oneiros.kernel.tools import CallContext, Json, Outcome, Tool
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message

SAYS: dict[str, object] = {"type": "object", "properties": {"x": {"type": "string"}}}

_NOTHING = Contract()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a scripted model says; without text and calls it failed."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()  # tool, arguments
    reason: str = "stop"
    fails: bool = False


def tool(
    name: str, description: str = "", parameters: Json = SAYS, contract: Contract = _NOTHING
) -> Tool:
    """A tool to look at."""

    async def run(arguments: Json, context: CallContext) -> Outcome:
        raise AssertionError("the driver answers calls itself")

    return Tool(
        name=name,
        description=description or f"Does {name}.",
        parameters=parameters,
        contract=contract,
        run=run,
    )


@dataclass
class Driver:
    """One process and its program.

    Attributes:
        program: what decides.
        tools: that the process has the capabilities for.
        model: gives the reply to the context; `Generate` says what was asked.
        results: a call's result.
        actions: everything that the program said.
    """

    program: Program
    tools: Sequence[Tool] = ()
    model: Callable[[Sequence[Message], Generate], Reply] = lambda messages, asked: Reply("Done.")
    results: Callable[[str, str], str] = lambda name, arguments: f"{name} {arguments}"
    parent: int | None = None
    quarantine: bool = False
    blobs: dict[str, str] = field(default_factory=dict)
    actions: list[Action] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = 0
        head = self.page(PageKind.SYSTEM, {"role": "system", "content": "Be good."}, 1)
        self._state: ProcessState | None = None
        self.append(
            e.Started(
                owner="ann",
                app="assistant",
                program="agent",
                model="scripted",
                parent=self.parent,
                quarantine=self.quarantine,
                capabilities=frozenset({"*"}),
                pages=(head,),
            )
        )

    @property
    def state(self) -> ProcessState:
        assert self._state is not None
        return self._state

    def text(self, blob: str) -> str:
        return self.blobs[blob]

    def message(self, page: Page) -> Message:
        message: Message = json.loads(self.blobs[page.message])
        return message

    def append(self, event: e.Event) -> None:
        seq = 1 if self._state is None else self._state.seq + 1
        self._state = apply(self._state, 1, seq, event, lambda blob: self.blobs[blob].encode())

    def put(self, text: str) -> str:
        name = hashlib.sha256(text.encode()).hexdigest()
        self.blobs[name] = text
        return name

    def page(
        self,
        kind: PageKind,
        message: Message | Mapping[str, object],
        number: int | None = None,
        *,
        calls: int = 0,
        call_id: str | None = None,
    ) -> Page:
        return Page(
            id=self.state.next_page if number is None else number,
            kind=kind,
            message=self.put(json.dumps(message)),
            tokens=10,
            label=PUBLIC,
            calls=calls,
            call_id=call_id,
        )

    def deliver(self, text: str, sender: str = "user") -> None:
        self.append(e.Delivered(sender=sender, text=self.put(text), label=PUBLIC))

    def tell(self, part: str = "tokens") -> None:
        """Announce a budget's end, as the kernel does."""
        message = {"role": "user", "content": "[Your budget is nearly used up.]"}
        self.append(e.Noticed(page=self.page(PageKind.NOTICE, message), told=(part,)))

    def step(self) -> Action:
        """Ask the program once and do what it says."""
        action = self.program.step(self)
        assert ACTION.validate_json(ACTION.dump_json(action)) == action
        self.actions.append(action)
        match action:
            case Generate():
                self._generate(action)
            case Call():
                self._call(action)
            case Receive():
                if self.state.inbox:
                    message = {"role": "user", "content": self.text(self.state.inbox[0].text)}
                    self.append(e.Received(pages=(self.page(PageKind.USER, message),)))
            case Note():
                page = self.page(action.page_kind, {"role": "user", "content": action.text})
                self.append(e.Noticed(page=page, by_program=True))
            case Exit():
                self.append(e.Ended(status=action.status, result=self.put(action.result)))
        return action

    def run(self, most: int = 500) -> Action:
        """Go on until the process waits for a message, or has ended; the last action."""
        for _ in range(most):
            waits = not self.state.inbox
            action = self.step()
            if isinstance(action, Exit) or (isinstance(action, Receive) and waits):
                return action
        raise AssertionError(f"still going after {most} actions: {self.actions[-6:]}")

    @property
    def answer(self) -> str:
        """What was said last, or the result of a process that has ended."""
        if self.state.end is not None and self.state.end.result is not None:
            return self.text(self.state.end.result)
        return self.message(self.state.pages[-1])["content"]

    def notices(self) -> list[str]:
        return [action.text for action in self.actions if isinstance(action, Note)]

    def _generate(self, asked: Generate) -> None:
        self.append(e.GenerationStarted(seed=0, options=self.put("{}"), limit=100))
        reply = self.model([self.message(page) for page in self.state.context], asked)
        page = None
        if not reply.fails:
            message: dict[str, object] = {"role": "assistant", "content": reply.text}
            made = []
            for name, arguments in reply.calls:
                self.ids += 1
                function = {"name": name, "arguments": arguments}
                made.append({"id": f"c{self.ids}", "type": "function", "function": function})
            if made:
                message["tool_calls"] = made
            page = self.page(PageKind.ASSISTANT, message, calls=len(made))
        reason = "failed" if reply.fails else "tool_calls" if reply.calls else reply.reason
        self.append(e.GenerationEnded(page=page, reason=reason, used=e.Used()))

    def _call(self, action: Call) -> None:
        for request in action.requests:
            self.begin(request.tool, request.arguments, request.model_call)
            self.end_call()

    def begin(self, name: str, arguments: str, model_call: str | None) -> None:
        self.append(
            e.CallIntended(
                call_id=f"1.{self.state.next_call}",
                tool=name,
                arguments=self.put(arguments),
                decision="allow",
                model_call=model_call,
            )
        )

    def end_call(self) -> None:
        """End the first call that is under way."""
        call = self.state.calls[0]
        arguments = self.text(call.arguments)
        self.calls.append((call.tool, arguments))
        message: dict[str, object] = {
            "role": "tool",
            "content": self.results(call.tool, arguments),
            "tool_call_id": call.model_call,
        }
        kind = PageKind.VALUE if call.model_call is None else PageKind.TOOL
        page = self.page(kind, message, call_id=call.call_id)
        self.append(e.CallEnded(call_id=call.call_id, outcome="done", page=page))
