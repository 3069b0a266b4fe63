"""How long the first token takes, and how much is read again, as a conversation grows.

Ours is a process of a running system, with eviction, recall and journal. The other way is what
clients of a model's API do: they send all messages again with each turn, and once these do not fit,
the newest that do. Both have the same engine with the same cache of what was read before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.remembering.facts import Turn
from bench.remembering.told import answered
from oneiros.engine.conversation import ConversationOptions
from oneiros.engine.embedding import Embedder
from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import Completed
from oneiros.engine.requests import EngineStatistics, GenerationRequest, Output, Tokens
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.service import EngineService
from oneiros.kernel import events as e
from oneiros.kernel.generating import room
from oneiros.kernel.spec import ProcessSpec
from oneiros.memory.pages import PageKind
from oneiros.model.chat_format import Message
from oneiros.server.system import OWNER, SystemSettings, boot

REPLY = 40  # tokens of a reply at most


@dataclass(slots=True)
class Timed:
    """An engine that notes when the first token of each reply came."""

    service: EngineService
    first: list[float] = field(default_factory=list)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Output, None]:
        """What the engine generates."""
        waiting = True
        async with aclosing(self.service.generate(request)) as outputs:
            async for output in outputs:
                if waiting and isinstance(output, Tokens):
                    self.first.append(time.perf_counter())
                    waiting = False
                yield output

    async def statistics(self) -> EngineStatistics:
        """The engine's."""
        return await self.service.statistics()

    async def close(self) -> None:
        """The engine is somebody else's to close."""


@dataclass(frozen=True, slots=True)
class Grown:
    """What each turn took."""

    seconds: tuple[float, ...]  # until the first token
    prompt: tuple[int, ...]  # tokens
    cached: tuple[int, ...]  # of these, found in the cache

    @property
    def share(self) -> float:
        """Of the tokens of all prompts, those that did not have to be read again."""
        return sum(self.cached) / sum(self.prompt)

    def ttft(self, turn: int, around: int = 4) -> float:
        """Milliseconds until the first token: the median of the turns around one."""
        return 1000 * statistics.median(self.seconds[max(turn - 1 - around, 0) : turn + around])


async def as_process(
    folder: Path,
    model: LocalModel,
    embedder: Callable[[], Embedder],
    turns: Sequence[Turn],
) -> tuple[Grown, list[str]]:
    """A process that talks with the model itself; what each turn took, and its replies."""
    timed = Timed(model.service)
    seconds: list[float] = []
    settings = SystemSettings(folder=folder, mcp=False)
    async with boot(settings, replace(model, service=timed), embedder) as system:
        kernel = system.kernel
        spec = ProcessSpec(
            owner=OWNER,
            capabilities=frozenset({"recall"}),
            sampling=SamplingOptions(temperature=0.0, max_tokens=REPLY),
        )
        pid = await kernel.start(spec)
        for turn in turns:
            sent, replies = time.perf_counter(), len(timed.first)
            await kernel.send(pid, turn.user)
            await answered(kernel, pid)
            seconds.append(timed.first[replies] - sent)
        state = kernel.state(pid)
        said = [
            kernel.message(page)["content"]
            for page in (*state.evicted, *state.pages)
            if page.kind is PageKind.ASSISTANT
        ]
        ended = []
        async with aclosing(kernel.watch(pid, after=0)) as events:
            async for recorded in events:
                if isinstance(recorded.event, e.GenerationEnded):
                    ended.append(recorded.event)
                if recorded.seq == state.seq:
                    break
    return (
        Grown(
            tuple(seconds),
            tuple(one.prompt_tokens for one in ended),
            tuple(one.cached_tokens for one in ended),
        ),
        said,
    )


async def sent_again(model: LocalModel, turns: Sequence[Turn], said: Sequence[str]) -> Grown:
    """The same messages, sent anew with each turn."""
    limit = room(model.context, REPLY).limit
    timed = Timed(model.service)
    client = replace(model, service=timed)
    messages: list[Message] = []
    seconds, prompt, cached = [], [], []
    for turn, reply in zip(turns, said, strict=False):
        messages.append({"role": "user", "content": turn.user})
        sent = time.perf_counter()
        conversation = LocalConversation.resume(client, messages, {}, principal="client")
        while conversation.prompt_tokens() > limit:
            del messages[:2]
            conversation = LocalConversation.resume(client, messages, {}, principal="client")
        options = ConversationOptions(sampling=SamplingOptions(temperature=0.0, max_tokens=1))
        async for event in conversation.generate(options):
            if isinstance(event, Completed):
                prompt.append(event.usage.prompt_tokens)
                cached.append(event.usage.cached_tokens)
        seconds.append(timed.first[-1] - sent)
        messages.append({"role": "assistant", "content": reply})
    return Grown(tuple(seconds), tuple(prompt), tuple(cached))
