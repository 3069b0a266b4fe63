"""The peer that anybody could write: GPT-2's network and a loop in plain PyTorch.

Network and recipe are nanoGPT's for Shakespeare's characters (Karpathy 2022), without dropout:
AdamW on everything, 100 steps of warm-up, then a cosine down to a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from oneiros.training.shards import IGNORED, Batch
from oneiros.training.step import rows_of

RATE, FINAL_RATE, WARMUP = 1e-3, 1e-4, 100
DECAY, BETAS, CLIP = 0.1, (0.9, 0.99), 1.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What all sides have in common."""

    vocabulary: int
    layers: int
    heads: int
    width: int
    context: int


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.mix = nn.Linear(width, 3 * width, bias=False)
        self.mixed = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, context, width) -> the same shape."""
        rows, context, width = x.shape
        parts = self.mix(self.norms[0](x)).view(rows, context, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.mixed(found.transpose(1, 2).reshape(rows, context, width))
        down: Tensor = self.down(functional.gelu(self.up(self.norms[1](x))))
        return x + down


class PlainGPT(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                to_stream = name.endswith(("mixed.weight", "down.weight"))
                nn.init.normal_(
                    parameter, std=0.02 / math.sqrt(2 * shape.layers) if to_stream else 0.02
                )

    def forward(self, tokens: Tensor) -> Tensor:
        """(rows, context) -> logits (rows, context, vocabulary)."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.tokens.weight)


class PlainLearner:
    """The loop's body: an update from a batch."""

    def __init__(
        self,
        shape: Shape,
        *,
        micro_batch: int,
        precision: torch.dtype,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(1)
        self.network = PlainGPT(shape).to(device)
        self.forward: Callable[[Tensor], Tensor] = (
            torch.compile(self.network) if compiled else self.network
        )
        parameters = [*self.network.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": DECAY},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)
        self.micro_batch, self.device = micro_batch, device
        self.precision = precision

    def update(self, batch: Batch, rate: float = RATE) -> float:
        """One update; gives the loss in nats per token."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts = [*self._parts(batch)]
        total = torch.zeros((), device=self.device)
        for part in parts:
            loss = self._loss(self.forward, part, "mean") / len(parts)
            torch.autograd.backward(loss)
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(total)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> float:
        """Nats per target."""
        summed = sum(float(self._loss(self.network, p, "sum")) for p in self._parts(batch))
        return summed / int((batch.targets != IGNORED).sum())

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        for begin in range(0, len(batch.tokens), self.micro_batch):
            yield rows_of(batch, begin, begin + self.micro_batch)

    def _loss(self, forward: Callable[[Tensor], Tensor], batch: Batch, reduction: str) -> Tensor:
        tokens = torch.from_numpy(batch.tokens).to(self.device)
        targets = torch.from_numpy(batch.targets).to(self.device)
        mixed = self.precision is not torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=mixed):
            logits = forward(tokens)
        return functional.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction=reduction,
        )


def cosine_rate(step: int, steps: int) -> float:
    """nanoGPT's schedule."""
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return FINAL_RATE + (RATE - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2
