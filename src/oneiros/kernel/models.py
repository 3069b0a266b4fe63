"""The models that processes think with, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from oneiros.engine.conversation import Conversation
from oneiros.engine.local_conversation import LocalConversation
from oneiros.engine.local_model import LocalModel
from oneiros.engine.remote_conversation import RemoteConversation
from oneiros.engine.remote_model import RemoteModel
from oneiros.engine.requests import Usage
from oneiros.errors import ModelNotFoundError
from oneiros.model.chat_format import GeneratedReply, Message


class Models(Protocol):
    """What the kernel needs of models; they are named."""

    default: str

    def check(self, name: str) -> None:
        """Raises ModelNotFoundError: there is no such model."""
        ...

    def context(self, name: str) -> int:
        """Tokens that prompt and reply may take together."""
        ...

    def expressible(self, name: str, text: str) -> str:
        """A text with what the model's vocabulary cannot express replaced."""
        ...

    def count(self, name: str, text: str) -> int:
        """Tokens of a text, once it is expressible."""
        ...

    def origin(self, name: str) -> str | None:
        """What influences replies beside the context: "model:NAME" of a remote one."""
        ...

    def cost(self, name: str, usage: Usage) -> float:
        """What a reply cost, in US dollars."""
        ...

    def affordable(self, name: str, money: float, prompt_tokens: int) -> int | None:
        """Tokens of a reply that so many US dollars pay for; None: any number."""
        ...

    def conversation(
        self,
        name: str,
        messages: Sequence[Message],
        replies: Mapping[int, GeneratedReply],
        *,
        owner: str,
        priority: int,
    ) -> Conversation:
        """A conversation that goes on after these messages."""
        ...


class OpenModels:
    """Models that are loaded, or at endpoints, by name."""

    def __init__(
        self,
        models: Mapping[str, LocalModel | RemoteModel],
        default: str,
        prices: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Offer some models.

        Args:
            models: by name.
            default: the name of the one that processes get which ask for none.
            prices: US dollars for a million tokens of prompt and of reply, by name.

        Raises:
            ModelNotFoundError: the default is not one of them.
        """
        self._models = dict(models)
        self._prices = dict(prices or {})
        self.default = default
        self.check(default)

    def check(self, name: str) -> None:
        self._get(name)

    def context(self, name: str) -> int:
        model = self._get(name)
        return model.context if isinstance(model, LocalModel) else REMOTE_CONTEXT

    def expressible(self, name: str, text: str) -> str:
        model = self._get(name)
        if isinstance(model, LocalModel):
            return model.tokenizer.expressible(text)
        return text.encode(errors="replace").decode()  # half a surrogate pair has no UTF-8

    def count(self, name: str, text: str) -> int:
        model = self._get(name)
        if isinstance(model, LocalModel):
            return len(model.tokenizer.encode(model.tokenizer.expressible(text)))
        return -(-len(text.encode(errors="replace")) // REMOTE_BYTES_PER_TOKEN)

    def origin(self, name: str) -> str | None:
        return None if isinstance(self._get(name), LocalModel) else f"model:{name}"

    def cost(self, name: str, usage: Usage) -> float:
        prompt, reply = self._prices.get(name, (0.0, 0.0))
        return (prompt * usage.prompt_tokens + reply * usage.generated_tokens) / 1e6

    def affordable(self, name: str, money: float, prompt_tokens: int) -> int | None:
        prompt, reply = self._prices.get(name, (0.0, 0.0))
        left = money - prompt * prompt_tokens / 1e6
        if left <= 0 and prompt > 0:
            return 0
        return int(left * 1e6 / reply) if reply > 0 else None

    def conversation(
        self,
        name: str,
        messages: Sequence[Message],
        replies: Mapping[int, GeneratedReply],
        *,
        owner: str,
        priority: int,
    ) -> Conversation:
        model = self._get(name)
        if isinstance(model, LocalModel):
            return LocalConversation.resume(
                model, messages, replies, principal=owner, priority=priority
            )
        return RemoteConversation(model, messages)

    def _get(self, name: str) -> LocalModel | RemoteModel:
        try:
            return self._models[name]
        except KeyError:
            known = ", ".join(sorted(self._models))
            raise ModelNotFoundError(f'No model "{name}" is open; there are: {known}.') from None


# Endpoints say neither; most models there have at least this.
REMOTE_CONTEXT = 32_768
REMOTE_BYTES_PER_TOKEN = 3
