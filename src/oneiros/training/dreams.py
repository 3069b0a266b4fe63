"""Dreams: what a base model says when nobody asks, sampled while it learns."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from oneiros.training.step import Learner

TEMPERATURE = 0.8
TOP_K = 40


@torch.no_grad()
def dream(
    learner: Learner,
    start: Sequence[int],
    *,
    tokens: int,
    context: int,
    vocabulary: int | None = None,
    end: int | None = None,
    seed: int = 0,
    temperature: float = TEMPERATURE,
    top_k: int = TOP_K,
) -> list[int]:
    """Continue a start, one sampled token at a time.

    Nothing is cached between tokens: this is for a look now and then; the engine runs models.
    All processes of a run call this with the same arguments and get the same dream.

    Args:
        learner: its network dreams.
        start: ids, at least one.
        tokens: to sample at most.
        context: ids that the network is shown at most: the latest.
        vocabulary: of the tokenizer: rows beyond it are padding. None: there is no padding.
        end: the id that ends the dream.
        seed: the same seed and weights give the same dream.
        temperature: above 0; lower is likelier.
        top_k: only so many of the likeliest tokens are chosen from.

    Returns:
        The sampled ids, without `end`.
    """
    device = learner.processes.device
    random = torch.Generator().manual_seed(seed)
    ids = [*start]
    autocast = torch.autocast(
        device.type, learner.precision, enabled=learner.precision is not torch.float32
    )
    for _ in range(tokens):
        with autocast:
            # Not the compiled forward: that would be compiled again for every length.
            logits = learner.network(torch.tensor([ids[-context:]], device=device), None)
        scores = logits[0, -1, :vocabulary].float().cpu()
        likeliest = scores.topk(min(top_k, len(scores)))
        chances = torch.softmax(likeliest.values / temperature, dim=0)
        if not torch.isfinite(chances).all():
            break  # a network that has diverged dreams nothing
        chosen = int(likeliest.indices[torch.multinomial(chances, 1, generator=random)])
        if chosen == end:
            break
        ids.append(chosen)
    return ids[len(start) :]
