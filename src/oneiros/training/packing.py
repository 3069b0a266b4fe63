"""Packing: conversations of many lengths, laid into rows of one length.

A row holds as many conversations as fit, one behind the other, each with a document number of its
own: attention does not cross them and positions begin anew, so that packing changes no loss (it
only saves the padding: Krell et al. 2021). Which conversations share a row follows from their
lengths; in which order rows come, from (seed, epoch): a batch is a function of the step's number.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import TrainingError
from oneiros.training.conversations import Example
from oneiros.training.shards import IGNORED, Batch


def pack(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Rows of indices, such that the lengths in a row add up to no more than the context.

    The longest come first, each into the fullest row that has room for it (best fit, which leaves
    little empty; Johnson 1973). The same lengths always give the same rows.

    Args:
        lengths: positive, none above the context.
        context: positions of a row.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room, row), rising
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = bisect.bisect_left(open_rows, (lengths[index], 0))
        if place < len(open_rows):
            room, row = open_rows.pop(place)
        else:
            room, row = context, len(rows)
            rows.append([])
        rows[row].append(index)
        if room > lengths[index]:
            bisect.insort(open_rows, (room - lengths[index], row))
    return rows


class PackedRows:
    """Packed conversations, as rows for a network.

    A conversation of n tokens takes n - 1 positions: its last token is only predicted.

    Attributes:
        context: positions of a row.
        targets: tokens that carry loss, in all rows.
        positions: that hold a conversation, in all rows.
    """

    def __init__(self, examples: Sequence[Example], context: int) -> None:
        """Pack examples of two tokens at least and `context` + 1 at most."""
        self.context = context
        self._examples = examples
        self._rows = pack([len(example.ids) - 1 for example in examples], context)
        self.targets = sum(example.targets for example in examples)
        self.positions = sum(len(example.ids) - 1 for example in examples)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, numbers: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Some rows, by their numbers. What is left empty at a row's end has no targets."""
        shape = (len(numbers), self.context)
        tokens, documents = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        targets = np.full(shape, IGNORED, np.int64)
        for row, number in enumerate(numbers):
            begin = 0
            for document, index in enumerate(self._rows[number]):
                example = self._examples[index]
                end = begin + len(example.ids) - 1
                tokens[row, begin:end] = example.ids[:-1]
                targets[row, begin:end][example.said[1:]] = example.ids[1:][example.said[1:]]
                # The padding joins the last document, which cannot see it.
                documents[row, begin:] = document
                begin = end
        return Batch(tokens, targets, documents)


class PackedBatches:
    """The batches of a run of fine-tuning. Every epoch has each row once, in its own order."""

    def __init__(self, rows: PackedRows, batch: int, seed: int) -> None:
        """Batches of `batch` rows.

        Raises:
            TrainingError: there are none.
        """
        if not len(rows):
            raise TrainingError("There is no conversation to learn from.")
        self._rows, self._batch, self._seed = rows, batch, seed

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        numbers = np.arange(step * self._batch, (step + 1) * self._batch)
        epochs, places = np.divmod(numbers, len(self._rows))
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        orders = {epoch: self._order(epoch) for epoch in {*epochs.tolist()}}
        return self._rows.batch([int(orders[epoch][place]) for epoch, place in pairs])

    def epoch(self, step: int) -> float:
        """How often all rows have been seen before this step."""
        return step * self._batch / len(self._rows)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(
            len(self._rows)
        )
