"""What tests of a serving engine share: tiny engines in a thread, and replies collected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.engine import Engine
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.page_store import PageStore
from oneiros.engine.requests import (
    Finished,
    GenerationRequest,
    PromptRead,
    TokenLogprob,
    Tokens,
)
from oneiros.engine.sampling import Sampler
from oneiros.engine.scheduler import SchedulerSettings
from oneiros.engine.service import EngineService, ThreadedEngine

T = TypeVar("T")


@dataclass
class Reply:
    """All that a request gave."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int | None = None  # as it was said when the prompt was read
    finished: Finished | None = None

    @property
    def end(self) -> Finished:
        assert self.finished is not None
        return self.finished


async def collect(service: EngineService, request: GenerationRequest) -> Reply:
    """The whole reply to a request."""
    reply = Reply()
    async with aclosing(service.generate(request)) as outputs:
        async for output in outputs:
            assert reply.finished is None
            match output:
                case PromptRead():
                    assert not reply.ids and reply.cached_tokens is None
                    reply.cached_tokens = output.cached_tokens
                    reply.prompt_logprobs = output.logprobs
                case Tokens():
                    reply.ids += output.ids
                    reply.logprobs += output.logprobs
                case Finished():
                    reply.finished = output
    return reply


@asynccontextmanager
async def serving(
    engine: Engine,
    spool: Path,
    *,
    model: LanguageModel | None = None,
    pages: int = 400,
    store: PageStore | None = None,
    max_batch: int = 32,
    max_waiting: int = 512,
) -> AsyncIterator[ThreadedEngine]:
    """Serve an engine; `model` gives the tokenizer where constraints are used."""
    settings = SchedulerSettings(
        kv_memory=pages * engine.pool.page_bytes,
        spool=spool,
        max_batch=max_batch,
        max_waiting=max_waiting,
    )
    compiler = (
        ConstraintCompiler(model.tokenizer, engine.vocabulary, model.tokenizer.end_ids)
        if model is not None
        else None
    )
    # Without a tokenizer no request may have a constraint; nothing else asks for the compiler.
    service = ThreadedEngine(engine, compiler, store, settings)  # type: ignore[arg-type]
    try:
        yield service
    finally:
        await service.close()


def run(program: Callable[[], Awaitable[T]], seconds: float = 120.0) -> T:
    """Run a coroutine to its end; a test that hangs fails."""

    async def bounded() -> T:
        return await asyncio.wait_for(program(), seconds)

    return asyncio.run(bounded())


def alone(engine: Engine, request: GenerationRequest) -> list[int]:
    """The reply as it is generated with nothing but a sequence and a sampler."""
    sequence = engine.sequence()
    sampler = Sampler(request.sampling, request.prompt)
    logits = sequence.extend(request.prompt)
    ids: list[int] = []
    most = request.sampling.max_tokens or engine.context
    while len(ids) < most and len(request.prompt) + len(ids) < engine.context:
        assert logits is not None
        token = sampler.sample(logits)
        if token in request.end_ids:
            break
        ids.append(token)
        if len(sequence) < engine.context:
            logits = sequence.extend([token])
    sequence.close()
    return ids
