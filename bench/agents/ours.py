"""Tasks done by our agent: a process of our kernel, with the model in our own engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

from bench.agents.result import REPLY_TOKENS, SECONDS, STEPS, Attempt
from bench.agents.task import Done, Task
from bench.agents.workplace import TOOLS, workplace
from oneiros.apps.prompts import Notice, notice_of
from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings
from oneiros.kernel import events as e
from oneiros.kernel.kernel import Kernel
from oneiros.kernel.spec import ProcessSpec
from oneiros.kernel.state import ProcessState
from oneiros.memory.pages import PageKind
from oneiros.model import catalog


async def attempts(
    name: str,
    tasks: Sequence[Task],
    site: str,
    *,
    steps: int = STEPS,
    context: int = 8192,
    transcripts: Path | None = None,
) -> AsyncIterator[Attempt]:
    """Try tasks, one after the other; what was said goes into a folder of transcripts."""
    model = await start_local_model(
        EngineSettings(str(catalog.resolve(name)), context=context), name
    )
    try:
        for task in tasks:
            yield await _attempt(model, task, site, steps, transcripts)
    finally:
        await model.service.close()


async def _attempt(
    model: LocalModel, task: Task, site: str, steps: int, transcripts: Path | None
) -> Attempt:
    async with workplace(model, task, site) as (system, files):
        kernel = system.kernel
        assert isinstance(kernel, Kernel)  # `boot` makes one
        began = time.monotonic()
        spec = ProcessSpec(
            owner=system.owner,
            text=task.request.replace("SITE", site),
            sampling=SamplingOptions(temperature=0, max_tokens=REPLY_TOKENS),
            budget=e.Budget(calls=steps),
            capabilities=frozenset(TOOLS),
        )
        pid = await kernel.start(spec)
        while not _at_rest(kernel.state(pid)) and time.monotonic() - began < SECONDS:
            await asyncio.sleep(0.05)
        state = kernel.state(pid)
        said = [page for page in state.context if page.kind is PageKind.ASSISTANT]
        answer = kernel.message(said[-1])["content"] if said else ""
        if transcripts is not None:
            (transcripts / f"{task.name}.txt").write_text(_transcript(kernel, state))
        calls = malformed = tokens = computed = 0
        async with aclosing(kernel.watch(pid, 0)) as events:
            async for recorded in events:
                match recorded.event:
                    case e.CallIntended(decision=decision):
                        calls += 1
                        malformed += decision == "deny"
                    case e.GenerationEnded() as ended:
                        tokens += ended.used.tokens + ended.cached_tokens
                        computed += ended.used.tokens
                    case e.Noticed(page=page) if page.kind is PageKind.NOTICE:
                        notice = notice_of(kernel.message(page)["content"])
                        calls += notice is Notice.MALFORMED
                        malformed += notice is Notice.MALFORMED
                if recorded.seq >= state.seq:
                    break
        return Attempt(
            task.name,
            answer,
            task.check(Done(answer, files)),
            calls,
            malformed,
            tokens,
            computed,
            time.monotonic() - began,
        )


def _transcript(kernel: Kernel, state: ProcessState) -> str:
    lines = []
    for page in sorted((*state.evicted, *state.pages), key=lambda page: page.id):
        message = kernel.message(page)
        calls = [json.dumps(call["function"]) for call in message.get("tool_calls", ())]
        lines += [f"== {page.kind}, {page.tokens} tokens", message["content"], *calls]
    return "\n".join(lines) + "\n"


def _at_rest(state: ProcessState) -> bool:
    """Whether it has ended, or has answered and waits."""
    waits = state.status == "waiting" and not state.calls and not state.inbox
    return state.end is not None or (waits and len(state.pages) > 1)
