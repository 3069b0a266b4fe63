"""Conversations with a model at an OpenAI-compatible endpoint, such as vLLM's."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar, Self

from oneiros.engine.conversation import (
    FORMAT,
    VERSION,
    Conversation,
    ConversationOptions,
    checked_message,
    saved_messages,
)
from oneiros.engine.remote_model import Chunk, RemoteModel
from oneiros.engine.replies import (
    Completed,
    Event,
    ReasoningDelta,
    ReplyAssembly,
    TextDelta,
    ToolCallDelta,
)
from oneiros.engine.requests import FinishReason, Usage
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import ConversationError
from oneiros.model.chat_format import Message
from oneiros.model.tool_call_parser import new_call_id

_SENT = ("role", "content", "name", "tool_calls", "tool_call_id")  # reasoning stays here
_ENDS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
}
# What tokenizers of 32,000 to 150,000 tokens make of English is 3.5 to 4.5 bytes a token; of other
# languages, code and JSON less.
_BYTES_PER_TOKEN = 3.5
_TOKENS_PER_MESSAGE = 5  # that a chat template puts around it


@dataclass(frozen=True, slots=True)
class _Counted:
    """A prompt that the endpoint has read, and said how long it was."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, object], ...]
    tokens: int


class RemoteConversation(Conversation):
    """A conversation whose messages are sent anew for each reply.

    The endpoint is asked for what the options say. Options that only some endpoints know (top_k,
    min_p, repetition_penalty) are sent where they differ from their defaults, so that an endpoint
    that does not know them refuses them instead of leaving them out silently.
    """

    kind: ClassVar[str] = "remote"  # as it is saved

    def __init__(self, model: RemoteModel, messages: Iterable[Message] = ()) -> None:
        """Begin a conversation with some messages."""
        super().__init__(messages)
        self._model = model
        self._counted: _Counted | None = None

    def prompt_tokens(
        self, tools: tuple[Mapping[str, object], ...] = (), message: Message | None = None
    ) -> int:
        """As Conversation.prompt_tokens: an estimate, for only the endpoint has the tokenizer.

        What the endpoint has read and counted before, with the same tools, is not estimated again.
        """
        messages = self._messages
        if message is not None:
            messages = (*messages, checked_message(message))
        read = self._counted
        if read and read.tools == tools and read.messages == messages[: len(read.messages)]:
            return read.tokens + sum(map(_estimate, messages[len(read.messages) :]))
        return sum(map(_estimate, (*tools, *messages)))

    def save(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "endpoint": self._model.endpoint,
            "model": self._model.name,
            "messages": [*self._messages],
        }

    @classmethod
    def restore(cls, model: RemoteModel, state: Mapping[str, object]) -> Self:
        """Go on with a saved conversation; the endpoint may have moved.

        Raises:
            ConversationError: the state is damaged, or of another model.
        """
        messages = saved_messages(state, cls.kind)
        if state.get("model") != model.name:
            raise ConversationError(
                f"The conversation was saved with the model {state.get('model')}, and this is "
                f"{model.name}. Begin a new conversation with its messages instead."
            )
        return cls(model, messages)

    async def _events(self, options: ConversationOptions) -> AsyncGenerator[Event, None]:
        reply = _RemoteReply(self._model)
        async with aclosing(self._model.stream(self._request(options))) as chunks:
            async for chunk in chunks:
                for event in reply.events(chunk):
                    yield event
        completed = reply.completed()
        if tokens := completed.usage.prompt_tokens:
            self._counted = _Counted(self._messages, options.offered_tools, tokens)
        yield completed

    def _request(self, options: ConversationOptions) -> dict[str, object]:
        """The body of a request.

        Raises:
            ConversationError: an option cannot be asked of the endpoint.
        """
        return _body(self._messages, options)


