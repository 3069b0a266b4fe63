"""Adapters: small changes of a model's matrices that are kept beside it (LoRA, Hu et al. 2021).

Beside a matrix W stands the product of two thin ones: y = W x + scale B A x, with A of r rows and
B of r columns. They are stored as PEFT does, in a folder with `adapter_config.json` and
`adapter_model.safetensors`; what those ask for beyond this is refused by name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, UnsupportedModelError, quoted
from oneiros.model.architecture import Architecture, tensor_shapes
from oneiros.model.convert import row_order
from oneiros.model.huggingface import canonical_name, folder_name
from oneiros.model.hyperparameters import Hyperparameters
from oneiros.model.json_text import read_object
from oneiros.model.parameters import Parameters
from oneiros.model.safetensors import read_safetensors
from oneiros.model.tensor import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""PEFT's names of the matrices of a layer, all of which may have an adapter."""

LARGEST_RANK = 256
"""The highest rank that the engine runs."""

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")

# Settings that are read here, or that say nothing of what an adapter computes once it is trained.
# Any other one must say that it is off: what it means may be another computation.
_ALLOWED = {
    "peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform",
    "exclude_modules", "task_type", "auto_mapping", "peft_version",
    "base_model_name_or_path", "revision", "inference_mode", "lora_dropout",
    "layers_pattern", "megatron_config", "megatron_core", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
}  # fmt: skip
_OFF: tuple[object, ...] = (None, False, "none", [], {})
# Ways to begin that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ) change it.
_PLAIN_BEGINNINGS: tuple[object, ...] = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """What an adapter's folder says; nothing of its matrices has been read."""

    path: Path
    rank: int
    alpha: float  # the product counts alpha / rank times
    targets: tuple[str, ...] | None  # of which each layer has all; None: a part, or not said
    pairs: Mapping[str, tuple[Tensor, Tensor]]  # PEFT's name of a matrix -> (A, B)


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a matrix (features out, features in): b @ a."""

    a: NDArray[np.float32]  # (rank, features in)
    b: NDArray[np.float32]  # (features out, rank), scale included; rows as the base has them


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits a model."""

    name: str  # of its folder
    rank: int
    matrices: Mapping[str, LowRank]  # by the model's names: blk.0.attn_q.weight
    sha256: str  # of all that is computed with


def adapter_settings(path: Path) -> dict[str, object]:
    """An adapter's configuration.

    Raises:
        ModelFileError: the folder holds no adapter, or a damaged one.
    """
    if not (path / CONFIG).is_file():
        raise ModelFileError(f"{path}: holds no adapter (there is no {CONFIG}).")
    return read_object(path / CONFIG)


def read_adapter(path: Path) -> AdapterFolder:
    """Open an adapter's folder: ours, or one that PEFT wrote.

    Raises:
        ModelFileError: the folder holds no adapter, or a damaged one.
        UnsupportedModelError: it is of another kind than plain LoRA; says which setting it is.
    """
    values = adapter_settings(path)
    settings = Hyperparameters(str(path / CONFIG), values)
    _check_kind(path, values)
    rank = settings.integer("r")
    alpha = settings.positive("lora_alpha")
    if settings.flag("use_rslora", default=False):
        alpha *= math.sqrt(rank)  # its product counts alpha / sqrt(r) times (Kalajdzievski 2023)
    return AdapterFolder(path, rank, alpha, _targets(path, values), _pairs(path))


def open_adapter(path: Path, parameters: Parameters) -> Adapter:
    """Read an adapter for a model.

    Raises:
        ModelFileError: the folder holds no adapter, a damaged one, or one of another model.
        UnsupportedModelError: as `read_adapter`, or it changes more than the layers' matrices.
    """
    folder = read_adapter(path)
    if folder.rank > LARGEST_RANK:
        raise UnsupportedModelError(
            f"{path / CONFIG}: an adapter of rank {folder.rank:,}; the engine runs up to "
            f"{LARGEST_RANK}. `oneiros train merge` merges it with its model."
        )
    architecture = parameters.architecture
    shapes = dict(tensor_shapes(architecture))
    matrices = {}
    digest = hashlib.sha256()
    for place, (a, b) in sorted(folder.pairs.items()):
        name = matrix_name(folder, place)
        if name not in shapes:
            raise ModelFileError(
                f"{path / WEIGHTS}: {place} has no place in {parameters.path.name}, which has "
                f"{architecture.layers} layers: the adapter belongs to another model."
            )
        rows, columns = shapes[name]
        check_shape(folder, place, a, b, rows, columns)
        scaled = _values(path, b, folder.alpha / folder.rank)
        low = LowRank(_values(path, a), _in_rows_of(architecture, name, scaled))
        matrices[name] = low
        digest.update(f"{name} {low.a.shape} {low.b.shape}\n".encode())
        digest.update(np.ascontiguousarray(low.a).data)
        digest.update(np.ascontiguousarray(low.b).data)
    check_complete(folder, architecture.layers)
    return Adapter(path.resolve().name, folder.rank, matrices, digest.hexdigest())


