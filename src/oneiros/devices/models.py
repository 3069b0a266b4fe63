"""Other models, asked for a reply: each configured endpoint is a tool of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import Field

from oneiros.devices.define import device
from oneiros.engine.conversation import ConversationOptions
from oneiros.engine.remote_conversation import RemoteConversation
from oneiros.engine.remote_model import RemoteModel
from oneiros.engine.replies import Completed
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import OneirosError
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.model.chat_format import Message

_MOST_TOKENS: Final = 4_000  # of a reply
_DEADLINE: Final = 300.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an endpoint charges, in US dollars for a million tokens."""

    prompt: float = 0.0
    reply: float = 0.0

    def of(self, prompt_tokens: int, reply_tokens: int) -> float:
        """The cost of a request, in US dollars."""
        return (self.prompt * prompt_tokens + self.reply * reply_tokens) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherModel:
    """A model that processes may ask."""

    name: str  # as people and labels call it
    model: RemoteModel
    about: str = ""  # what it is good at, for the models that choose
    price: Price | None = None  # None: it costs nothing


def models(others: Iterable[OtherModel]) -> list[Tool]:
    """A tool for each model: what is sent to one is read by that one, and is allowed by itself."""
    return [_ask(other) for other in others]


def _ask(other: OtherModel) -> Tool:
    spends = frozenset() if other.price is None else frozenset({Effect.SPEND})

    @device(
        name=f"ask_{re.sub(r'[^A-Za-z0-9_-]+', '_', other.name)}"[:64],
        contract=Contract(
            effects=spends | {Effect.SEND},
            critical=("prompt",),
            sinks=(f"model:{other.name}",),
            origins=(f"model:{other.name}",),
            requested_by=("ask", "model", other.name),
            deadline=_DEADLINE,
            capability=f"model:{other.name}",
        ),
    )
    async def ask(
        context: CallContext,
        prompt: Annotated[str, Field(description="All of it: the model knows nothing else.")],
        system: Annotated[str, Field(description="How it is to answer.")] = "",
    ) -> ToolResult:
        """Ask another language model, and get its reply."""
        if not prompt.strip():
            raise ToolError("The prompt is empty.")
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        conversation = RemoteConversation(
            other.model, [*messages, {"role": "user", "content": prompt}]
        )
        completed = await _reply(conversation)
        usage = completed.usage
        price = other.price or Price()
        text = completed.message["content"]
        if completed.reason == "length":
            text += "\n[The reply was cut here: it was too long.]"
        return ToolResult(
            text,
            {"model": other.name, "text": text},
            cost=price.of(usage.prompt_tokens, usage.generated_tokens),
        )

    if not other.about:
        return ask
    return replace(ask, description=f"{ask.description} {other.name}: {other.about}")


async def _reply(conversation: RemoteConversation) -> Completed:
    options = ConversationOptions(
        sampling=SamplingOptions(max_tokens=_MOST_TOKENS),
        timeout=_DEADLINE - 10,  # in time to say so
    )
    try:
        async with aclosing(conversation.generate(options)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    return event
    except OneirosError as error:
        raise ToolError(str(error)) from error
    raise ToolError("The model gave no reply.")
