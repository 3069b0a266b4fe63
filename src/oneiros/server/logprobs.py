"""Log-probabilities in the shapes of chats and of completions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from oneiros.engine.requests import TokenLogprob
from oneiros.model.tokenizer import Tokenizer

_IMPOSSIBLE = -9999.0
"""JSON has no infinity; this is the number that OpenAI sends."""

JsonObject = dict[str, object]


def chat_logprobs(logprobs: Sequence[TokenLogprob], tokenizer: Tokenizer) -> JsonObject:
    content = [
        {
            **_chat_token(entry.token, entry.logprob, tokenizer),
            "top_logprobs": [_chat_token(token, value, tokenizer) for token, value in entry.top],
        }
        for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def _chat_token(token: int, logprob: float, tokenizer: Tokenizer) -> JsonObject:
    data = tokenizer.token_bytes(token)
    text = data.decode("utf-8", "replace")
    return {"token": text, "logprob": _finite(logprob), "bytes": list(data)}


class CompletionLogprobs:
    """The four parallel lists of a completion, filled as tokens come."""

    def __init__(self, tokenizer: Tokenizer, offset: int = 0) -> None:
        """`offset`: characters of the text before the first token."""
        self._tokenizer = tokenizer
        self._offset = offset
        self._clear()

    def add_unscored(self, token: int) -> None:
        """A token whose probability nothing tells: the first of a prompt."""
        self._add(token, None, None)

    def add(self, logprobs: Sequence[TokenLogprob]) -> None:
        for entry in logprobs:
            # The token itself is always among the likeliest, as OpenAI's answers have it.
            top = {completion_token(token, self._tokenizer): _finite(p) for token, p in entry.top}
            top.setdefault(completion_token(entry.token, self._tokenizer), _finite(entry.logprob))
            self._add(entry.token, _finite(entry.logprob), top)

    def take(self) -> JsonObject:
        """What was added since the last call."""
        taken: JsonObject = {
            "tokens": self._tokens,
            "token_logprobs": self._logprobs,
            "top_logprobs": self._top,
            "text_offset": self._offsets,
        }
        self._clear()
        return taken

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._top: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def _add(self, token: int, logprob: float | None, top: dict[str, float] | None) -> None:
        self._tokens.append(completion_token(token, self._tokenizer))
        self._logprobs.append(logprob)
        self._top.append(top)
        self._offsets.append(self._offset)
        self._offset += len(self._tokenizer.token_bytes(token).decode("utf-8", "ignore"))


def completion_token(token: int, tokenizer: Tokenizer) -> str:
    """A token's text; where it is no whole characters, its bytes as OpenAI spells them."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else _IMPOSSIBLE
