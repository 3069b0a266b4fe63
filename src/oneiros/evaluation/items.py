"""What is asked of a model: one item each, and what counts as its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from oneiros.model.chat_format import Message


@dataclass(frozen=True, slots=True)
class Scored:
    """A text after another: the log-likelihood of the continuation is wanted."""

    context: str
    continuation: str  # begins with the space that separates the two, if one does


@dataclass(frozen=True, slots=True)
class Choice:
    """Several texts of which one is right: the model chooses the likeliest per token.

    In multiple choice the continuations differ, in a schema (Winograd) the contexts.
    """

    options: tuple[Scored, ...]
    gold: int  # index into options
    exact: bool = False  # note, too, whether the right one is what the model would write itself


@dataclass(frozen=True, slots=True)
class Cloze:
    """A text whose end is to be foretold: right where every token of it is the likeliest."""

    text: Scored


@dataclass(frozen=True, slots=True)
class Passage:
    """A window of a text that is to be predicted."""

    ids: tuple[int, ...]
    first: int  # tokens before this one are only context; at least 1
    bytes: int  # that the tokens from `first` on stand for


@dataclass(frozen=True, slots=True)
class Reply:
    """A question that the model answers in its own words, greedily."""

    prompt: str | tuple[Message, ...]  # a text to continue, or a conversation
    gold: str
    read: Callable[[str], str | None]  # finds the answer in what the model wrote
    stop: tuple[str, ...]
    max_tokens: int


Item = Choice | Cloze | Passage | Reply


@dataclass(frozen=True, slots=True)
class Suite:
    """Items that are scored together.

    Attributes:
        items: by their number in the data, which stays the same whatever part is asked.
        baseline: the accuracy of one who does not read the questions: who guesses, or always gives
            the commonest answer; None where the score is no accuracy.
    """

    name: str
    shots: int
    items: Mapping[int, Item]
    baseline: float | None


def prompt_sha256(item: Item) -> str:
    """Names all that the model is shown in an item, and what is right."""
    shown: object
    match item:
        case Choice():
            shown = [[[o.context, o.continuation] for o in item.options], item.gold, item.exact]
        case Cloze():
            shown = [item.text.context, item.text.continuation]
        case Passage():
            shown = [item.ids, item.first]
        case Reply():
            shown = [item.prompt, item.gold, item.stop, item.max_tokens]
    return hashlib.sha256(json.dumps([type(item).__name__, shown]).encode()).hexdigest()
