"""Conversations from JSON Lines files, as token ids and which of them the assistant says.

Each line is one conversation, in one of the shapes that are in use:

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": "...", "response": "..."}        (or "completion"; "system" may be there)
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}

The first is OpenAI's, with "tools" and "tool_calls" if need be; the last is ShareGPT's. A line
that is none of them is an error with its number: nothing is passed over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import TokenizationError, TrainingError, quoted
from oneiros.model.chat_format import ChatFormat, ChatFormatError, Message
from oneiros.training.documents import read_lines

ROLES = ("system", "user", "assistant", "tool")

_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "observation": "tool",
}
_RESPONSES = ("response", "completion")
_FIELDS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a file; at least one message is an assistant's."""

    where: str  # file and line, for messages
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, object], ...] | None = None

    @property
    def question(self) -> tuple[Message, ...]:
        """What comes before the assistant's first reply."""
        return self.messages[: self._first_reply]

    @property
    def answer(self) -> str:
        """The assistant's first reply."""
        return self.messages[self._first_reply]["content"]

    @property
    def _first_reply(self) -> int:
        return next(i for i, said in enumerate(self.messages) if said["role"] == "assistant")


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as a network learns it."""

    ids: NDArray[np.int32]  # (tokens,), two at least
    said: NDArray[np.bool_]  # (tokens,): the assistant's own, with the one that ends each reply

    @property
    def targets(self) -> int:
        """Tokens that carry loss. The first one of all is predicted by nothing."""
        return int(self.said[1:].sum())


def read_conversations(files: Iterable[Path]) -> Iterator[Conversation]:
    """The conversations of JSON Lines files, in order.

    Raises:
        TrainingError: a file cannot be read, or a line is no conversation; names the line.
    """
    for path in files:
        for where, value in read_lines(path):
            yield _conversation(value, where)


def example_of(conversation: Conversation, chat_format: ChatFormat) -> Example:
    """A conversation's tokens, as the model's chat template writes it.

    What follows the last reply (ChatML's line end) teaches nothing, and is left out.

    Raises:
        TrainingError: the template refuses the messages, or the vocabulary cannot express a
            character; names the line.
    """
    try:
        turns = chat_format.render_turns(conversation.messages, tools=conversation.tools)
    except (ChatFormatError, TokenizationError) as error:
        raise TrainingError(f"{conversation.where}: {error}") from error
    while not turns[-1].said:
        turns.pop()
    ids = np.array([token for turn in turns for token in turn.ids], np.int32)
    said = np.repeat([turn.said for turn in turns], [len(turn.ids) for turn in turns])
    return Example(ids, said)


def fingerprint(examples: Iterable[Example]) -> str:
    """Identifies what is learnt from: SHA-256 over ids and masks, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(len(example.ids).to_bytes(8, "little"))
        digest.update(example.ids.astype("<i4").tobytes() + example.said.tobytes())
    return digest.hexdigest()


def is_set_aside(conversation: Conversation, fraction: float) -> bool:
    """Whether a conversation is for validation, by the hash of what is asked.

    The choice does not depend on the order of lines, and the same question with two answers, or
    twice the same line, is on one side.
    """
    asked = "\0".join(message["content"] for message in conversation.question)
    digest = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") < fraction * 2**64


def _conversation(value: object, where: str) -> Conversation:
    if not isinstance(value, dict):
        raise TrainingError(f"{where}: is not an object.")
    if "messages" in value:
        messages = _listed(value["messages"], f'{where}, "messages"', _message)
    elif "conversations" in value:
        messages = _listed(value["conversations"], f'{where}, "conversations"', _sharegpt_message)
        messages = [*_system(value, where), *messages]
    elif "prompt" in value and (name := next((n for n in _RESPONSES if n in value), None)):
        asked: Message = {"role": "user", "content": _text(value, "prompt", where)}
        said: Message = {"role": "assistant", "content": _text(value, name, where)}
        messages = [*_system(value, where), asked, said]
    else:
        keys = ", ".join(map(quoted, value))[:200]
        raise TrainingError(
            f'{where}: is no conversation: it has neither "messages", nor "prompt" and "response", '
            f'nor "conversations" (but {keys or "nothing"}).'
        )
    if not any(message["role"] == "assistant" for message in messages):
        raise TrainingError(f"{where}: the assistant says nothing, so there is nothing to learn.")
    return Conversation(where, tuple(messages), _tools(value, where))


def _listed(values: object, where: str, read: Callable[[object, str], Message]) -> list[Message]:
    if not isinstance(values, list) or not values:
        raise TrainingError(f"{where}: is not a list of messages.")
    return [read(value, f"{where}, message {number}") for number, value in enumerate(values, 1)]


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise TrainingError(f"{where}: is not an object.")
    role = value.get("role")
    if role not in ROLES:
        raise TrainingError(f'{where}: "role" is none of {", ".join(ROLES)}.')
    # OpenAI's clients leave the content out where there are calls.
    calls = value.get("tool_calls")
    if calls is not None and (role != "assistant" or not _are_objects(calls)):
        raise TrainingError(f'{where}: "tool_calls" is not a list of an assistant\'s calls.')
    content = "" if calls and value.get("content") is None else _text(value, "content", where)
    for name in ("reasoning_content", "tool_call_id", "name"):
        if value.get(name) is not None:
            _text(value, name, where)
    kept = {name: value[name] for name in _FIELDS if value.get(name) is not None}
    return cast(Message, kept | {"content": content})


def _sharegpt_message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise TrainingError(f"{where}: is not an object.")
    role = _SHAREGPT_ROLES.get(_text(value, "from", where))
    if role is None:
        raise TrainingError(f'{where}: "from" is none of {", ".join(_SHAREGPT_ROLES)}.')
    return {"role": role, "content": _text(value, "value", where)}


def _system(value: Mapping[str, object], where: str) -> list[Message]:
    if value.get("system") is None:
        return []
    return [{"role": "system", "content": _text(value, "system", where)}]


def _tools(value: Mapping[str, object], where: str) -> tuple[Mapping[str, object], ...] | None:
    tools = value.get("tools")
    if not tools:
        return None
    if not _are_objects(tools):
        raise TrainingError(f'{where}: "tools" is not a list of objects.')
    return tuple(cast(Sequence[Mapping[str, object]], tools))


def _are_objects(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


def _text(value: Mapping[str, object], name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise TrainingError(f'{where}: has no text under "{name}".')
    return text
