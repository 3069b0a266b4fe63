"""What a parameter file holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from oneiros.model.architecture import Architecture
from oneiros.model.parameters import Parameters
from oneiros.model.tensor import Tensor
from oneiros.model.tensor_types import TensorType


@dataclass(frozen=True, slots=True)
class TypeTotal:
    """All tensors of one storage format."""

    type: TensorType
    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """A summary of a model's parameters, without reading them."""

    path: Path
    format: str  # "GGUF" or "Hugging Face folder"
    name: str | None  # as the file names itself
    architecture: Architecture
    tensors: tuple[Tensor, ...]  # in file order
    totals: tuple[TypeTotal, ...]  # the most bytes first
    elements: int  # the model's number of parameters
    file_bytes: int


def inspect_parameters(parameters: Parameters) -> Inspection:
    """Summarise an open parameter file or folder."""
    totals: dict[TensorType, TypeTotal] = {}
    for tensor in parameters.tensors.values():
        before = totals.get(tensor.type, TypeTotal(tensor.type, 0, 0, 0))
        totals[tensor.type] = TypeTotal(
            tensor.type,
            before.tensors + 1,
            before.elements + math.prod(tensor.shape),
            before.bytes + tensor.data.nbytes,
        )
    folder = parameters.path.is_dir()
    name = parameters.metadata.get("_name_or_path" if folder else "general.name")
    return Inspection(
        path=parameters.path,
        format="Hugging Face folder" if folder else "GGUF",
        name=name if isinstance(name, str) and name else None,
        architecture=parameters.architecture,
        tensors=tuple(parameters.tensors.values()),
        totals=tuple(sorted(totals.values(), key=lambda total: -total.bytes)),
        elements=sum(total.elements for total in totals.values()),
        file_bytes=parameters.file_bytes,
    )
