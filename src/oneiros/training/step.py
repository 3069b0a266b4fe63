"""One update of a network: loss, accumulated gradients, clipping, the optimizer.

The loss of a batch is the mean over all of its targets, whichever micro-batch and process they are
computed in. How a batch is cut up therefore changes nothing but the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from oneiros.errors import TrainingError
from oneiros.training.network import Network
from oneiros.training.optimizer import Optimizer, whole
from oneiros.training.processes import Processes
from oneiros.training.shards import IGNORED, Batch

Forward = Callable[[Tensor, Tensor | None], Tensor]
"""(tokens (B, T) int64, documents (B, T) int64 or None) -> logits (B, T, V) float32."""


@dataclass(slots=True)
class Learner:
    """A network that learns, with what it takes."""

    network: Network
    forward: Forward  # the network, compiled if that is wanted
    optimizer: Optimizer
    processes: Processes
    precision: torch.dtype  # of matrix products
    micro_batch: int  # rows that are computed at once; halved when memory runs out
    clip: float  # largest norm of the gradient


@dataclass(frozen=True, slots=True)
class Step:
    """What came of a batch."""

    loss: float  # nats per target, the mean over the whole batch, before the update
    gradient_norm: float  # before clipping
    applied: bool  # False: loss or gradient were not finite, and no parameter was touched


def summed_loss(learner: Learner, batch: Batch) -> Tensor:
    """The negative log-likelihood of a batch's targets, summed: nats, float32, a scalar."""
    device = learner.processes.device
    targets = _to_device(torch.from_numpy(batch.targets), device)
    logits = _logits(learner, learner.forward, batch)
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def losses(learner: Learner, batch: Batch) -> Tensor:
    """The negative log-likelihood of each target, (B, T) float32; 0 where there is no target."""
    device = learner.processes.device
    targets = _to_device(torch.from_numpy(batch.targets), device)
    # Not the compiled network: it would be compiled once more, for other rows without gradients.
    logits = _logits(learner, learner.network, batch)
    return functional.cross_entropy(
        logits.transpose(1, 2).float(), targets, ignore_index=IGNORED, reduction="none"
    )


def train_step(learner: Learner, batch: Batch, factor: float) -> Step:
    """Update the network from this process's rows of a batch.

    A loss or gradient that is not finite changes nothing: the step is reported as not applied.
    When memory runs out, the micro-batch is halved and the batch started again.

    Args:
        learner: is updated.
        batch: as many rows on every process.
        factor: of the learning rates, from the schedule.

    Raises:
        TrainingError: one row at a time is still too much memory.
    """
    processes = learner.processes
    mine = int((batch.targets != IGNORED).sum())
    (targets,) = processes.sum(mine)
    loss = _accumulate_within_memory(learner, batch, max(1.0, targets))
    (loss,) = processes.sum(loss)
    norm = nn.utils.clip_grad_norm_(learner.network.parameters(), learner.clip)
    gradient_norm = float(whole(norm))
    applied = math.isfinite(loss) and math.isfinite(gradient_norm)
    if applied:
        learner.optimizer.step(factor)
    learner.optimizer.zero_gradients()
    return Step(loss, gradient_norm, applied)


def rows_of(batch: Batch, begin: int, end: int) -> Batch:
    """Some rows of a batch."""
    return Batch(batch.tokens[begin:end], batch.targets[begin:end], batch.documents[begin:end])


def _accumulate_within_memory(learner: Learner, batch: Batch, targets: float) -> float:
    while True:
        try:
            return _accumulate(learner, batch, targets)
        except torch.OutOfMemoryError as error:
            # Other processes wait in a collective by now, and cannot be told.
            if learner.micro_batch == 1 or learner.processes.count > 1:
                raise TrainingError(
                    f"{learner.processes.device} has not enough memory for a micro-batch of "
                    f"{learner.micro_batch} rows: lower --micro-batch, --context or --depth."
                ) from error
        learner.micro_batch //= 2
        learner.optimizer.zero_gradients()
        if learner.processes.device.type == "cuda":
            torch.cuda.empty_cache()


def _accumulate(learner: Learner, batch: Batch, targets: float) -> float:
    """Add up the gradients of all micro-batches; gives this process's share of the mean loss."""
    total = torch.zeros((), device=learner.processes.device)
    for begin in range(0, len(batch.tokens), learner.micro_batch):
        part = rows_of(batch, begin, begin + learner.micro_batch)
        loss = summed_loss(learner, part) / targets
        # FSDP2 averages gradients over the processes; what is wanted is their sum.
        torch.autograd.backward(loss * learner.processes.count)
        total += loss.detach()
    return float(total)


def _logits(learner: Learner, forward: Forward, batch: Batch) -> Tensor:
    device = learner.processes.device
    tokens = _to_device(torch.from_numpy(batch.tokens), device)
    # Most rows of long texts lie in one document, and plain causal attention is faster.
    documents = None
    if batch.documents.any():
        documents = _to_device(torch.from_numpy(batch.documents), device)
    autocast = torch.autocast(
        device.type, learner.precision, enabled=learner.precision is not torch.float32
    )
    with autocast:
        return forward(tokens, documents)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    # From pinned memory the copy does not wait for what the GPU still has to do.
    return tensor.pin_memory().to(device, non_blocking=True)
