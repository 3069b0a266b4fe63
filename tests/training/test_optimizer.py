"""Muon and AdamW, and the schedule of their rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oneiros.training.optimizer import Optimizer, OptimizerConfig, orthogonalized, rate_factor


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def train_both(
    ours: dict[str, nn.Parameter], config: OptimizerConfig, theirs: torch.optim.Optimizer
) -> None:
    """Ten updates of two copies with the same gradients; theirs are in the same order."""
    optimizer = Optimizer(ours.items(), config)
    copies = theirs.param_groups[0]["params"]
    random = torch.Generator().manual_seed(2)
    for _ in range(10):
        for parameter, copy in zip(ours.values(), copies, strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=random)
            copy.grad = parameter.grad.clone()
        optimizer.step(1.0)
        optimizer.zero_gradients()
        theirs.step()


def test_embeddings_and_vectors_move_as_pytorchs_adamw() -> None:
    names = ["embedding.weight", "head.weight"]
    ours = dict(zip(names, parameters((20, 8), (20, 8)), strict=True))
    theirs = torch.optim.AdamW(
        parameters((20, 8), (20, 8)), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1
    )
    train_both(ours, OptimizerConfig(embedding_rate=0.01, embedding_decay=0.1), theirs)
    for mine, other in zip(ours.values(), theirs.param_groups[0]["params"], strict=True):
        assert torch.allclose(mine, other, atol=1e-6)

    norm = {"norm.weight": parameters((8,))[0]}
    theirs = torch.optim.AdamW(parameters((8,)), lr=0.03, betas=(0.9, 0.95), weight_decay=0.0)
    train_both(norm, OptimizerConfig(vector_rate=0.03, embedding_decay=0.1), theirs)
    assert torch.allclose(norm["norm.weight"], theirs.param_groups[0]["params"][0], atol=1e-6)


def test_matrices_move_as_pytorchs_muon() -> None:
    shapes = ((16, 8), (8, 16), (8, 8), (8, 8))
    ours = {f"blocks.{i}.weight": p for i, p in enumerate(parameters(*shapes))}
    theirs = torch.optim.Muon(
        parameters(*shapes), lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True
    )
    config = OptimizerConfig(matrix_rate=0.02, matrix_decay=0.1, precision=torch.bfloat16)
    train_both(ours, config, theirs)
    for mine, other in zip(ours.values(), theirs.param_groups[0]["params"], strict=True):
        # Ten steps of 0.02, each rounded to bfloat16 (3 significant digits) at other places.
        assert torch.allclose(mine, other, atol=0.01)


@pytest.mark.parametrize("shape", [(8, 8), (32, 8), (8, 32), (3, 16, 24)])
def test_orthogonalising_brings_every_singular_value_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    values = torch.linalg.svdvals(orthogonalized(matrices, torch.float32))
    assert values.max() < 1.25
    assert values.min() > 0.4
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    overlap = (orthogonalized(matrices, torch.float32) * (u @ v)).sum(dim=(-2, -1))
    assert (overlap / values.shape[-1] > 0.8).all()


def test_a_parameter_without_gradient_is_left_where_it_is() -> None:
    ours = {"blocks.0.weight": parameters((4, 4))[0], "norm.weight": parameters((4,))[0]}
    before = {name: parameter.detach().clone() for name, parameter in ours.items()}
    Optimizer(ours.items(), OptimizerConfig()).step(1.0)
    for name, parameter in ours.items():
        assert torch.equal(parameter, before[name])


def test_rates_rise_stay_and_fall() -> None:
    factors = [rate_factor(step, 20, warmup=4, decay=5, final=0.0) for step in range(20)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5:15] == [1.0] * 10
    assert factors[15:] == pytest.approx([5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert rate_factor(19, 20, warmup=0, decay=19, final=0.5) == pytest.approx(0.525)
    assert rate_factor(0, 1, warmup=0, decay=0, final=0.0) == 1.0
