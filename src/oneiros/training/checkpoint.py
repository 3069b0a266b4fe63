"""Checkpoints: all that a run needs to go on as if it had never stopped.

A checkpoint is one safetensors file: the parameters ("network.NAME"), the optimizer's state
("optimizer.NAME.momentum", ...), and in its metadata the step and what the run is of. It is
written under another name, synced and renamed, so that a crash, a full disk or a lost power supply
leaves the last one whole. The data needs no state: batches follow from the step.

Tensors are saved whole, whatever the number of processes; a run may go on with another number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from oneiros.errors import ModelFileError, TrainingError
from oneiros.model.safetensors import read_safetensors, write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from oneiros.training.optimizer import Optimizer, copy_whole, whole
from oneiros.training.processes import Processes

KEPT = 2
"""Checkpoints that stay: the last one, and one more in case the last one's numbers are bad."""

_KEY = "oneiros.pretrain"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int  # the next one to be computed
    seconds: float  # of computing so far
    data: str  # the fingerprint of the shards


def checkpoint_path(folder: Path, step: int) -> Path:
    """The file of the checkpoint that was made before `step`."""
    return folder / f"step-{step:07d}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the latest one last."""
    return sorted(folder.glob("step-*.safetensors"))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left behind: files that never got their name."""
    for file in folder.glob(".step-*"):
        file.unlink()


def save_checkpoint(
    folder: Path, network: nn.Module, optimizer: Optimizer, progress: Progress, processes: Processes
) -> None:
    """Write a checkpoint and remove those that are no longer kept. All processes call this.

    Raises:
        ModelFileError: it cannot be written; earlier checkpoints are untouched.
    """
    tensors = [(f"network.{name}", whole(p.detach())) for name, p in _learned(network)]
    tensors += [(f"optimizer.{name}", whole(state)) for name, state in optimizer.state.items()]
    if processes.first:
        folder.mkdir(parents=True, exist_ok=True)
        state = asdict(progress) | {"updates": optimizer.updates}
        write_safetensors(
            checkpoint_path(folder, progress.step),
            [_pending(name, tensor) for name, tensor in tensors],
            {_KEY: json.dumps(state)},
        )
        for old in checkpoints(folder)[:-KEPT]:
            old.unlink()
    processes.wait()


def load_checkpoint(path: Path, network: nn.Module, optimizer: Optimizer) -> Progress:
    """Put parameters and optimizer back to where they were.

    Raises:
        ModelFileError: the file is damaged.
        TrainingError: it belongs to another network.
    """
    file = read_safetensors(path)
    expected: dict[str, Tensor] = {f"network.{name}": p for name, p in _learned(network)}
    expected |= {f"optimizer.{name}": state for name, state in optimizer.state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if {name: tensor.shape for name, tensor in file.tensors.items()} != shapes:
        raise TrainingError(f"{path}: is the checkpoint of another network.")
    for name, target in expected.items():
        copy_whole(target, torch.from_numpy(file.tensors[name].float32()))
    try:
        state = json.loads(file.metadata[_KEY])
        optimizer.updates = state.pop("updates")
        return Progress(**state)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: is no checkpoint of a run ({error}).") from error


def _learned(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that training changes; frozen ones are in the file that they came from."""
    return ((name, p) for name, p in network.named_parameters() if p.requires_grad)


def _pending(name: str, tensor: Tensor) -> PendingTensor:
    array = tensor.to("cpu", torch.float32).contiguous().numpy()
    return PendingTensor.encoded(name, array, TensorType.F32)
