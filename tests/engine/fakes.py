"""An engine that says what it is told to, for tests of what is built on engines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from oneiros.engine.local_model import LocalModel
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
from oneiros.model.chat_format import ChatFormat
from oneiros.model.tokenizer import Tokenizer


@dataclass(slots=True)
class ScriptedService:
    """Answers requests, one after the other, with scripted token ids.

    Attributes:
        replies: token ids of the replies to come; an error in their place is raised.
        requests: what was asked.
        running: replies being generated.
        piece: how many ids come at once.
        pause: awaited before each piece.
    """

    replies: deque[Sequence[int] | Exception] = field(default_factory=deque)
    requests: list[GenerationRequest] = field(default_factory=list)
    running: int = 0
    piece: int = 1
    pause: Callable[[], asyncio.Future[None]] | None = None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Output, None]:
        """What comes first; a limit of tokens cuts it."""
        self.requests.append(request)
        reply = self.replies.popleft()
        self.running += 1
        try:
            if isinstance(reply, Exception):
                raise reply
            limit = request.sampling.max_tokens
            yield PromptRead(0)
            ids = tuple(reply if limit is None else reply[:limit])
            for first in range(0, len(ids), self.piece):
                await asyncio.sleep(0)
                if self.pause is not None:
                    await self.pause()
                piece = ids[first : first + self.piece]
                asked = request.top_logprobs is not None
                yield Tokens(piece, tuple(TokenLogprob(i, -1.0) for i in piece) if asked else ())
            usage = Usage(prompt_tokens=len(request.prompt), generated_tokens=len(ids))
            yield Finished("stop" if len(ids) == len(reply) else "length", usage)
        finally:
            self.running -= 1

    async def statistics(self) -> EngineStatistics:
        """How many run."""
        return EngineStatistics(running=self.running)

    async def close(self) -> None:
        """Nothing is held."""


def scripted_model(
    tokenizer: Tokenizer, chat_format: ChatFormat | None, context: int = 4096
) -> tuple[LocalModel, ScriptedService]:
    """A model that says what its service is told to."""
    service = ScriptedService()
    model = LocalModel(
        name="scripted",
        tokenizer=tokenizer,
        chat_format=chat_format,
        end_ids=tokenizer.end_ids,
        context=context,
        service=service,
        sha256="0" * 64,
    )
    return model, service
