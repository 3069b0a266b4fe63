"""LoRA: fine-tuning a network through small matrices beside its own (Hu et al. 2021).

Beside a frozen matrix W stands the product of two thin ones: y = W x + (alpha / r) B A x, with A
of r rows and B of r columns. B begins at zero, so that the network begins as it was. Only A and B
are trained and kept; `merge` adds their product to W, and what remains is an ordinary network.

Adapters are stored as PEFT does: `adapter_model.safetensors` and `adapter_config.json`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from oneiros.errors import ModelFileError, TrainingError, quoted
from oneiros.model.adapter import CONFIG, WEIGHTS, adapter_settings, check_shape, read_adapter
from oneiros.model.convert import write_json
from oneiros.model.huggingface import folder_name
from oneiros.model.replacement import refuse_existing, replacing_folder
from oneiros.model.safetensors import write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from oneiros.training.network import Network
from oneiros.training.weights import DTYPES, canonical_name, load_model, save_folder

# PEFT's name of a matrix -> ours, inside a block.
TARGETS = {
    "q_proj": "attention.q",
    "k_proj": "attention.k",
    "v_proj": "attention.v",
    "o_proj": "attention.output",
    "gate_proj": "feed_forward.gate",
    "up_proj": "feed_forward.up",
    "down_proj": "feed_forward.down",
}


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """The form of an adapter."""

    rank: int  # r: rows of A, columns of B
    alpha: float  # the product counts alpha / r times
    targets: tuple[str, ...] = tuple(TARGETS)  # which matrices of each block; keys of TARGETS

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            TrainingError: says which is out of range.
        """
        if self.rank < 1:
            raise TrainingError(f"An adapter's rank is {self.rank}: at least 1.")
        if not 0 < self.alpha < math.inf:
            raise TrainingError(f"An adapter's alpha is {self.alpha}, and must be above 0.")
        unknown = set(self.targets) - TARGETS.keys()
        if unknown or not self.targets:
            raise TrainingError(
                f"An adapter's targets are among {', '.join(TARGETS)}; "
                f"there is no {', '.join(sorted(unknown)) or 'adapter without one'}."
            )


class AdaptedLinear(nn.Module):
    """A frozen matrix with an adapter beside it."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        """`a` is (rank, features in), `b` (features out, rank), both float32 and zero."""
        super().__init__()
        self.linear = linear
        self.scale = scale
        device = linear.weight.device
        self.a = nn.Parameter(torch.zeros(rank, linear.in_features, device=device))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., features in) -> (..., features out)."""
        low = self.scale * functional.linear(x, self.a)
        return cast(Tensor, self.linear(x) + functional.linear(low, self.b))

    def merged(self) -> nn.Linear:
        """The matrix with the product added to it."""
        with torch.no_grad():
            self.linear.weight += self.scale * (self.b @ self.a)
        return self.linear


def adapt(network: Network, config: LoraConfig, seed: int = 0) -> None:
    """Freeze a network and put adapters beside its matrices; its logits stay what they are.

    A gets random numbers of the size that PyTorch gives to linear layers, which depend on the
    seed alone; B is zero.
    """
    random = torch.Generator().manual_seed(seed)
    network.requires_grad_(False)
    for index in range(len(network.blocks)):
        for target in TARGETS:
            if target in config.targets:
                name = f"blocks.{index}.{TARGETS[target]}"
                linear = cast(nn.Linear, network.get_submodule(name))
                adapted = AdaptedLinear(linear, config.rank, config.alpha / config.rank)
                bound = linear.in_features**-0.5
                values = torch.rand(adapted.a.shape, generator=random) * 2 - 1
                with torch.no_grad():
                    adapted.a.copy_(values * bound)
                network.set_submodule(name, adapted)


def merge(network: Network) -> None:
    """Add every adapter to its matrix, and take it away."""
    for name, adapted in [*adapters(network)]:
        network.set_submodule(name, adapted.merged())
    network.requires_grad_(True)


def adapters(network: Network) -> Iterator[tuple[str, AdaptedLinear]]:
    """The adapters of a network by the names of their places."""
    for name, module in network.named_modules():
        if isinstance(module, AdaptedLinear):
            yield name, module


def save_adapter(network: Network, config: LoraConfig, path: Path, *, base: str) -> None:
    """Write a network's adapters as a folder that PEFT loads, which appears when it is whole.

    Args:
        network: after `adapt`.
        config: that it was adapted with.
        path: a folder that does not exist, or is empty.
        base: what to call the model that the adapters belong to: its path or name.

    Raises:
        ModelFileError: `path` holds something already, or cannot be written.
    """
    refuse_existing(path)
    tensors = []
    for name, adapted in adapters(network):
        stored = folder_name(canonical_name(f"{name}.weight")).removesuffix(".weight")
        for letter, values in (("A", adapted.a), ("B", adapted.b)):
            array = values.detach().float().cpu().contiguous().numpy()
            full_name = f"base_model.model.{stored}.lora_{letter}.weight"
            tensors.append(PendingTensor.encoded(full_name, array, TensorType.F32))
    settings: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": [*config.targets],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(path) as folder:
        write_json(folder / CONFIG, settings)
        write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})


def base_of(path: Path) -> str:
    """What an adapter calls the model that it belongs to.

    Raises:
        ModelFileError: the folder holds no adapter, or it does not say.
    """
    base = adapter_settings(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelFileError(f"{path / CONFIG}: does not say which model the adapter is for.")
    return base


def load_adapter(network: Network, path: Path) -> None:
    """Put the adapters of a folder beside a network's matrices: ours, or those that PEFT wrote.

    Raises:
        ModelFileError: the folder holds no adapter, a damaged one, or one of another network.
        UnsupportedModelError: it is of another kind than plain LoRA.
    """
    folder = read_adapter(path)
    stored = dict(folder.pairs)
    parts = {place.rpartition(".")[2] for place in stored}
    targets = tuple(name for name in TARGETS if name in parts)
    adapt(network, LoraConfig(folder.rank, folder.alpha, targets))
    for name, adapted in adapters(network):
        place = folder_name(canonical_name(f"{name}.weight")).removesuffix(".weight")
        pair = stored.pop(place, None)
        if pair is None:
            raise ModelFileError(
                f"{path / WEIGHTS}: {place}.lora_A is not there, and the network has such a "
                "matrix: the adapter belongs to another model."
            )
        check_shape(folder, place, *pair, *adapted.linear.weight.shape)
        with torch.no_grad():
            for parameter, values in zip((adapted.a, adapted.b), pair, strict=True):
                parameter.copy_(torch.from_numpy(values.float32().copy()))
    if stored:
        raise ModelFileError(
            f"{path / WEIGHTS}: {quoted(next(iter(stored)))} has no place in the network."
        )


def merge_folder(base: Path, adapter: Path, path: Path, *, dtype: str = "float32") -> int:
    """Write a model with its adapters merged as a Hugging Face folder.

    Args:
        base: the model: a GGUF file, which is dequantised, or a Hugging Face folder.
        adapter: the adapters' folder.
        path: a folder that does not exist, or is empty.
        dtype: of the weights: one of `weights.DTYPES`.

    Returns:
        How many matrices were changed.

    Raises:
        TrainingError: the adapters are of another model, or there is no such dtype.
        ModelFileError: something cannot be read or written.
    """
    if dtype not in DTYPES:
        raise TrainingError(f"There is no dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    refuse_existing(path)
    network = load_model(base)
    load_adapter(network, adapter)
    changed = len([*adapters(network)])
    merge(network)
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    save_folder(network, path, tokenizer=base, dtype=dtype)
    return changed
