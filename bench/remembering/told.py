"""Long conversations on a real system: told with a script for a model, gone on with a real one.

What is told is journalled like any conversation: its pages fill the context, leave it, and are
indexed. Then the system is started again on the same folder with the model that is measured, and
each question goes to a fork of the process.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from oneiros.engine.embedding import Embedder
from oneiros.engine.local_model import LocalModel
from oneiros.engine.requests import (
    EngineStatistics,
    Finished,
    GenerationRequest,
    Output,
    PromptRead,
    Tokens,
    Usage,
)
from oneiros.engine.sampling import SamplingOptions
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.spec import ProcessSpec
from oneiros.memory.pages import PageKind
from oneiros.server.system import OWNER, SystemSettings, boot

_PATIENCE = 600.0  # seconds for an answer
_CITED = re.compile(r"\[message (\d+),")


@dataclass(slots=True)
class Recital:
    """An engine that says what it is given."""

    replies: deque[tuple[int, ...]] = field(default_factory=deque)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Output, None]:
        """The next reply."""
        yield PromptRead(0)
        ids = self.replies.popleft()
        yield Tokens(ids, ())
        yield Finished("stop", Usage(len(request.prompt), 0, len(ids)))

    async def statistics(self) -> EngineStatistics:
        """It is idle."""
        return EngineStatistics()

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process answered."""

    text: str
    cited: frozenset[int]  # messages that were quoted to the model, with their numbers
    rounds: int  # replies of the model


async def tell(
    folder: Path,
    model: LocalModel,
    embedder: Callable[[], Embedder],
    turns: Iterable[tuple[str, str]],
    longest_reply: int,
) -> int:
    """Have a process go through a conversation without computing replies; its pid."""
    service = Recital()
    settings = SystemSettings(folder=folder, mcp=False)
    async with boot(settings, replace(model, service=service), embedder) as system:
        spec = ProcessSpec(
            owner=OWNER,
            capabilities=frozenset({"recall"}),
            sampling=SamplingOptions(temperature=0.0, max_tokens=longest_reply),
        )
        pid = await system.kernel.start(spec)
        for user, assistant in turns:
            service.replies.append(tuple(model.tokenizer.encode(assistant)))
            await system.kernel.send(pid, user)
            await answered(system.kernel, pid)
        await system.kernel.stop(pid)
    return pid


async def ask(kernel: Kernel, pid: int, question: str) -> Answer:
    """Ask a fork of a stopped process, which ends with its answer."""
    known = kernel.state(pid).next_page
    child = await kernel.fork(pid)
    await kernel.cont(child)
    await kernel.send(child, question)
    await answered(kernel, child)
    state = kernel.state(child)
    new = [page for page in (*state.evicted, *state.pages) if page.id >= known]
    said = [page for page in new if page.kind is PageKind.ASSISTANT]
    quoted = "\n".join(
        kernel.message(page)["content"]
        for page in new
        if page.kind in (PageKind.RECALLED, PageKind.TOOL)
    )
    await kernel.kill(child)
    return Answer(
        kernel.message(said[-1])["content"] if said else "",
        frozenset(map(int, _CITED.findall(quoted))),
        len(said),
    )


async def answered(kernel: Kernel, pid: int) -> None:
    """Wait until a process has answered what is in its inbox."""
    async with asyncio.timeout(_PATIENCE):
        while not _waits(kernel, pid):
            await asyncio.sleep(0.005)


def _waits(kernel: Kernel, pid: int) -> bool:
    state = kernel.state(pid)
    if state.inbox or state.calls or state.generation is not None:
        return False
    last = state.context[-1]
    if last.kind is PageKind.NOTICE:  # of the agent, where the model said nothing
        return kernel.message(last)["content"].startswith("[There is no answer")
    return last.kind is PageKind.ASSISTANT and not last.calls
