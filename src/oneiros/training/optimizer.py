"""The optimizer: Muon for the matrices inside the network, AdamW for everything else.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") takes the
momentum of a matrix's gradient and moves by the nearest orthogonal matrix instead: every direction
gets the same step, not only the few that dominate the gradient. It wants a matrix that maps
features to features. Embedding rows are looked up one at a time and norms are vectors: they get
AdamW (Loshchilov & Hutter 2017).

Under FSDP2 a parameter is spread over the processes. AdamW and the momentum work on the parts;
orthogonalising needs the whole matrix, which is gathered for the moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

EPSILON = 1e-8

# A quintic whose iteration drives singular values in (0, 1] to near 1, fast rather than exactly:
# they end between 0.7 and 1.2, which Jordan et al. found to make no difference.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Rates at the schedule's peak, and the rules' constants."""

    matrix_rate: float = 0.02  # Muon
    embedding_rate: float = 3e-3  # AdamW: embedding and output matrix
    vector_rate: float = 3e-3  # AdamW: norms and biases
    matrix_decay: float = 0.0  # decoupled weight decay, times the rate, of matrices
    embedding_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)  # AdamW's first and second moment
    momentum: float = 0.95  # Muon's, in Nesterov's form
    precision: torch.dtype = torch.float32  # of orthogonalising: bfloat16 does on a GPU
    muon: bool = True  # False: all matrices get AdamW at the embedding's rate, as is usual where
    # a trained network is only adjusted


class Optimizer:
    """Updates a network's parameters from their gradients.

    Attributes:
        state: what must be kept to go on: tensors named "PARAMETER.momentum" (Muon) or
            "PARAMETER.first" and "PARAMETER.second" (AdamW), float32 in the parameter's shape.
        updates: how many updates were made.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig):
        """Sort the parameters, as `network.named_parameters()` gives them, into their rules."""
        self.config = config
        self.updates = 0
        self.state: dict[str, Tensor] = {}
        self._matrices: dict[tuple[int, ...], list[str]] = {}  # by shape
        self._embeddings: list[str] = []
        self._vectors: list[str] = []
        self._parameters = dict(parameters)
        for name, parameter in self._parameters.items():
            if config.muon and parameter.ndim == 2 and not is_lookup(name):
                self._matrices.setdefault(tuple(parameter.shape), []).append(name)
                moments = ["momentum"]
            else:
                (self._embeddings if parameter.ndim == 2 else self._vectors).append(name)
                moments = ["first", "second"]
            for moment in moments:
                self.state[f"{name}.{moment}"] = torch.zeros_like(parameter, requires_grad=False)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update every parameter from its gradient; rates are the peak's times `factor`."""
        self.updates += 1
        config = self.config
        for names in self._matrices.values():
            self._muon(names, factor * config.matrix_rate)
        for name in self._embeddings:
            self._adamw(name, factor * config.embedding_rate, config.embedding_decay)
        for name in self._vectors:
            self._adamw(name, factor * config.vector_rate, 0.0)

    def zero_gradients(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def _adamw(self, name: str, rate: float, decay: float) -> None:
        """Adam's step, and decay that does not go through its moments."""
        parameter, gradient = self._parameters[name], _gradient(self._parameters[name])
        first, second = self.state[f"{name}.first"], self.state[f"{name}.second"]
        beta1, beta2 = self.config.betas
        first.lerp_(gradient, 1 - beta1)
        second.lerp_(gradient.square(), 1 - beta2)
        # Moments start at zero: early averages are scaled to what they would be without that.
        mean = 1 - beta1**self.updates
        spread = math.sqrt(1 - beta2**self.updates)
        parameter.mul_(1 - rate * decay)
        parameter.addcdiv_(first, second.sqrt().div_(spread).add_(EPSILON), value=-rate / mean)

    def _muon(self, names: list[str], rate: float) -> None:
        """Muon's step for matrices of one shape, together."""
        momentum = self.config.momentum
        directions = []
        for name in names:
            gradient, average = _gradient(self._parameters[name]), self.state[f"{name}.momentum"]
            average.lerp_(gradient, 1 - momentum)
            direction = whole(gradient.lerp(average, momentum))
            directions.append(direction.to(self.config.precision))
        steps = orthogonalized(torch.stack(directions), self.config.precision)
        rows, columns = steps.shape[-2:]
        # A tall matrix's step is as large, per row's feature, as a square one's.
        rate_of_shape = rate * math.sqrt(max(1.0, rows / columns))
        for name, step in zip(names, steps, strict=True):
            parameter = self._parameters[name]
            parameter.mul_(1 - rate * self.config.matrix_decay)
            parameter.add_(like(step, parameter), alpha=-rate_of_shape)


def is_lookup(name: str) -> bool:
    """Whether a parameter's rows stand for tokens: the embedding, and an output matrix."""
    return name.startswith(("embedding.", "head."))


def orthogonalized(matrices: Tensor, precision: torch.dtype) -> Tensor:
    """About U V^T for each matrix U S V^T: Newton-Schulz iteration (Jordan et al. 2024).

    Args:
        matrices: (..., rows, columns), float32.
        precision: the dtype to iterate in.

    Returns:
        The same shape, in `precision`; singular values lie between about 0.7 and 1.2.
    """
    a, b, c = NEWTON_SCHULZ
    rows, columns = matrices.shape[-2:]
    x: Tensor = matrices.to(precision).reshape(-1, rows, columns)
    if rows > columns:
        x = x.mT.contiguous()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # then no singular value is above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if rows > columns else x).reshape(matrices.shape)


def rate_factor(step: int, steps: int, *, warmup: int, decay: int, final: float) -> float:
    """The learning rate at a step, as a fraction of its peak: up, constant, down.

    The rate rises linearly over `warmup` steps and falls linearly to `final` over the last `decay`
    ones (the trapezoid of Zhai et al. 2022; Hägele et al. 2024). Unlike a cosine, all but the last
    part is the same for every length of run, so that a run can be prolonged.
    """
    rising = (step + 1) / (warmup + 1)
    falling = final + (1 - final) * (steps - step) / (decay + 1)
    return min(1.0, rising, falling)


# --- tensors that may be spread over processes (FSDP2) ----------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from the processes that hold parts of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor, the same on every process, spread as `pattern` is."""
    if not isinstance(pattern, DTensor):
        return tensor
    mesh = pattern.device_mesh
    everywhere = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=pattern.placements)


@torch.no_grad()
def copy_whole(target: Tensor, source: Tensor) -> None:
    """Write a whole tensor into one that may be spread."""
    target.copy_(like(source.to(target.device), target))


def _gradient(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter) if gradient is None else gradient
