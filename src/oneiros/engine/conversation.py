"""Conversations: messages, and replies to them as they are generated.

What is here is common to all conversations, wherever their model runs.
"""

from __future__ import annotations

import asyncio
import copy
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Self, cast

from oneiros.engine.replies import Completed, Event, ReplyAssembly
from oneiros.engine.requests import ConstraintSpec, Usage
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import ConversationError, ReplyTimeoutError
from oneiros.model.chat_format import GeneratedReply, Message

FORMAT = "oneiros conversation"
VERSION = 1

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationOptions:
    """How one reply is generated.

    Tools are OpenAI's: {"type": "function", "function": {"name", "description", "parameters"}}.
    """

    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    tools: tuple[Mapping[str, object], ...] = ()
    tool_choice: str = "auto"  # or "required", "none" (as if there were no tools), a tool's name
    parallel_tool_calls: bool = True  # whether one reply may hold several calls
    response_schema: Mapping[str, object] | None = None  # JSON schema that the reply matches
    constraint: ConstraintSpec | None = None  # what else the reply's text must look like
    top_logprobs: int | None = None  # None: no log-probabilities; n: those of n alternatives too
    timeout: float | None = None  # seconds for the whole reply

    def __post_init__(self) -> None:
        """Raises ConversationError for options that contradict each other."""
        wanted = [self.response_schema is not None, self.constraint is not None]
        if sum(wanted) + bool(self.offered_tools) > 1:
            raise ConversationError(
                "Tools, response_schema and constraint each say what a reply looks like: give one "
                'of them (tool_choice "none" leaves the tools out).'
            )
        if self.timeout is not None and not self.timeout > 0:
            raise ConversationError(f"timeout is {self.timeout}; it must be above 0 seconds.")
        known = {"auto", "required", "none", *map(tool_name, self.tools)}
        if self.tool_choice not in known:
            raise ConversationError(
                f'tool_choice is "{self.tool_choice}"; there is no such tool. '
                f"It may be {', '.join(sorted(known))}."
            )
        if self.tool_choice == "required" and not self.tools:
            raise ConversationError('tool_choice is "required" and there are no tools.')

    @property
    def offered_tools(self) -> tuple[Mapping[str, object], ...]:
        """The tools that this reply may call."""
        return () if self.tool_choice == "none" else self.tools


