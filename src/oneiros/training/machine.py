"""What is worth doing on a device: compiling the network, matrix products of bfloat16."""

from __future__ import annotations

import functools
import os
import shutil
from typing import cast

import torch

from oneiros.training.network import Network, call
from oneiros.training.processes import Processes
from oneiros.training.step import Forward

LONG_RUN = 2e14
"""Floating-point operations that take a CPU of two cores five to fifteen minutes."""


def pays_to_compile(processes: Processes, work: float) -> bool:
    """Whether compiling the network takes less time than it saves.

    On a GPU it does. On a CPU it needs a C++ compiler and a minute or two.

    Args:
        processes: those that share the run.
        work: floating-point operations of the run.
    """
    if processes.device.type != "cpu":
        return processes.device.type == "cuda"
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    return compiler is not None and processes.count == 1 and work >= LONG_RUN


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for matrix products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def compiled(network: Network, processes: Processes) -> Forward:
    """The network, compiled by PyTorch when it is first called."""
    if processes.device.type == "cpu" and processes.count == 1:
        # One block, which serves them all: compiling C++ takes a while, the whole network minutes.
        return functools.partial(network, call=torch.compile(call, dynamic=False))
    return cast(Forward, torch.compile(network, dynamic=False))
