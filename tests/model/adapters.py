"""Adapters of random numbers, written as PEFT writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.model.adapter import CONFIG, TARGETS, WEIGHTS
from oneiros.model.architecture import Architecture, tensor_shapes
from oneiros.model.huggingface import folder_name
from oneiros.model.safetensors import write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType

Values = NDArray[np.float32]


def write_adapter(
    path: Path,
    architecture: Architecture,
    *,
    rank: int = 4,
    alpha: float = 6.0,
    targets: Iterable[str] = TARGETS,
    size: float = 0.05,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    tensors: Mapping[str, Values | None] | None = None,
) -> Path:
    """Write an adapter's folder.

    Args:
        path: a folder that does not exist yet.
        architecture: the model's.
        rank: of every matrix.
        alpha: lora_alpha.
        targets: which matrices of each layer have one.
        size: of the numbers in B; 0 changes nothing.
        seed: of the random numbers.
        settings: to add to the configuration or to replace in it.
        tensors: to add or to replace, by their whole names; None takes one out.
    """
    generator = np.random.default_rng(seed)
    targets = sorted(targets)
    values: dict[str, Values | None] = {}
    for name, shape in tensor_shapes(architecture):
        if not name.startswith("blk.") or len(shape) != 2:
            continue
        place = folder_name(name).removesuffix(".weight")
        if place.rpartition(".")[2] in targets:
            a = generator.standard_normal((rank, shape[1]), np.float32) / np.sqrt(shape[1])
            b = generator.standard_normal((shape[0], rank), np.float32) * size
            values[f"base_model.model.{place}.lora_A.weight"] = a.astype(np.float32)
            values[f"base_model.model.{place}.lora_B.weight"] = b.astype(np.float32)
    values |= tensors or {}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "somewhere",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": targets,
        "bias": "none",
        "use_dora": False,
        "rank_pattern": {},
        "init_lora_weights": True,
    }
    path.mkdir()
    (path / CONFIG).write_text(json.dumps(config | dict(settings or {})))
    stored = [
        PendingTensor.encoded(name, array, TensorType.F32)
        for name, array in values.items()
        if array is not None
    ]
    write_safetensors(path / WEIGHTS, stored, {"format": "pt"})
    return path
