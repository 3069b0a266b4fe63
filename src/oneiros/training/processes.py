"""The processes and devices that a run is computed on.

Alone, a run has one process and one device. Started by `torchrun`, every process holds its part
of each parameter, of its gradient and of the optimizer's state (FSDP2: `fully_shard`), and
computes its rows of each batch.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from oneiros.errors import TrainingError

# Of glibc's malloc.h: when the heap's end is returned; how many blocks are mapped apart from it.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that share a run."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sums of each value over all processes, in float64."""
        if self.count == 1:
            return [*values]
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(totals)
        return totals.tolist()

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            dist.barrier()


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name; without one, a CUDA GPU if there is one, else the CPU.

    Raises:
        TrainingError: there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"There is no device {name!r} to train on: {reason}") from error
    return device


def use_threads(count: int | None) -> None:
    """Compute with this many threads on the CPU; None: as many as there are cores."""
    if count is not None:
        torch.set_num_threads(count)


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for what is allocated next, until the process ends.

    PyTorch keeps none on the CPU, and glibc returns large blocks to the system: every step would
    have its memory given and cleared anew, page by page. Other C libraries stay as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """This process among those that `torchrun` started, or alone.

    GPUs talk through NCCL, CPUs through Gloo.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(device, dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def spread(network: nn.Module, layers: nn.ModuleList, processes: Processes) -> None:
    """Spread a network's parameters over the processes, layer by layer.

    While one layer is computed the next one is gathered, so that no process ever holds them all.
    """
    if processes.count == 1:
        return
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