class Conversation(ABC):
    """Messages, and the replies of a model to them.

    One reply at a time: `append`, `generate` and `evict` raise ConversationError while one is
    being generated. A conversation belongs to one event loop; forks are independent of it.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._messages = tuple(map(checked_message, messages))
        self._generating = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, without a reply that is still being generated."""
        return self._messages

    def append(self, message: Message) -> None:
        """Add a message: of the user, of a tool whose call the last reply holds, or any other.

        Raises:
            ConversationError: it is no message, or a reply is being generated.
            ContextLengthError: the conversation would not fit the context. Nothing was added.
        """
        self._check_idle()
        self._messages = (*self._messages, checked_message(message))

    async def generate(
        self, options: ConversationOptions | None = None
    ) -> AsyncGenerator[Event, None]:
        """Answer the last message; the last event is Completed, and the reply is then a message.

        Closing the iterator (`contextlib.aclosing`), or cancelling the task, ends the reply at
        once; what was said until then stays as a message. After an error the conversation is as
        it was before.

        Raises:
            ConversationError: there is nothing to answer, or a reply is being generated.
            ContextLengthError: the messages leave no room for a reply.
            ReplyTimeoutError: the reply took longer than options.timeout.
            OneirosError: others, of the model's engine or endpoint.
        """
        options = options or ConversationOptions()
        self._check_idle()
        if not self._messages or self._messages[-1]["role"] == "assistant":
            raise ConversationError("There is nothing to answer: append a message first.")
        self._generating = True
        said = ReplyAssembly()
        whole = False
        try:
            async with aclosing(_within(self._events(options), options.timeout)) as events:
                async for event in events:
                    said.add(event)
                    if isinstance(event, Completed):
                        whole = True
                        self._record(event.message)
                        # Whoever has the last event may go on without asking for one more.
                        self._generating = False
                    yield event
        except (GeneratorExit, asyncio.CancelledError):
            if not whole:
                self._interrupted(said)
            raise
        finally:
            if not whole:
                self._generating = False

    def fork(self) -> Self:
        """A conversation with the same messages that goes on by itself; nothing is copied."""
        other = copy.copy(self)
        other._generating = False
        return other

    def reply(self, index: int) -> GeneratedReply | None:
        """What the model generated as a message, token for token, by its place in `messages`.

        None: it is not of this model, or the model's tokens are not known here.
        """
        return None

    @abstractmethod
    def prompt_tokens(
        self, tools: tuple[Mapping[str, object], ...] = (), message: Message | None = None
    ) -> int:
        """Tokens of the next reply's prompt; a model at an endpoint can only be estimated.

        Args:
            tools: that the reply may call; none with the tool_choice "none".
            message: counted as if it had been appended; it need not fit the context.

        Raises:
            ConversationError: `message` is none.
        """

    @abstractmethod
    def save(self) -> dict[str, object]:
        """All that is needed to go on elsewhere, as JSON-like data; see `restore`."""

    def evict(self, span: range, mark: Message | None = None) -> tuple[Message, ...]:
        """Take messages out of the conversation, and leave one in their place that says so.

        Args:
            span: places in `messages`, one after the other.
            mark: what takes their place; default: a message of the user that says how many
                messages are no longer there.

        Returns:
            The messages that were taken out.

        Raises:
            ConversationError: there are no such messages, the span would separate a tool's call
                from its result, or a reply is being generated. Nothing was changed.
        """
        self._check_idle()
        messages = self._messages
        if span.step != 1 or not 0 <= span.start < span.stop <= len(messages):
            raise ConversationError(
                f"Messages {span.start} to {span.stop} cannot be evicted: there are "
                f"{len(messages)}."
            )
        for border in (span.start, span.stop):
            if border < len(messages) and messages[border]["role"] == "tool":
                raise ConversationError(
                    f"Message {border} is a tool's result, and its call is on the other side of "
                    "the span's border. Evict them together."
                )
        count = len(span)
        what = "1 message was" if count == 1 else f"{count} messages were"
        text = f"[{what} moved out of this conversation.]"
        left = checked_message(mark or {"role": "user", "content": text})
        self._messages = (*messages[: span.start], left, *messages[span.stop :])
        return messages[span.start : span.stop]

    @abstractmethod
    def _events(self, options: ConversationOptions) -> AsyncGenerator[Event, None]:
        """The events of a reply; closing it cancels the reply."""

    def _record(self, message: Message) -> None:
        """A reply is complete."""
        self._messages = (*self._messages, checked_message(message))

    def _interrupted(self, said: ReplyAssembly) -> None:
        """A reply was ended from outside."""
        message = said.completed("cancelled", Usage()).message
        if message["content"] or "reasoning_content" in message:
            self._record(message)

    def _check_idle(self) -> None:
        if self._generating:
            raise ConversationError(
                "A reply is being generated. Wait for its end, close its iterator, or go on in a "
                "fork."
            )


def tool_name(tool: Mapping[str, object]) -> str:
    """The name of a tool.

    Raises:
        ConversationError: it has none.
    """
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ConversationError(
            'A tool is {"type": "function", "function": {"name": ..., "parameters": ...}}, and '
            f"this one has no name: {str(tool)[:100]}"
        )
    return name


def saved_messages(state: Mapping[str, object], kind: str) -> list[Message]:
    """The messages of a saved conversation.

    Raises:
        ConversationError: it is none, of another kind, or of a version that is not known.
    """
    if state.get("format") != FORMAT or state.get("kind") != kind:
        raise ConversationError(f"This is not a saved {kind} conversation.")
    if state.get("version") != VERSION:
        raise ConversationError(
            f"The conversation was saved as version {state.get('version')}, and this Oneiros "
            f"reads version {VERSION}."
        )
    messages = state.get("messages")
    if not isinstance(messages, list):
        raise ConversationError("The saved conversation is damaged: it has no list of messages.")
    return [checked_message(message) for message in messages]


def checked_message(message: object) -> Message:
    """A copy of a message, which is JSON-like data."""
    try:
        data = json.loads(json.dumps(message, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConversationError(f"A message holds only JSON-like data: {error}.") from error
    if not isinstance(data, dict) or data.get("role") not in ROLES:
        raise ConversationError(
            f"A message has one of the roles {', '.join(ROLES)}: {str(message)[:100]}"
        )
    if not isinstance(data.get("content"), str):
        raise ConversationError(f"A message's content is a text: {str(message)[:100]}")
    return cast(Message, data)


async def _within(
    events: AsyncGenerator[Event, None], seconds: float | None
) -> AsyncGenerator[Event, None]:
    """The same events; ReplyTimeoutError when the last one is not there in time."""
    deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
    async with aclosing(events):
        while True:
            limit = asyncio.timeout_at(deadline)
            try:
                async with limit:
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise ReplyTimeoutError(
                    f"The reply was not complete after {seconds:g} seconds. Give it a longer "
                    "timeout, or fewer max_tokens."
                ) from error
            yield event
