"""Messages to token ids, by the chat template of the model's file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Required, TypedDict

from oneiros.errors import ModelFileError, OneirosError
from oneiros.model.json_text import read_bounded
from oneiros.model.parameters import Parameters
from oneiros.model.tokenizer import Tokenizer
from oneiros.model.tokenizer_json import read_settings

if TYPE_CHECKING:
    from oneiros.model.chat_template import ChatTemplate

# What models are trained with that have ChatML's tokens and no template.
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class ChatFormatError(OneirosError):
    """A chat template is malformed, needs something unknown, or refuses the messages."""


class Message(TypedDict, total=False):
    """One message of a conversation, as chat templates read it."""

    role: Required[str]  # "system", "user", "assistant" or "tool"
    content: Required[str]
    reasoning_content: str  # what an assistant thought before it spoke
    tool_calls: Sequence[Mapping[str, object]]  # {"type", "function": {"name", "arguments"}}
    tool_call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class GeneratedReply:
    """What a model generated as an assistant's message."""

    text: str  # without the token that ended it; reasoning and tool calls as the model writes them
    ids: tuple[int, ...]  # of this text, as they were generated


@dataclass(frozen=True, slots=True)
class Turn:
    """A part of a rendered conversation."""

    ids: tuple[int, ...]
    said: bool  # by the assistant, with the token that ends it; else what a model is given


class ChatFormat:
    """How a model writes conversations.

    Only the template's own text becomes control tokens: contents, names, tool descriptions and
    whatever else is in the messages is tokenised as plain text, whatever it says.

    Attributes:
        template: the Jinja source.
        stop_ids: tokens that end a reply.
    """

    def __init__(
        self, template: str, tokenizer: Tokenizer, now: Callable[[], datetime] = datetime.now
    ) -> None:
        """`now` gives the time to templates that print the date."""
        self.template = template
        self.stop_ids = tokenizer.end_ids
        self._tokenizer = tokenizer
        self._now = now

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, object]] | None = None,
        replies: Mapping[int, GeneratedReply] | None = None,
    ) -> list[int]:
        """Token ids of a conversation.

        Args:
            messages: the conversation.
            add_generation_prompt: end with what starts the assistant's reply.
            tools: JSON schemas of the functions that the model may call.
            replies: by their place in `messages`, those that the model generated. Their ids are
                kept, except where the template writes such a reply differently (it drops old
                reasoning, or strips the reply).

        Raises:
            ChatFormatError: the template is malformed, or refuses the messages.
            TokenizationError: the vocabulary cannot express something in them.
        """
        replies = replies or {}
        said: list[Message] = [
            {"role": "assistant", "content": replies[index].text} if index in replies else message
            for index, message in enumerate(messages)
        ]
        marked = self._marked(said, add_generation_prompt, tools)
        ids: list[int] = []
        done = 0  # characters of `marked` that are in `ids`
        for index, reply in sorted(replies.items()):
            before = self._marked(said[:index], True, tools)
            if len(before) >= done and marked.startswith(before + reply.text):
                ids += self._encode(marked[done : len(before)], opens=not done)
                ids += reply.ids
                done = len(before) + len(reply.text)
        return ids + self._encode(marked[done:], opens=not done)

    def continuation(
        self,
        messages: Sequence[Message],
        reply: str,
        more: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> list[int] | None:
        """Token ids that follow a generated reply when the conversation goes on.

        With them a conversation goes on from the ids that the model generated, which other ids of
        the same text would not equal: `render(messages)`, the reply's ids, the continuation.

        Args:
            messages: the conversation up to the reply.
            reply: the text that the model generated, without the token that ended it.
            more: the messages after it.
            tools: as in `render`.

        Returns:
            The ids after the reply's text, the end of its turn first; or None where the template
            writes the conversation so far differently now (it drops old reasoning, or strips the
            reply), so that all of it has to be rendered anew.
        """
        said: Message = {"role": "assistant", "content": reply}
        before = self._marked(messages, True, tools) + reply
        after = self._marked([*messages, said, *more], True, tools)
        if not after.startswith(before):
            return None
        return self._encode(after.removeprefix(before), opens=False)

    def render_turns(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] | None = None,
    ) -> list[Turn]:
        """Token ids of a finished conversation, with what the assistant says told apart.

        They are cut where they are cut when a model runs: the prompt ends with what starts a
        reply, and the reply's text is tokenised by itself, the token that ends it behind it.

        Raises:
            ChatFormatError: the template is malformed, refuses the messages, does not end a
                reply, or writes what is before a reply differently once the reply is there.
            TokenizationError: the vocabulary cannot express something in them.
        """
        marked = self._marked(messages, False, tools)
        turns: list[Turn] = []
        done = 0  # characters of `marked` that are in `turns`
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._marked(messages[:index], True, tools)
            if len(before) < done or not marked.startswith(before):
                raise ChatFormatError(
                    f"The chat template writes the start of message {index + 1}, a reply, "
                    "differently from what it asks for a reply with."
                )
            reply = self._reply(marked[len(before) :], index)
            turns += [
                Turn(tuple(self._encode(marked[done : len(before)], opens=not done)), False),
                Turn(tuple(self._encode(reply, opens=False)), True),
            ]
            done = len(before) + len(reply)
        rest = self._encode(marked[done:], opens=not done)
        return [*turns, Turn(tuple(rest), False)] if rest else turns

    def _reply(self, marked: str, index: int) -> str:
        """The beginning of a rendering up to the first token that ends a reply, which included."""
        end = self._compiled.end_of(marked, self.stop_ids)
        if end is None:
            raise ChatFormatError(f"The chat template does not end message {index + 1}, a reply.")
        return marked[:end]

    def _encode(self, marked: str, *, opens: bool) -> list[int]:
        return self._tokenizer.encode_parts(self._compiled.parts(marked), opens=opens)

    @cached_property
    def _compiled(self) -> ChatTemplate:
        # Jinja takes as long to import as the tokenizer to load, and not every use needs it.
        from oneiros.model.chat_template import ChatTemplate

        compiled = ChatTemplate(self.template, self._tokenizer.added_tokens)
        try:
            sample = self._render(compiled, [{"role": "user", "content": "1"}], True, None)
        except ChatFormatError:
            return compiled  # it wants other messages than these; render() will say so
        compiled.check(sample)
        return compiled

    def _marked(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] | None,
    ) -> str:
        return self._render(self._compiled, messages, add_generation_prompt, tools)

    def _render(
        self,
        compiled: ChatTemplate,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] | None,
    ) -> str:
        variables = {
            "messages": [_plain(_with_parsed_arguments(message)) for message in messages],
            "tools": None if tools is None else [_plain(tool) for tool in tools],
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": self._now().strftime,
        }
        special = {"bos_token": self._tokenizer.bos_id, "eos_token": self._tokenizer.eos_id}
        return compiled.render(variables, special)


