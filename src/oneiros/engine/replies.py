"""Replies as events: from token ids to text, reasoning and tool calls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from oneiros.engine.requests import Finished, FinishReason, TokenLogprob, Tokens, Usage
from oneiros.engine.stop_texts import StopTexts
from oneiros.errors import TokenizationError
from oneiros.model.chat_format import Message
from oneiros.model.tokenizer import TextStream, Tokenizer
from oneiros.model.tool_call_parser import (
    CallArguments,
    CallStart,
    Piece,
    Reasoning,
    Text,
    ToolCallParser,
)

CompletionReason = Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of what the assistant says."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()  # of the tokens whose text begins in here


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the assistant thinks before it speaks."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """The beginning of a call, with `id` and `name`, or more of its arguments."""

    index: int  # which of the reply's calls, from 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""  # a piece of JSON text


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of a reply; the last event.

    Tool calls are to be executed only where `reason` is "tool_calls": the reply then ended by
    itself and every call in it is whole. In all other cases `message` holds none.
    """

    reason: CompletionReason
    message: Message
    usage: Usage


Event = TextDelta | ReasoningDelta | ToolCallDelta | Completed


class ReplyStream:
    """Turns the output of an engine into events.

    Attributes:
        text: all that came through so far, marks of reasoning and tool calls included: what a
            chat template needs in order to go on after this reply.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: tuple[str, ...] = (),
        parser: ToolCallParser | None = None,
    ) -> None:
        """Prepare for one reply.

        Args:
            tokenizer: the model's.
            stop: the reply ends before the first of these texts.
            parser: tells reasoning and tool calls from text; None: all is text.
        """
        self.text = ""
        self._tokenizer = tokenizer
        self._parser = parser
        self._decoder = TextStream(tokenizer)
        self._stops = StopTexts(stop)
        self._assembly = ReplyAssembly()
        self._ids: list[int] = []
        self._ends: list[int] = []  # where each token's characters end in the decoded text
        self._waiting: list[tuple[int, TokenLogprob]] = []  # with where its token's text begins
        self._shown: list[TokenLogprob] = []  # of tokens in `text` that no event has
        self._calling = False  # whether the last event was of a call

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met: close the engine's iterator and call `finish`."""
        return self._stops.met

    @property
    def generated(self) -> int:
        """Tokens pushed so far, those of a stop text included."""
        return len(self._ids)

    @property
    def token_ids(self) -> list[int]:
        """The reply as token ids, as the model generated them.

        Of a reply that a stop text cut within a token, what is left of that token is tokenised.
        """
        if not self.stopped:
            return list(self._ids)
        whole = sum(end <= len(self.text) for end in self._ends)
        while whole and self._ends[whole - 1] == (self._ends[whole - 2] if whole > 1 else 0):
            whole -= 1  # completes no character: its first bytes belong to the stop text
        rest = self.text[self._ends[whole - 1] if whole else 0 :]
        try:
            return self._ids[:whole] + self._tokenizer.encode_parts([rest], opens=False)
        except TokenizationError:  # bytes that are no UTF-8 came out as U+FFFD, which is no token
            return self._ids[: whole + 1]

    def push(self, output: Tokens) -> list[Event]:
        """The events of the next tokens; none while something is held back."""
        events: list[Event] = []
        for index, token in enumerate(output.ids):
            if self.stopped:
                break
            begin = self._ends[-1] if self._ends else 0
            piece = self._decoder.push(token)
            self._ids.append(token)
            self._ends.append(begin + len(piece))
            if output.logprobs:
                self._waiting.append((begin, output.logprobs[index]))
            events += self._release(self._stops.push(piece))
        return self._seen(events)

    def finish(self, output: Finished) -> list[Event]:
        """The last events, Completed at their end. Call it once, also after a stop text."""
        events = self._release(self._stops.push(self._decoder.flush()))
        events += self._release(self._stops.flush())
        if self._parser is not None:
            events += self._placed(map(event_of, self._parser.finish()))
        left = [*self._shown, *(() if self.stopped else (each for _, each in self._waiting))]
        if left and not self._calling:  # of tokens without any text
            events.append(TextDelta("", tuple(left)))
        reason = "stop" if self.stopped else output.reason
        events = self._seen(events)
        return [*events, self._assembly.completed(reason, output.usage)]

    def _release(self, text: str) -> list[Event]:
        """The events of text that came through."""
        if not text:
            return []
        self.text += text
        count = sum(begin < len(self.text) for begin, _ in self._waiting)
        self._shown += [logprob for _, logprob in self._waiting[:count]]
        del self._waiting[:count]
        if self._parser is None:
            return self._placed([TextDelta(text)])
        return self._placed(map(event_of, self._parser.push(text)))

    def _placed(self, events: Iterable[Event]) -> list[Event]:
        """The events, texts with the log-probabilities of their tokens.

        What the parser holds back keeps them waiting; those of reasoning and calls are dropped
        when it turns out to be that.
        """
        placed: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                event = TextDelta(event.text, tuple(self._shown))
            self._shown = []
            self._calling = isinstance(event, ToolCallDelta)
            placed.append(event)
        return placed

    def _seen(self, events: list[Event]) -> list[Event]:
        if len(events) > 1:
            events = _merged(events)
        for event in events:
            self._assembly.add(event)
        return events


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: str = ""

    @property
    def whole(self) -> bool:
        """Whether it names a function; arguments that were cut anywhere are no JSON object."""
        try:
            return bool(self.name) and isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


@dataclass(slots=True)
class ReplyAssembly:
    """Puts the message of a reply together from its events."""

    text: str = ""
    reasoning: str = ""
    _calls: dict[int, _Call] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case TextDelta(text=text):
                self.text += text
            case ReasoningDelta(text=text):
                self.reasoning += text
            case ToolCallDelta(index=index):
                call = self._calls.setdefault(index, _Call("", ""))
                call.id = event.id or call.id
                call.name = event.name or call.name
                call.arguments += event.arguments

    def completed(self, reason: FinishReason, usage: Usage) -> Completed:
        """The last event of a reply that ended for this reason."""
        message: Message = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        calls = [call for _, call in sorted(self._calls.items())]
        if reason != "stop" or not calls or not all(call.whole for call in calls):
            return Completed(reason, message, usage)
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in calls
        ]
        return Completed("tool_calls", message, usage)


def event_of(piece: Piece) -> Event:
    """A piece that a parser found, as an event."""
    match piece:
        case Text(text):
            return TextDelta(text)
        case Reasoning(text):
            return ReasoningDelta(text)
        case CallStart(index, call_id, name):
            return ToolCallDelta(index, call_id, name)
        case CallArguments(index, arguments):
            return ToolCallDelta(index, arguments=arguments)


def _merged(events: Iterable[Event]) -> list[Event]:
    """The same events, neighbouring deltas of one kind made one."""
    merged: list[Event] = []
    for event in events:
        match merged[-1] if merged else None, event:
            case TextDelta() as last, TextDelta():
                merged[-1] = TextDelta(last.text + event.text, last.logprobs + event.logprobs)
            case ReasoningDelta() as last, ReasoningDelta():
                merged[-1] = ReasoningDelta(last.text + event.text)
            case ToolCallDelta(index=index) as last, ToolCallDelta(id=None, index=same) if (
                index == same
            ):
                arguments = last.arguments + event.arguments
                merged[-1] = ToolCallDelta(index, last.id, last.name, arguments)
            case _:
                merged.append(event)
    return merged
