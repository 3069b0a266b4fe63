"""An engine service that says what a test wants, without a model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence

from oneiros.engine.requests import (
    EngineStatistics,
    Finished,
    GenerationRequest,
    Output,
    PromptRead,
    TokenLogprob,
    Tokens,
    Usage,
)
from oneiros.errors import EngineFailedError, OneirosError


class FakeService:
    """Answers every request with the same tokens.

    Attributes:
        requests: all that were asked so far.
        running: replies that are being generated now.
    """

    def __init__(self, ids: Sequence[int] = ()) -> None:
        self.ids = list(ids)
        self.error: OneirosError | None = None  # raised instead of the reply
        self.error_after: int | None = None  # ... after so many tokens
        self.endless = False  # says its tokens again and again
        self.hold = asyncio.Event()  # tokens after the first come when this is set
        self.hold.set()
        self.healthy = True
        self.failure: EngineFailedError | None = None  # the engine has given up, with this
        self.cached_tokens = 0
        self.requests: list[GenerationRequest] = []
        self.running = 0
        self.produced = 0
        self.closed = False

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Output, None]:
        self.requests.append(request)
        self.running += 1
        try:
            if self.failure is not None:
                raise self.failure
            if self.error is not None and self.error_after is None:
                raise self.error
            asked = request.prompt_logprobs
            scored = () if asked is None else (_scored(t, asked) for t in request.prompt[1:])
            yield PromptRead(self.cached_tokens, tuple(scored))
            limit = request.sampling.max_tokens or len(self.ids)
            count = limit if self.endless else min(limit, len(self.ids))
            for number in range(count):
                if number:
                    await self.hold.wait()
                if self.error is not None and number == self.error_after:
                    raise self.error
                token = self.ids[number % len(self.ids)]
                self.produced += 1
                scores = request.top_logprobs
                yield Tokens((token,), () if scores is None else (_scored(token, scores),))
                await asyncio.sleep(0)
            reason = "length" if count == limit and count < len(self.ids) else "stop"
            yield Finished(reason, Usage(len(request.prompt), self.cached_tokens, count))
        finally:
            self.running -= 1

    async def statistics(self) -> EngineStatistics:
        if self.failure is not None:
            raise self.failure
        if not self.healthy:
            await asyncio.Event().wait()
        return EngineStatistics(running=self.running, generated_tokens=self.produced)

    async def close(self) -> None:
        self.closed = True


def _scored(token: int, alternatives: int) -> TokenLogprob:
    top = [(token, math.log(0.5)), (token + 1, math.log(0.25))]
    return TokenLogprob(token, math.log(0.5), tuple(top[:alternatives]))