class _RemoteReply:
    """Chunks of a streamed completion as events."""

    def __init__(self, model: RemoteModel) -> None:
        self._model = model
        self._clock = model.timing.clock
        self._asked = self._clock()
        self._first: float | None = None  # when the first event came
        self._assembly = ReplyAssembly()
        self._calls: dict[object, int] = {}  # the endpoint's mark of a call -> its index here
        self._ended: str | None = None
        self._usage: Mapping[str, object] = {}

    def events(self, chunk: Chunk) -> list[Event]:
        """What a chunk adds to the reply."""
        if chunk.get("usage"):
            self._usage = self._mapping(chunk["usage"], "usage")
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            raise self._odd("choices", choices)
        events: list[Event] = []
        for choice in choices[:1]:
            choice = self._mapping(choice, "choice")
            events += self._delta(self._mapping(choice.get("delta") or {}, "delta"))
            self._ended = self._text(choice, "finish_reason") or self._ended
        if events and self._first is None:
            self._first = self._clock()
        for event in events:
            self._assembly.add(event)
        return events

    def completed(self) -> Completed:
        """The last event.

        Raises:
            RemoteError: the reply did not come to an end, or to one that is not known.
        """
        if self._ended is None:
            raise self._model.failure(
                "the stream ended before the reply did. Try again.", transient=True
            )
        if self._ended not in _ENDS:
            raise self._model.failure(f'ended the reply for the reason "{self._ended}".')
        done = self._clock()
        first = done if self._first is None else self._first
        details = self._mapping(self._usage.get("prompt_tokens_details") or {}, "usage")
        usage = Usage(
            prompt_tokens=self._number(self._usage, "prompt_tokens"),
            cached_tokens=self._number(details, "cached_tokens"),
            generated_tokens=self._number(self._usage, "completion_tokens"),
            prefill_seconds=first - self._asked,
            decode_seconds=done - first,
        )
        return self._assembly.completed(_ENDS[self._ended], usage)

    def _delta(self, delta: Mapping[str, object]) -> list[Event]:
        events: list[Event] = []
        # Servers do not agree on the name of what a model thinks.
        thought = self._text(delta, "reasoning_content") or self._text(delta, "reasoning")
        if thought:
            events.append(ReasoningDelta(thought))
        for key in ("content", "refusal"):
            text = self._text(delta, key)
            if text:
                events.append(TextDelta(text))
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list):
            raise self._odd("tool_calls", calls)
        return events + [self._call(self._mapping(call, "tool call")) for call in calls]

    def _call(self, call: Mapping[str, object]) -> ToolCallDelta:
        function = self._mapping(call.get("function") or {}, "function")
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):  # some servers send them as an object
            arguments = json.dumps(arguments)
        elif arguments is not None and not isinstance(arguments, str):
            raise self._odd("arguments", arguments)
        call_id, name = self._text(call, "id"), self._text(function, "name")
        # Without an index, a new id begins a new call.
        mark: object = call.get("index")
        if mark is None:
            mark = call_id or next(reversed(self._calls), 0)
        elif not isinstance(mark, int):
            raise self._odd("index", mark)
        if mark in self._calls:
            return ToolCallDelta(self._calls[mark], arguments=arguments or "")
        index = self._calls[mark] = len(self._calls)
        return ToolCallDelta(index, call_id or new_call_id(), name, arguments or "")

    def _text(self, data: Mapping[str, object], key: str) -> str | None:
        value = data.get(key)
        if value is not None and not isinstance(value, str):
            raise self._odd(key, value)
        return value

    def _number(self, data: Mapping[str, object], key: str) -> int:
        value = data.get(key) or 0
        if not isinstance(value, int):
            raise self._odd(key, value)
        return value

    def _mapping(self, value: object, what: str) -> Mapping[str, object]:
        if not isinstance(value, Mapping):
            raise self._odd(what, value)
        return value

    def _odd(self, what: str, value: object) -> Exception:
        shown = repr(value)[:100]
        return self._model.failure(f"sent a {what} that is not what the API has: {shown}.")


def _estimate(data: Message | Mapping[str, object]) -> int:
    """Tokens of a message, or of a tool's description."""
    sent = {key: value for key, value in data.items() if key != "reasoning_content"}
    size = len(json.dumps(sent, ensure_ascii=False).encode(errors="replace"))
    return _TOKENS_PER_MESSAGE + int(size / _BYTES_PER_TOKEN)


def _body(messages: Iterable[Message], options: ConversationOptions) -> dict[str, object]:
    """The request.

    Raises:
        ConversationError: an option cannot be asked of an endpoint.
    """
    if options.top_logprobs is not None:
        raise ConversationError(
            "Log-probabilities are those of token ids, which an endpoint does not tell. Leave "
            "top_logprobs out."
        )
    if options.constraint is not None:
        raise ConversationError(
            "The OpenAI API has no regular expressions, choices and grammars. Use "
            "response_schema, or `extra` of the RemoteModel for what its endpoint knows."
        )
    body: dict[str, object] = {
        "messages": [
            {key: value for key, value in message.items() if key in _SENT} for message in messages
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(options.sampling),
    }
    if options.offered_tools:
        body["tools"] = [*options.offered_tools]
        body["tool_choice"] = (
            options.tool_choice
            if options.tool_choice in ("auto", "required")
            else {"type": "function", "function": {"name": options.tool_choice}}
        )
        if not options.parallel_tool_calls:
            body["parallel_tool_calls"] = False
    if options.response_schema is not None:
        schema = {"name": "reply", "schema": options.response_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _sampling(sampling: SamplingOptions) -> dict[str, object]:
    usual = SamplingOptions()
    fields: dict[str, object] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    for name in (
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "max_tokens",
        "top_k",
        "min_p",
        "repetition_penalty",
    ):
        value = getattr(sampling, name)
        if value != getattr(usual, name):
            fields[name] = value
    if sampling.stop:
        fields["stop"] = [*sampling.stop]
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return fields
