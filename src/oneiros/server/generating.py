"""One reply of a request while it is generated: the engine's output as events, measured."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial

from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import Completed, Event, ReasoningDelta, ReplyStream
from oneiros.engine.requests import (
    Finished,
    GenerationRequest,
    Output,
    PromptRead,
    TokenLogprob,
    Tokens,
    Usage,
)
from oneiros.errors import EngineFailedError
from oneiros.server.keys import Principal
from oneiros.server.metrics import Metrics

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom replies are generated, and where they are counted."""

    principal: Principal
    metrics: Metrics
    arrived: float  # time.perf_counter() when the request came
    engine_failed: Callable[[LocalModel], None]  # told whose engine did


class Reply:
    """A reply of one request; iterate over `events` once, or call `close`.

    Attributes:
        prompt_logprobs: of the prompt's tokens but the first, where they were asked for.
        reasoning_tokens: about how many of the tokens were thoughts.
        completed: the last event, once it came.
    """

    def __init__(
        self,
        model: LocalModel,
        request: GenerationRequest,
        stream: ReplyStream,
        caller: Caller,
        *,
        choice: int = 0,
    ) -> None:
        """`choice`: which of the replies to one prompt this is; the first pays for the prompt."""
        self.prompt_logprobs: tuple[TokenLogprob, ...] = ()
        self.reasoning_tokens = 0
        self.completed: Completed | None = None
        self._prompt_tokens = len(request.prompt)
        self._cached_tokens = 0
        self._unpaid = 0 if choice else len(request.prompt)
        self._stream = stream
        self._outputs = model.service.generate(_with_seed_of(request, choice))
        self._engine_failed = partial(caller.engine_failed, model)
        self._limits = caller.principal.limits
        self._first_token = caller.metrics.first_token.labels(model.name)
        self._inter_token = caller.metrics.inter_token.labels(model.name)
        self._last = caller.arrived
        self._generated = 0
        self._ahead: Output | None = None

    async def start(self) -> None:
        """Wait for the first output, so that a refused request is an error with a status."""
        self._ahead = await self._next()
        self._pay()

    async def events(self) -> AsyncIterator[list[Event]]:
        """What came at once, together; Completed is the last event."""
        try:
            if self._ahead is not None:
                events = self._take(self._ahead)
                if events:
                    yield events
            while self.completed is None:
                events = self._take(await self._next())
                if events:
                    yield events
        finally:
            await self._outputs.aclose()

    async def close(self) -> None:
        """Cancel what is still being generated."""
        await self._outputs.aclose()

    async def _next(self) -> Output:
        try:
            return await anext(self._outputs)
        except EngineFailedError:
            self._engine_failed()
            raise

    def _take(self, output: Output) -> list[Event]:
        self._pay()
        match output:
            case Tokens(ids=ids):
                self._measure(len(ids))
                events = self._stream.push(output)
                if events and type(events[0]) is ReasoningDelta:
                    self.reasoning_tokens += len(ids)
                if not self._stream.stopped:
                    return events
                # The engine knows nothing of stop texts, and so cannot say what the reply took.
                usage = Usage(self._prompt_tokens, self._cached_tokens, self._generated)
                return events + self._finish(Finished("stop", usage))
            case Finished():
                return self._finish(output)
            case PromptRead():
                self._cached_tokens = output.cached_tokens
                self.prompt_logprobs = output.logprobs
                return []

    def _finish(self, output: Finished) -> list[Event]:
        events = self._stream.finish(output)
        last = events[-1]
        assert isinstance(last, Completed)
        self.completed = last
        return events

    def _pay(self) -> None:
        """Count the prompt, once something came: a request that was refused costs nothing."""
        if self._unpaid:
            self._limits.spend(self._unpaid)
            self._unpaid = 0

    def _measure(self, tokens: int) -> None:
        now = time.perf_counter()
        (self._inter_token if self._generated else self._first_token).observe(now - self._last)
        self._last = now
        self._generated += tokens
        self._limits.spend(tokens)


def _with_seed_of(request: GenerationRequest, choice: int) -> GenerationRequest:
    """The request for one of several replies: each has a seed of its own."""
    seed = request.sampling.seed
    if seed is None or choice == 0:
        return request
    return replace(request, sampling=replace(request.sampling, seed=(seed + choice) % _SEEDS))