def matrix_name(folder: AdapterFolder, place: str) -> str:
    """The model's name of a matrix that PEFT calls `place`.

    Raises:
        UnsupportedModelError: it is none of a layer's seven.
    """
    name = canonical_name(f"{place}.weight")
    if name is None or place.rpartition(".")[2] not in TARGETS:
        raise UnsupportedModelError(
            f"{folder.path / WEIGHTS}: {quoted(place)} has an adapter, and only those of "
            f"{', '.join(TARGETS)} are supported."
        )
    return name


def check_shape(
    folder: AdapterFolder, place: str, a: Tensor, b: Tensor, rows: int, columns: int
) -> None:
    """Raise ModelFileError where A and B do not stand beside a matrix of `rows` x `columns`."""
    rank = folder.rank
    for letter, tensor, shape in (("A", a, (rank, columns)), ("B", b, (rows, rank))):
        if tensor.shape != shape:
            raise ModelFileError(
                f"{folder.path / WEIGHTS}: {place}.lora_{letter} has the shape {tensor.shape}, and "
                f"rank {rank} beside the model's matrix needs {shape}: the adapter belongs to "
                "another model."
            )


def check_complete(folder: AdapterFolder, layers: int) -> None:
    """Raise ModelFileError where a matrix has no adapter that should have one."""
    for layer in range(layers):
        for place in _places(layer) if folder.targets is not None else ():
            wanted = any(place == t or place.endswith(f".{t}") for t in folder.targets or ())
            if wanted and place not in folder.pairs:
                raise ModelFileError(
                    f"{folder.path / WEIGHTS}: {place}.lora_A is not there: the file is "
                    "incomplete, or the adapter belongs to another model."
                )


def _places(layer: int) -> Iterator[str]:
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        yield folder_name(f"blk.{layer}.{name}.weight").removesuffix(".weight")


def _check_kind(path: Path, values: Mapping[str, object]) -> None:
    if values.get("peft_type") != "LORA":
        raise UnsupportedModelError(
            f"{path / CONFIG}: peft_type is {_shown(values.get('peft_type'))}: only plain LoRA is "
            "supported."
        )
    for name, value in values.items():
        plain = _PLAIN_BEGINNINGS if name == "init_lora_weights" else _OFF
        if name not in _ALLOWED and value not in plain:
            raise UnsupportedModelError(
                f"{path / CONFIG}: {name[:100]} is {_shown(value)}: only plain LoRA is supported."
            )


def _targets(path: Path, values: Mapping[str, object]) -> tuple[str, ...] | None:
    targets = values.get("target_modules")
    if not isinstance(targets, list):
        return None  # a pattern, which other people's files do not get to run here
    for target in targets:
        if not isinstance(target, str) or target.rpartition(".")[2] not in TARGETS:
            raise UnsupportedModelError(
                f"{path / CONFIG}: target_modules names {_shown(target)}: only adapters of "
                f"{', '.join(TARGETS)} are supported."
            )
    parts = values.get("layers_to_transform"), values.get("exclude_modules")
    return tuple(targets) if parts == (None, None) else None


def _pairs(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    file = read_safetensors(path / WEIGHTS)
    for name, dtype in file.others.items():
        raise UnsupportedModelError(
            f"{path / WEIGHTS}: tensor {quoted(name)} is stored as {dtype}, which is not read."
        )
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in file.tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise UnsupportedModelError(
                f"{path / WEIGHTS}: tensor {quoted(name)} is no part of a plain LoRA adapter."
            )
        place, letter = match.groups()
        if letter in halves.setdefault(place, {}):
            raise ModelFileError(f"{path / WEIGHTS}: {quoted(place)}.lora_{letter} is there twice.")
        halves[place][letter] = tensor
    if not halves:
        raise ModelFileError(f"{path / WEIGHTS}: holds no tensor.")
    for place, found in halves.items():
        for letter in "AB":
            if letter not in found:
                raise ModelFileError(f"{path / WEIGHTS}: {quoted(place)}.lora_{letter} is missing.")
    return {place: (found["A"], found["B"]) for place, found in halves.items()}


def _values(path: Path, tensor: Tensor, scale: float = 1.0) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = tensor.float32() * np.float32(scale)  # a copy: the file may change
    if not np.isfinite(values).all():
        raise ModelFileError(
            f"{path / WEIGHTS}: tensor {quoted(tensor.name)} holds a value that is no number."
        )
    return values


def _in_rows_of(
    architecture: Architecture, name: str, b: NDArray[np.float32]
) -> NDArray[np.float32]:
    """B with its rows in the order of the model's q and k."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return b
    stored = replace(architecture, rope_interleaved=False)
    order = row_order(b.shape[0], stored, architecture.rope_interleaved)
    return b if order is None else b[order]


def _shown(value: object) -> str:
    return repr(value)[:100]
