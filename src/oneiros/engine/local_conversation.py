"""Conversations with a model of this machine. Token ids are the truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

from oneiros.engine.conversation import (
    FORMAT,
    VERSION,
    Conversation,
    ConversationOptions,
    checked_message,
    saved_messages,
)
from oneiros.engine.local_model import LocalModel
from oneiros.engine.replies import Completed, Event, ReplyAssembly, ReplyStream
from oneiros.engine.requests import (
    INTERACTIVE,
    ConstraintSpec,
    Finished,
    GenerationRequest,
    PromptRead,
    Tokens,
    Usage,
)
from oneiros.errors import (
    ContextLengthError,
    ConversationError,
    ModelFileError,
    TokenizationError,
)
from oneiros.model.chat_format import ChatFormat, ChatFormatError, GeneratedReply, Message
from oneiros.model.json_schema import enforceable_schema
from oneiros.model.tool_calls import tool_call_format
from oneiros.model.tool_prompts import with_tools

Tools = tuple[Mapping[str, object], ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """Messages as the model has read or written them."""

    count: int = 0  # messages, the last one a generated reply
    tokens: tuple[int, ...] = ()  # all of them, without the token that ended the reply
    tools: Tools = ()  # that the model was told of


@dataclass(frozen=True, slots=True)
class _Prompted:
    """The prompt that was made last, to count it or to see that it fits; then it is used."""

    messages: tuple[Message, ...]
    tools: Tools
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Running:
    """The reply that is being generated."""

    prompt: tuple[int, ...]
    tools: Tools
    stream: ReplyStream


class LocalConversation(Conversation):
    """A conversation that goes on from the very tokens the model generated.

    Each reply's prompt begins with the tokens of the one before, so that the engine finds their
    keys and values in its prefix cache. That is also how a fork shares them.

    Where the template writes what was said differently now (some drop old reasoning), where
    messages were evicted, or the tools change, the conversation is rendered anew; replies keep
    their ids as far as the template leaves them as they are.
    """

    def __init__(
        self,
        model: LocalModel,
        messages: Iterable[Message] = (),
        *,
        principal: str = "local",
        priority: int = INTERACTIVE,
    ) -> None:
        """Begin a conversation with some messages.

        Args:
            model: the model that answers.
            messages: what was said before.
            principal: on whose behalf; keys and values are shared with nobody else.
            priority: of its replies; lower runs first.

        Raises:
            ModelFileError: the model has no chat format.
            ContextLengthError: the messages do not fit the context.
        """
        super().__init__()
        self._model = model
        self._format = _chat_format(model)
        self._tool_calls = tool_call_format(self._format.template)
        self._principal = principal
        self._priority = priority
        self._replies: Mapping[int, GeneratedReply] = {}  # by their place in the messages
        self._read = _Read()
        self._running: _Running | None = None
        self._prompted: _Prompted | None = None
        for message in messages:
            self.append(message)

    @classmethod
    def resume(
        cls,
        model: LocalModel,
        messages: Iterable[Message],
        replies: Mapping[int, GeneratedReply],
        *,
        principal: str = "local",
        priority: int = INTERACTIVE,
    ) -> Self:
        """Go on with messages of which the model wrote some itself, token for token.

        Args:
            model: the model that answers.
            messages: what was said before; whether it fits is seen with the next reply.
            replies: what the model generated, by its place in the messages.
            principal: as for a new conversation.
            priority: likewise.

        Raises:
            ModelFileError: the model has no chat format.
            ConversationError: one of the messages is none.
        """
        conversation = cls(model, principal=principal, priority=priority)
        conversation._messages = tuple(map(checked_message, messages))
        conversation._replies = dict(replies)
        return conversation

    def reply(self, index: int) -> GeneratedReply | None:
        return self._replies.get(index)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The conversation up to the last generated reply, as the model has read and written it."""
        return self._read.tokens

    def prompt_tokens(self, tools: Tools = (), message: Message | None = None) -> int:
        """As Conversation.prompt_tokens: exactly what the model will read.

        Raises:
            ChatFormatError: the template refuses such a conversation, as some do without messages.
            ConversationError: `message` is none.
        """
        more = () if message is None else (checked_message(message),)
        return len(self._tokens((*self._messages, *more), tools))

    def append(self, message: Message) -> None:
        message = checked_message(message)
        self._check_idle()
        try:
            self._prompt((*self._messages, message), self._read.tools)
        except ChatFormatError:
            # Some templates refuse a conversation that ends in one of these.
            if message["role"] not in ("system", "assistant"):
                raise
        super().append(message)

    def evict(self, span: range, mark: Message | None = None) -> tuple[Message, ...]:
        """As Conversation.evict.

        Raises:
            ChatFormatError: the model's template refuses such a conversation; another role of the
                mark, or another span, may help.
            TokenizationError: the vocabulary cannot express the mark.
        """
        before = self._messages, self._replies, self._read
        evicted = super().evict(span, mark)
        shift = len(self._messages) - len(before[0])
        self._replies = {
            index if index < span.start else index + shift: reply
            for index, reply in self._replies.items()
            if index not in span
        }
        self._read = _Read(tools=self._read.tools)
        try:
            self._rendered(self._messages, self._read.tools)
        except (ChatFormatError, TokenizationError):
            self._messages, self._replies, self._read = before
            raise
        return evicted

    def save(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": "local",
            **_identity(self._model),
            "messages": [*self._messages],
            "replies": {
                str(index): {"text": reply.text, "ids": [*reply.ids]}
                for index, reply in self._replies.items()
            },
            "read": {
                "count": self._read.count,
                "tokens": [*self._read.tokens],
                "tools": [*self._read.tools],
            },
        }

    @classmethod
    def restore(
        cls,
        model: LocalModel,
        state: Mapping[str, object],
        *,
        principal: str = "local",
        priority: int = INTERACTIVE,
    ) -> Self:
        """Go on with a saved conversation, token for token.

        Raises:
            ConversationError: the state is damaged, or of another model, tokenizer or template.
        """
        messages = saved_messages(state, "local")
        for key, ours in _identity(model).items():
            if state.get(key) != ours:
                raise ConversationError(
                    f"The conversation was saved with the {key} {state.get(key)}, and this "
                    f"model's is {ours}: its tokens mean something else here. Begin a new "
                    "conversation with its messages instead."
                )
        conversation = cls(model, principal=principal, priority=priority)
        conversation._messages = tuple(messages)
        vocabulary = model.tokenizer.vocabulary_size
        try:
            conversation._replies = _saved_replies(state["replies"], messages, vocabulary)
            conversation._read = _saved_read(state["read"], conversation._replies, vocabulary)
        except (KeyError, ValueError) as error:
            raise ConversationError(f"The saved conversation is damaged: {error}.") from error
        return conversation

    async def _events(self, options: ConversationOptions) -> AsyncGenerator[Event, None]:
        tools = options.offered_tools
        prompt = self._prompt(self._messages, tools)
        constraint = self._constraint(options)
        written = self._tool_calls
        if options.constraint is not None:  # it is about all that the reply says
            written = replace(written, reasoning="none")
        stream = ReplyStream(
            self._model.tokenizer,
            stop=options.sampling.stop,
            parser=written.parser(tools, constrained=bool(tools)),
        )
        self._running = _Running(prompt, tools, stream)
        request = GenerationRequest(
            prompt,
            options.sampling,
            self._model.end_ids,
            self._principal,
            self._priority,
            constraint=constraint,
            top_logprobs=options.top_logprobs,
        )
        cached = 0
        async with aclosing(self._model.service.generate(request)) as outputs:
            async for output in outputs:
                match output:
                    case PromptRead():
                        cached = output.cached_tokens
                    case Tokens():
                        for event in stream.push(output):
                            yield event
                        if stream.stopped:
                            break
                    case Finished():
                        for event in stream.finish(output):
                            yield event
                        return
        # A stop text ended it; the engine knows nothing of those.
        usage = Usage(len(prompt), cached, stream.generated)
        for event in stream.finish(Finished("stop", usage)):
            yield event

    def _record(self, message: Message) -> None:
        running, index = self._running, len(self._messages)
        assert running is not None  # only a running reply is recorded
        super()._record(message)
        ids = tuple(running.stream.token_ids)
        self._replies = {**self._replies, index: GeneratedReply(running.stream.text, ids)}
        self._read = _Read(index + 1, (*running.prompt, *ids), running.tools)

    def _interrupted(self, said: ReplyAssembly) -> None:
        if self._running is None:
            return
        # What was held back, because it might have begun something else, was said too.
        last = self._running.stream.finish(Finished("cancelled", Usage()))[-1]
        assert isinstance(last, Completed)
        if self._running.stream.text:
            self._record(last.message)

    def _prompt(self, messages: tuple[Message, ...], tools: Tools) -> tuple[int, ...]:
        """Token ids of the messages, and of what begins a reply.

        Raises:
            ContextLengthError: they leave no room for a reply.
        """
        prompt = self._tokens(messages, tools)
        context = self._model.context
        if len(prompt) >= context:
            raise ContextLengthError(
                f"The conversation has {len(prompt):,} tokens and the context {context:,}: "
                f"{len(prompt) - context + 1:,} too many to leave room for a reply. Shorten the "
                "message, or evict earlier ones."
            )
        return prompt

    def _tokens(self, messages: tuple[Message, ...], tools: Tools) -> tuple[int, ...]:
        """The same, whether they fit or not."""
        last = self._prompted
        if last is None or last.messages != messages or last.tools != tools:
            prompt = self._continued(messages, tools) or self._rendered(messages, tools)
            last = self._prompted = _Prompted(messages, tools, tuple(prompt))
        return last.prompt

    def _continued(self, messages: Sequence[Message], tools: Tools) -> list[int] | None:
        """The tokens so far and those that follow, where the template leaves them as they are."""
        read = self._read
        if not read.count or tools != read.tools:
            return None
        said, printed = with_tools(self._tool_calls, messages, tools)
        at = read.count - 1 + len(said) - len(messages)  # a system message may have come before
        reply = self._replies[read.count - 1].text
        try:
            more = self._format.continuation(said[:at], reply, said[at + 1 :], tools=printed)
        except ChatFormatError:
            return None
        return None if more is None else [*read.tokens, *more]

    def _rendered(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        """The whole conversation by the template."""
        said, printed = with_tools(self._tool_calls, messages, tools)
        shift = len(said) - len(messages)
        replies = {index + shift: reply for index, reply in self._replies.items()}
        try:
            return self._format.render(said, tools=printed, replies=replies)
        except ChatFormatError:
            # Some want a tool's result only after a message that has `tool_calls`.
            return self._format.render(said, tools=printed)

    def _constraint(self, options: ConversationOptions) -> ConstraintSpec | None:
        """Raises ConstraintError for a tool whose parameters cannot be enforced."""
        tools = options.offered_tools
        if tools:
            choice, parallel = options.tool_choice, options.parallel_tool_calls
            return ConstraintSpec("lark", self._tool_calls.grammar(tools, choice, parallel))
        if options.response_schema is None:
            return options.constraint
        if self._tool_calls.reasoning == "open":  # the prompt ended within the model's thoughts
            schema = json.dumps(enforceable_schema(options.response_schema))
            rules = f"start: thought /\\s*/ answer\nanswer: %json {schema}\n"
            return ConstraintSpec("lark", rules + 'thought[lazy]: /(?s:.*)/ "</think>"\n')
        return ConstraintSpec("json_schema", json.dumps(options.response_schema))


def _identity(model: LocalModel) -> dict[str, str]:
    """What has to be the same for token ids to mean the same."""
    return {
        "model": model.sha256,
        "tokenizer": model.tokenizer.sha256,
        "template": hashlib.sha256(_chat_format(model).template.encode()).hexdigest(),
    }


def _chat_format(model: LocalModel) -> ChatFormat:
    if model.chat_format is None:
        raise ModelFileError(
            f"{model.name} has no chat template: it is a base model, which continues texts. "
            "Conversations need an instruction-tuned model."
        )
    return model.chat_format


def _saved_replies(
    data: object, messages: Sequence[Message], vocabulary: int
) -> dict[int, GeneratedReply]:
    """Raises ValueError for what `save` does not write."""
    replies = {}
    for key, reply in _mapping(data, "replies").items():
        index, reply = int(key), _mapping(reply, f"reply {key}")
        if not 0 <= index < len(messages) or messages[index]["role"] != "assistant":
            raise ValueError(f"message {index} is no reply")
        text = reply.get("text")
        if not isinstance(text, str):
            raise ValueError(f"reply {index} has no text")
        replies[index] = GeneratedReply(text, _ids(reply.get("ids"), vocabulary))
    return replies


def _saved_read(data: object, replies: Mapping[int, GeneratedReply], vocabulary: int) -> _Read:
    """Raises ValueError for what `save` does not write."""
    read = _mapping(data, "read")
    count, tools = read.get("count"), read.get("tools")
    if not isinstance(tools, list):
        raise ValueError("tools is no list")
    told = tuple(_mapping(tool, "a tool") for tool in tools)
    if count == 0:
        return _Read(tools=told)
    if not isinstance(count, int) or count - 1 not in replies:
        raise ValueError(f"{count} messages were read, and the last is no reply")
    tokens, reply = _ids(read.get("tokens"), vocabulary), replies[count - 1].ids
    if tokens[len(tokens) - len(reply) :] != reply:
        raise ValueError("the tokens do not end in the last reply's")
    return _Read(count, tokens, told)


def _mapping(data: object, what: str) -> dict[str, object]:
    if not isinstance(data, dict):
        raise ValueError(f"{what} is no mapping")
    return data


def _ids(data: object, vocabulary: int) -> tuple[int, ...]:
    if not isinstance(data, list) or not all(
        type(token) is int and 0 <= token < vocabulary for token in data
    ):
        raise ValueError(f"token ids are from 0 to {vocabulary - 1:,}")
    return tuple(data)
