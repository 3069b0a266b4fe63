"""An engine that serves many at once, as those who ask see it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from oneiros.engine.constraint import ConstraintCompiler
from oneiros.engine.engine import Engine
from oneiros.engine.page_store import PageStore
from oneiros.engine.protocol import Answer
from oneiros.engine.requests import (
    EngineStatistics,
    Finished,
    GenerationRequest,
    Output,
    Tokens,
)
from oneiros.engine.scheduler import Scheduler, SchedulerSettings
from oneiros.errors import EngineFailedError, OneirosError


class EngineService(Protocol):
    """Generates replies to many requests at once."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Output, None]:
        """The reply to a request as it is generated; the last output is Finished.

        Closing the generator, or cancelling the task that waits for it, ends the request and
        frees what it held.

        Raises:
            OverloadedError: too many wait already.
            ContextLengthError: the prompt does not fit.
            ConstraintError: the constraint is malformed, or what was generated cannot go on.
            InvalidSamplingError, TokenizationError: tokens that the model does not have.
            EngineFailedError: the engine's process ended and could not be brought back.
        """

    async def statistics(self) -> EngineStatistics:
        """The engine's state; raises EngineFailedError if it does not answer any more."""

    async def close(self) -> None:
        """End the engine; requests that still run raise EngineFailedError."""


@dataclass(slots=True)
class Stream:
    """A request under way."""

    loop: asyncio.AbstractEventLoop
    _answers: deque[Output | OneirosError] = field(default_factory=deque)
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, answer: Output | OneirosError) -> None:
        """Add an answer, in the stream's event loop."""
        self._answers.append(answer)
        self._ready.set()

    async def next(self) -> Output | OneirosError:
        """The next answer; tokens that have come meanwhile are handed over together."""
        await self._ready.wait()
        answer = self._answers.popleft()
        if isinstance(answer, Tokens) and self._answers:
            together = [answer]
            while self._answers and isinstance(more := self._answers[0], Tokens):
                together.append(more)
                self._answers.popleft()
            ids = tuple(i for tokens in together for i in tokens.ids)
            answer = Tokens(ids, tuple(p for tokens in together for p in tokens.logprobs))
        if not self._answers:
            self._ready.clear()
        return answer


class Streams(ABC):
    """What services have in common: requests by number, and a queue of answers for each."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._streams: dict[int, Stream] = {}

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Output, None]:
        """See EngineService."""
        if request.sampling.seed is None:
            # Chosen here, so that a reply taken up again after a failure goes on as it began.
            sampling = replace(request.sampling, seed=secrets.randbits(63))
            request = replace(request, sampling=sampling)
        number = next(self._numbers)
        stream = Stream(asyncio.get_running_loop())
        self._streams[number] = stream
        try:
            self._submit(number, request)
            while True:
                output = await stream.next()
                if isinstance(output, OneirosError):
                    self._streams.pop(number, None)
                    raise output
                if isinstance(output, Finished):
                    self._streams.pop(number, None)
                yield output
                if isinstance(output, Finished):
                    return
        finally:
            if self._streams.pop(number, None) is not None:
                self._cancel(number)

    @abstractmethod
    def _submit(self, number: int, request: GenerationRequest) -> None: ...

    @abstractmethod
    def _cancel(self, number: int) -> None: ...

    def _deliver(self, answers: Iterable[Answer]) -> None:
        """Hand answers to those who wait for them, in their event loop."""
        for number, answer in answers:
            stream = self._streams.get(number)
            if stream is not None:
                stream.put(answer)

    def _fail_all(self, error: OneirosError) -> None:
        self._deliver([(number, error) for number in list(self._streams)])


class ThreadedEngine(Streams):
    """An engine in a thread of this process: for programs, tests and notebooks."""

    def __init__(
        self,
        engine: Engine,
        compiler: ConstraintCompiler,
        store: PageStore | None,
        settings: SchedulerSettings,
    ) -> None:
        """Raises NotEnoughMemoryError as Scheduler."""
        super().__init__()
        self._scheduler = Scheduler(engine, compiler, store, settings, self._emit)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="oneiros-engine", daemon=True)
        self._thread.start()

    async def statistics(self) -> EngineStatistics:
        """See EngineService."""
        self._check()
        return self._scheduler.statistics()

    async def close(self) -> None:
        """See EngineService."""
        self._scheduler.close()
        await asyncio.to_thread(self._thread.join)

    def _submit(self, number: int, request: GenerationRequest) -> None:
        self._check()
        self._scheduler.submit(number, request)

    def _cancel(self, number: int) -> None:
        self._scheduler.cancel(number)

    def _check(self) -> None:
        if not self._running:
            raise EngineFailedError("The engine was closed.")

    def _run(self) -> None:
        try:
            self._scheduler.run()
        finally:
            self._running = False
            ended = EngineFailedError("The engine ended before the reply was complete.")
            self._emit([(number, ended) for number in list(self._streams)])

    def _emit(self, answers: list[Answer]) -> None:
        for loop in {s.loop for n, _ in answers if (s := self._streams.get(n)) is not None}:
            if not loop.is_closed():
                own = [a for a in answers if (s := self._streams.get(a[0])) and s.loop is loop]
                loop.call_soon_threadsafe(self._deliver, own)
