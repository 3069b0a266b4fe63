"""A text as windows to be predicted, for its bits per byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oneiros.errors import EvaluationError
from oneiros.evaluation.items import Item, Passage, Suite
from oneiros.evaluation.perplexity import WINDOW, windows
from oneiros.model.tokenizer import Tokenizer


def passage_suite(
    name: str, text: str, tokenizer: Tokenizer, context: int, choose: Callable[[int], Sequence[int]]
) -> Suite:
    """Windows in which every token of a text is scored once, each with half a window before it.

    Args:
        context: the most tokens that the model takes.
        choose: says which windows to ask, given how many there are.

    Raises EvaluationError where nothing in the text follows anything.
    """
    start = tokenizer.prompt_ids("")
    ids = tokenizer.encode(text)
    room = min(WINDOW, context - 1) - len(start)
    if len(start) + len(ids) < 2 or room < 2:
        raise EvaluationError("The text or the context is too short: nothing follows anything.")
    parts = list(windows(len(ids), room, room // 2))
    items: dict[int, Item] = {}
    for index in choose(len(parts)):
        part = parts[index]
        shown = (*start, *ids[part.begin : part.end])
        first = max(1, len(start) + part.scored - part.begin)
        size = sum(len(tokenizer.token_bytes(token)) for token in shown[first:])
        items[index] = Passage(shown, first, size)
    return Suite(name, 0, items, None)
