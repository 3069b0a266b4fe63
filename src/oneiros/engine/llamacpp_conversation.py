"""Conversations with models that only llama.cpp runs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import ClassVar

import llguidance

from oneiros.engine.constraint import choice_grammar, compiled, parsed_json
from oneiros.engine.conversation import ConversationOptions
from oneiros.engine.llamacpp_model import LlamaCppModel
from oneiros.engine.remote_conversation import RemoteConversation
from oneiros.engine.replies import Completed, Event, ReplyAssembly, TextDelta, event_of
from oneiros.engine.requests import ConstraintSpec
from oneiros.engine.sampling import SamplingOptions
from oneiros.errors import ConstraintError, ConversationError
from oneiros.model.chat_format import Message
from oneiros.model.json_schema import enforceable_schema
from oneiros.model.tool_call_parser import ToolCallParser
from oneiros.model.tool_calls import tool_call_format
from oneiros.model.tool_prompts import with_tools

# By its first line llama.cpp knows a grammar in llguidance's dialect from one in its own.
_DIALECT = "%llguidance {}\n"

# A setting of schemas that llama.cpp's llguidance, which is older, does not know.
_ESCAPES = re.compile(r', "json_allowed_escapes": "(?:[^"\\]|\\.)*"')

Events = AsyncGenerator[Event, None]


class LlamaCppConversation(RemoteConversation):
    """A conversation with a model that llama.cpp runs in this process.

    The messages are the truth: they are rendered and tokenised anew for each reply, and llama.cpp
    finds the beginning that it has read before in its own cache. So a fork shares what was read
    only while it is still there. A seed repeats a reply only as far as llama.cpp computes the same
    logits again, which depends on what else it computes.

    Where the chat template knows tools, llama.cpp tells the model of them and finds the calls.
    Where it does not, that is done here as in a LocalConversation, and the calls are well-formed.
    """

    kind: ClassVar[str] = "llama.cpp"

    def __init__(self, model: LlamaCppModel, messages: Iterable[Message] = ()) -> None:
        """Begin a conversation with some messages."""
        super().__init__(model, messages)
        self._format = tool_call_format(model.template)

    async def _events(self, options: ConversationOptions) -> Events:
        events = super()._events(options)
        grammar = self._grammar(options)
        if grammar is not None:
            matcher = await asyncio.to_thread(_matcher, grammar)
            # The reasoning, which llama.cpp takes out, is part of what a grammar of calls says.
            if self._format.reasoning == "none" or not options.offered_tools:
                events = _followed(events, matcher)
        if options.offered_tools and self._format.described:
            parser = replace(self._format, reasoning="none").parser(
                options.offered_tools, constrained=True
            )
            events = _with_calls(events, parser)
        async with aclosing(events):
            async for event in events:
                yield event

    def _request(self, options: ConversationOptions) -> dict[str, object]:
        if options.top_logprobs is not None:
            raise ConversationError(
                "Conversations with llama.cpp have no log-probabilities. Leave top_logprobs out."
            )
        messages, told = with_tools(self._format, self._messages, options.offered_tools)
        plain = replace(options, response_schema=None, constraint=None)
        if not told:
            plain = replace(plain, tools=(), tool_choice="none")
        body = super()._request(plain) | _sampling(options.sampling) | {"messages": messages}
        grammar = self._grammar(options)
        if grammar is not None:
            body["grammar"] = _DIALECT + grammar
        return body

    def _grammar(self, options: ConversationOptions) -> str | None:
        """What a reply must look like, in llguidance's dialect of Lark.

        Raises:
            ConstraintError: that cannot be enforced.
        """
        grammar = None
        if options.offered_tools and self._format.described:
            grammar = self._format.grammar(
                options.offered_tools, options.tool_choice, options.parallel_tool_calls
            )
        elif options.response_schema is not None:
            grammar = _json_grammar(options.response_schema)
        elif options.constraint is not None:
            grammar = _lark(options.constraint)
        return None if grammar is None else _ESCAPES.sub("", grammar)


def _sampling(sampling: SamplingOptions) -> dict[str, object]:
    """The options that llama.cpp knows by other names, or has defaults of its own for."""
    fields: dict[str, object] = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": sampling.penalty_window or -1,  # -1: all
    }
    if sampling.seed is not None:
        fields["seed"] = sampling.seed % (2**32 - 1)  # the last one means a new seed each time
    return fields


def _lark(spec: ConstraintSpec) -> str:
    match spec.kind:
        case "lark":
            return spec.value
        case "regex":
            # A slash ends the expression, and line breaks may not be in it.
            expression = re.sub(r"\\.|/", lambda m: r"\/" if m[0] == "/" else m[0], spec.value)
            return f"start: /{expression}/".replace("\n", r"\n")
        case "json_schema":
            return _json_grammar(parsed_json(spec.value, "schema"))
        case "choice":
            return choice_grammar(spec.value)


def _json_grammar(schema: object) -> str:
    return f"start: %json {json.dumps(enforceable_schema(schema), ensure_ascii=False)}"


def _matcher(grammar: str) -> llguidance.LLMatcher:
    """What a grammar allows, byte by byte; raises ConstraintError if it is malformed."""
    return compiled(llguidance.LLTokenizer("byte"), llguidance.LLMatcher.grammar_from_lark(grammar))


async def _followed(events: Events, matcher: llguidance.LLMatcher) -> Events:
    """The same reply; ConstraintError instead of its end where the text is not what it must be.

    llama.cpp goes on without a grammar that it does not understand.
    """
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                matcher.consume_tokens([*event.text.encode()])
            if isinstance(event, Completed) and event.reason != "cancelled":
                whole = event.reason == "length" or matcher.is_accepting()
                if matcher.is_error() or not whole:
                    raise ConstraintError(
                        "llama.cpp did not keep to the constraint: its version of llguidance may "
                        "not know a part of it. Use a simpler one."
                    )
            yield event


async def _with_calls(events: Events, parser: ToolCallParser) -> Events:
    """The same reply, with the calls that its text holds."""
    said = ReplyAssembly()
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta(text=text):
                    found = [event_of(piece) for piece in parser.push(text)]
                case Completed():
                    found = [event_of(piece) for piece in parser.finish()]
                case _:
                    found = [event]
            for each in found:
                said.add(each)
                yield each
            if isinstance(event, Completed):
                yield said.completed("length" if event.reason == "length" else "stop", event.usage)
