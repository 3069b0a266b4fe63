"""Kernels for tests: real processes and a real journal, with a model that says what it is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneiros.engine.conversation import Conversation, ConversationOptions
from oneiros.engine.replies import Completed, Event, TextDelta
from oneiros.engine.requests import Usage
from oneiros.errors import ModelNotFoundError, OneirosError
from oneiros.kernel.contract import Contract
from oneiros.kernel.journal import Journal
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.label import Label
from oneiros.kernel.program import Action, Call, Exit, Generate, Program, Receive, ToolRequest, View
from oneiros.kernel.services import Kept, Reminder
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import CallContext, Tool
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import GeneratedReply, Message

Reply = str | list[tuple[str, str]] | OneirosError  # a text, calls (tool, arguments), or an error


def said(reply: Reply, prefix: str) -> Message:
    if isinstance(reply, str):
        return {"role": "assistant", "content": reply}
    assert not isinstance(reply, OneirosError)
    calls = [
        {
            "id": f"{prefix}-{n}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for n, (name, arguments) in enumerate(reply)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


class ScriptedConversation(Conversation):
    """Says what its model is told to, one word at a time; a word is a token."""

    def __init__(self, model: ScriptedModels, owner: str, messages: Sequence[Message]) -> None:
        super().__init__(messages)
        self._model = model
        self._owner = owner
        self._read = 0  # tokens that need not be computed again

    async def _events(self, options: ConversationOptions) -> AsyncGenerator[Event, None]:
        model = self._model
        model.asked.append((self._owner, self.messages, options))
        reply = model.next_reply(self.messages)
        if isinstance(reply, OneirosError):
            raise reply
        count = 0
        if isinstance(reply, str):
            words = reply.split(" ")
            limit = options.sampling.max_tokens or len(words)
            reply = " ".join(words[:limit])
            for n, word in enumerate(words[:limit]):
                await model.pause()
                count += 1
                yield TextDelta(word if n == 0 else f" {word}")
        message = said(reply, f"call-{len(self.messages)}")
        prompt, count = self.prompt_tokens(), max(1, count)
        cached, self._read = self._read if model.computes else prompt, prompt + count
        reason = "tool_calls" if "tool_calls" in message else "stop"
        yield Completed(reason, message, Usage(prompt, cached, count))  # type: ignore[arg-type]

    def prompt_tokens(
        self, tools: tuple[Mapping[str, object], ...] = (), message: Message | None = None
    ) -> int:
        messages = [*self.messages, *([message] if message else [])]
        return sum(len(message["content"].split()) + 5 for message in messages)

    def save(self) -> dict[str, object]:
        raise NotImplementedError


@dataclass
class ScriptedModels:
    """A model whose replies are scripted: in their order, or as a function of the messages."""

    replies: deque[Reply] = field(default_factory=deque)
    answer: Callable[[Sequence[Message]], Reply] | None = None
    size: int = 1000
    default: str = "scripted"
    asked: list[tuple[str, tuple[Message, ...], ConversationOptions]] = field(default_factory=list)
    begun: list[tuple[str, int]] = field(default_factory=list)  # conversations: owner, priority
    gate: asyncio.Event | None = None  # awaited before each word
    computes: bool = False  # whether prompts have to be computed, as far as they are new

    async def pause(self) -> None:
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()

    def next_reply(self, messages: Sequence[Message]) -> Reply:
        return self.answer(messages) if self.answer else self.replies.popleft()

    def check(self, name: str) -> None:
        if name != self.default:
            raise ModelNotFoundError(name)

    def context(self, name: str) -> int:
        return self.size

    def expressible(self, name: str, text: str) -> str:
        return text

    def count(self, name: str, text: str) -> int:
        return len(text.split())

    def origin(self, name: str) -> str | None:
        return None

    def cost(self, name: str, usage: Usage) -> float:
        return 0.0

    def affordable(self, name: str, money: float, prompt_tokens: int) -> int | None:
        return None

    def conversation(
        self,
        name: str,
        messages: Sequence[Message],
        replies: Mapping[int, GeneratedReply],
        *,
        owner: str,
        priority: int,
    ) -> Conversation:
        self.begun.append((owner, priority))
        return ScriptedConversation(self, owner, messages)


@dataclass
class PlainMemory:
    """Documents in a dictionary, and no recall."""

    documents: dict[str, str] = field(default_factory=dict)
    gone: list[tuple[int, int, str]] = field(default_factory=list)

    def keep(self, state: ProcessState, name: str, text: str, label: Label) -> Kept:
        self.documents[name] = text
        return Kept(name, f"[document {name}: {text[:20]}]")

    def evicted(self, state: ProcessState, page: Page, text: str) -> None:
        self.gone.append((state.pid, page.id, text))

    def erased(self, state: ProcessState, pages: tuple[Page, ...]) -> None:
        self.gone = [gone for gone in self.gone if gone[1] not in {page.id for page in pages}]

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        return None

    def facts(self, owner: str) -> tuple[str, Label] | None:
        return None


class Chat:
    """A small agent: answers each message, making the calls that the model wants."""

    def step(self, view: View) -> Action:
        pages = view.state.context
        last = pages[-1] if pages else None
        if last is None or last.kind in (PageKind.SYSTEM, PageKind.MARK):
            return Receive()
        if last.kind is PageKind.ASSISTANT:
            message = view.message(last)
            if last.calls:
                return Call(
                    requests=tuple(
                        ToolRequest(
                            tool=call["function"]["name"],  # type: ignore[index]
                            arguments=call["function"]["arguments"],  # type: ignore[index]
                            model_call=call["id"],  # type: ignore[arg-type]
                        )
                        for call in message["tool_calls"]
                    )
                )
            if view.state.parent is not None:
                return Exit(result=message["content"])
            return Receive()
        if view.state.last_reason == "failed":
            return Exit(result="the model failed", status="failed")
        return Generate(tools=tuple(tool.name for tool in view.tools))


@dataclass
class Calls:
    """A program without a model: makes the calls of a list, one after the other, and ends."""

    requests: Sequence[tuple[str, str]]

    def step(self, view: View) -> Action:
        done = view.state.next_call - 1
        if done < len(self.requests):
            name, arguments = self.requests[done]
            return Call(requests=(ToolRequest(tool=name, arguments=arguments),))
        return Exit(result=f"{done} calls")


def tool(
    name: str,
    run: Callable[[Mapping[str, Any], CallContext], Any],
    contract: Contract | None = None,
    **more: Any,
) -> Tool:
    """A tool from an async function of arguments and context."""
    return Tool(
        name=name,
        description=f"The tool {name}.",
        parameters=more.pop("parameters", {"type": "object"}),
        contract=contract or Contract(),
        run=run,
        **more,
    )


@asynccontextmanager
async def running(
    folder: Path,
    *tools: Tool,
    models: ScriptedModels | None = None,
    programs: Mapping[str, Program] | None = None,
    memory: PlainMemory | None = None,
    **more: Any,
) -> AsyncGenerator[Kernel, None]:
    """A kernel on the journal of a folder, whose processes go on."""
    journal = Journal.open(folder)
    kernel = Kernel(
        journal,
        models or ScriptedModels(),
        lambda: {tool.name: tool for tool in tools},
        {"agent": Chat()} | dict(programs or {}),
        memory or PlainMemory(),
        **more,
    )
    await kernel.resume()
    try:
        yield kernel
    finally:
        await kernel.close()
        journal.close()


async def until(kernel: Kernel, ready: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not ready():
            await asyncio.sleep(0.002)


async def ended(kernel: Kernel, pid: int) -> ProcessState:
    """Wait until a process has ended; its state."""
    await until(kernel, lambda: kernel.state(pid).end is not None)
    return kernel.state(pid)


def idle(kernel: Kernel, pid: int) -> bool:
    """Whether a chat has answered, and waits."""
    state = kernel.state(pid)
    return state.status == "waiting" and not state.calls


def contents(kernel: Kernel, pid: int) -> list[tuple[str, str]]:
    """Roles and texts of a context."""
    messages = map(kernel.message, kernel.state(pid).context)
    return [(message["role"], message["content"]) for message in messages]
