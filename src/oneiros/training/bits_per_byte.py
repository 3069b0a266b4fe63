"""How well a network in training predicts text that it does not learn from, in bits per byte.

Nats per token depend on the vocabulary; bits per byte do not, and compare runs whose tokens
differ. Tokens that stand for no text (the end of a document) are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from oneiros.model.tokenizer import Tokenizer
from oneiros.training.shards import IGNORED, TokenStream
from oneiros.training.step import Learner, losses, rows_of


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Over the targets that were predicted."""

    nats: float  # negative log-likelihood, summed
    tokens: int
    bytes: int  # that these tokens stand for

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens


def token_lengths(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """The bytes that each token stands for, (vocabulary,); 0 for the added vocabulary."""
    return np.array(
        [
            0 if tokenizer.is_added(token) else len(tokenizer.token_bytes(token))
            for token in range(tokenizer.vocabulary_size)
        ],
        np.int64,
    )


@torch.no_grad()
def evaluate(
    learner: Learner,
    stream: TokenStream,
    lengths: NDArray[np.int64],
    *,
    context: int,
    rows: int,
) -> Evaluation | None:
    """Evaluate the beginning of a stream in windows that do not know of each other.

    All processes call this, and share the work.

    Args:
        learner: its network is evaluated.
        stream: validation text.
        lengths: see `token_lengths`.
        context: tokens of a window.
        rows: windows, at most.

    Returns:
        The sums over all processes; None if the stream holds nothing to predict.
    """
    context = min(context, stream.tokens - 1)
    if context < 1:
        return None
    rows = min(rows, (stream.tokens - 1) // context)
    processes = learner.processes
    # Every process runs the network equally often, as FSDP2 needs; rows beyond the last count 0.
    share = math.ceil(rows / processes.count)
    numbers = np.arange(processes.rank * share, (processes.rank + 1) * share)
    batch = stream.windows(numbers % rows * context, context)
    batch.targets[numbers >= rows] = IGNORED
    batch.targets[(batch.targets != IGNORED) & (lengths[batch.targets] == 0)] = IGNORED
    nats = 0.0
    for begin in range(0, share, learner.micro_batch):
        part = rows_of(batch, begin, begin + learner.micro_batch)
        nats += float(losses(learner, part).double().sum())
    counted = batch.targets[batch.targets != IGNORED]
    nats, tokens, size = processes.sum(nats, len(counted), int(lengths[counted].sum()))
    return Evaluation(nats, int(tokens), int(size)) if size else None