def load_chat_format(parameters: Parameters, tokenizer: Tokenizer) -> ChatFormat | None:
    """The chat format of a model, or None for a base model that has none.

    Models with the tokens of ChatML and without a template get that format.

    Raises:
        ModelFileError: the file's template is not text.
    """
    template = stored_template(parameters)
    if template is None and {"<|im_start|>", "<|im_end|>"} <= tokenizer.added_tokens.keys():
        template = _CHATML
    return None if template is None else ChatFormat(template, tokenizer)


def stored_template(parameters: Parameters) -> str | None:
    """The chat template that a model's files hold, or None.

    Raises:
        ModelFileError: it is not text.
    """
    if parameters.path.is_dir():
        template = _folder_template(parameters)
    else:
        template = parameters.metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ModelFileError(f"{parameters.path}: the chat template is not a string.")
    return template


def _folder_template(parameters: Parameters) -> object:
    """The template of a Hugging Face folder: a file of its own, or in the tokenizer's settings."""
    path = parameters.path / "chat_template.jinja"
    if path.exists():
        return _text(path)
    template = read_settings(parameters.path, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        # Some models have several, for tools and for retrieval.
        named = [entry for entry in template if isinstance(entry, dict)]
        return next((e.get("template") for e in named if e.get("name") == "default"), None)
    return template


def _text(path: Path) -> str:
    try:
        return read_bounded(path).decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path}: byte {error.start:,} is not UTF-8.") from error


def _with_parsed_arguments(message: Message) -> Message:
    """The message with its calls' arguments as objects, which is how templates want them.

    In the OpenAI API arguments are JSON text; a template's `tojson` would quote it once more.
    """
    calls = message.get("tool_calls")
    if not calls:
        return message
    return {**message, "tool_calls": [_with_parsed(call) for call in calls]}


def _with_parsed(call: Mapping[str, object]) -> Mapping[str, object]:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": parsed}}


def _plain(value: object) -> object:
    """A copy of JSON-like data: a template gets at nothing else.

    Raises:
        ChatFormatError: there is something else in it.
    """
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return str(value)
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_plain(item) for item in value]
    raise ChatFormatError(
        f"Messages hold text, numbers, lists and mappings, and here is a {type(value).__name__}."
    )
