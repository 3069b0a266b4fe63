"""Converting between GGUF files and Hugging Face folders, and between storage formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import (
    Architecture,
    RopeScaling,
    base_frequencies,
    scaling_factors,
)
from oneiros.model.chat_format import stored_template
from oneiros.model.gguf_architecture import gguf_metadata
from oneiros.model.gguf_writer import write_gguf
from oneiros.model.huggingface import CONFIG, WEIGHTS, folder_name
from oneiros.model.huggingface_config import config_from_architecture
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.quantization import dequantize, quantize
from oneiros.model.replacement import replacing_folder
from oneiros.model.safetensors import write_safetensors
from oneiros.model.tensor import PendingTensor, Tensor
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import load_tokenizer
from oneiros.model.tokenizer_files import folder_tokenizer, gguf_tokenizer

# Storage format -> the number that llama.cpp's `general.file_type` has for a file of it.
GGUF_TYPES = {
    TensorType.F32: 0,
    TensorType.F16: 1,
    TensorType.Q4_0: 2,
    TensorType.Q4_1: 3,
    TensorType.Q8_0: 7,
    TensorType.BF16: 32,
}
FOLDER_TYPES = {
    TensorType.F32: "float32",
    TensorType.F16: "float16",
    TensorType.BF16: "bfloat16",
}

Progress = Callable[[int, int], None]  # bytes of tensor data written so far, and in all

# Rows are converted in pieces of about this many elements, whatever the size of a tensor.
_PIECE_ELEMENTS = 1 << 22

_ROPE_FACTORS = "rope_freqs.weight"
_MATRICES_AT_THE_ENDS = ("token_embd.weight", "output.weight")
_FOUR_BITS = (TensorType.Q4_0, TensorType.Q4_1)

# Files of a folder that are not weights, taken over as they are.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def convert(
    source: Path,
    destination: Path,
    *,
    tensor_type: TensorType | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a model in another form, with its tokenizer and chat template.

    Tensors are converted piece by piece; the destination appears when it is whole. In a GGUF file
    norms and biases are F32, rows that do not divide into blocks are F16, and the first and the
    last matrix of a four-bit file are Q8_0, which costs little and keeps much.

    Args:
        source: a GGUF file or a Hugging Face folder.
        destination: a GGUF file if its name ends in ".gguf", else a folder. It must not exist
            (an empty folder may).
        tensor_type: of the matrices: one of `GGUF_TYPES` or `FOLDER_TYPES`. Left out, they stay
            as they are, and what a folder cannot hold becomes F16.
        name: what a GGUF file that is made from a folder calls the model; default: the folder's.
        progress: called after every piece.

    Raises:
        ModelFileError: the source is damaged, the destination exists or cannot be written, the
            format cannot hold `tensor_type`, or a value does not fit it.
        UnsupportedModelError: the engine does not run the model, or the destination's format
            cannot express it.
    """
    destination = destination.absolute()
    to_gguf = destination.suffix.lower() == ".gguf"
    types: Mapping[TensorType, object] = GGUF_TYPES if to_gguf else FOLDER_TYPES
    if tensor_type is not None and tensor_type not in types:
        kind = "A GGUF file" if to_gguf else "A Hugging Face folder"
        raise ModelFileError(
            f"{kind} is not written as {tensor_type.name}; "
            f"choose one of {', '.join(known.name.lower() for known in types)}."
        )
    if destination.exists() and not _is_empty_folder(destination, to_gguf):
        raise ModelFileError(f"{destination}: exists already. Choose another name or remove it.")
    if not destination.parent.is_dir():
        raise ModelFileError(f"{destination.parent}: no such folder to write into.")
    parameters = open_parameters(source)
    if to_gguf:
        _write_file(parameters, destination, tensor_type, name, progress)
    else:
        _write_folder(parameters, destination, tensor_type, progress)


def _is_empty_folder(path: Path, to_gguf: bool) -> bool:
    return path.is_dir() and not to_gguf and not any(path.iterdir())


def _write_file(
    parameters: Parameters,
    destination: Path,
    tensor_type: TensorType | None,
    name: str | None,
    progress: Progress | None,
) -> None:
    architecture = parameters.architecture
    tensors = [
        _converted(
            tensor,
            architecture,
            architecture.name == "llama",
            _file_type(tensor, tensor_type),
        )
        for tensor in parameters.tensors.values()
    ]
    if parameters.path.is_dir():
        metadata = _file_metadata(parameters, name or parameters.path.absolute().name)
        scaling = architecture.rope_scaling
        if scaling is not None and scaling.kind == "llama3":
            factors = scaling_factors(scaling, base_frequencies(architecture)).astype(np.float32)
            tensors.insert(0, PendingTensor.encoded(_ROPE_FACTORS, factors, TensorType.F32))
    else:
        metadata = dict(parameters.metadata)
    if tensor_type is not None or parameters.path.is_dir():
        matrix_type = _commonest_type(tensors) if tensor_type is None else tensor_type
        metadata["general.file_type"] = GGUF_TYPES[matrix_type]
    metadata["general.quantization_version"] = 2
    write_gguf(destination, metadata, tensors, progress=progress)


def _file_metadata(parameters: Parameters, name: str) -> dict[str, object]:
    vocabulary = load_tokenizer(parameters).vocabulary
    rows = parameters.architecture.vocabulary
    return (
        gguf_metadata(parameters.architecture)
        | {"general.type": "model", "general.name": name}
        | gguf_tokenizer(vocabulary, rows, stored_template(parameters))
    )


def _write_folder(
    parameters: Parameters,
    destination: Path,
    tensor_type: TensorType | None,
    progress: Progress | None,
) -> None:
    architecture = folder_architecture(parameters)
    tensors = [
        _converted(tensor, parameters.architecture, False, _folder_type(tensor, tensor_type))
        for name, tensor in parameters.tensors.items()
        if name != _ROPE_FACTORS
    ]
    dtype = FOLDER_TYPES[_commonest_type(tensors) if tensor_type is None else tensor_type]
    named = [
        PendingTensor(folder_name(tensor.name), tensor.type, tensor.shape, tensor.pieces)
        for tensor in tensors
    ]
    with replacing_folder(destination) as folder:
        if parameters.path.is_dir():
            for name in COMPANIONS:
                if (parameters.path / name).is_file():
                    shutil.copyfile(parameters.path / name, folder / name)
            write_json(folder / CONFIG, _retyped(parameters.metadata, dtype))
        else:
            template = parameters.metadata.get("tokenizer.chat_template")
            vocabulary = load_tokenizer(parameters).vocabulary
            files = folder_tokenizer(vocabulary, template if isinstance(template, str) else None)
            config = config_from_architecture(architecture, dtype)
            config |= files["generation_config.json"]
            for name, content in (files | {CONFIG: config}).items():
                write_json(folder / name, content)
        write_safetensors(folder / WEIGHTS, named, {"format": "pt"}, progress=progress)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file as folders have it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _retyped(config: Mapping[str, object], dtype: str) -> dict[str, object]:
    key = "dtype" if "dtype" in config else "torch_dtype"
    return dict(config) | {key: dtype}


# --- types ------------------------------------------------------------------------------------


def _file_type(tensor: Tensor, wanted: TensorType | None) -> TensorType:
    if len(tensor.shape) == 1:
        return TensorType.F32
    if wanted is None:
        return tensor.type
    if wanted in _FOUR_BITS and tensor.name in _MATRICES_AT_THE_ENDS:
        wanted = TensorType.Q8_0
    return wanted if tensor.shape[-1] % wanted.block_size == 0 else TensorType.F16


def _folder_type(tensor: Tensor, wanted: TensorType | None) -> TensorType:
    if wanted is None:
        return TensorType.F16 if tensor.type.quantized else tensor.type
    keeps = len(tensor.shape) == 1 and not tensor.type.quantized
    return tensor.type if keeps else wanted


def _commonest_type(tensors: list[PendingTensor]) -> TensorType:
    """The type that takes the most bytes."""
    sizes: dict[TensorType, int] = {}
    for tensor in tensors:
        sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.size
    return max(sizes, key=lambda tensor_type: sizes[tensor_type])


# --- tensors ----------------------------------------------------------------------------------


def _converted(
    tensor: Tensor, architecture: Architecture, interleaved: bool, tensor_type: TensorType
) -> PendingTensor:
    """A tensor in another type, and q and k with their rows in the order that is wanted."""
    order = None
    if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
        order = row_order(tensor.shape[0], architecture, interleaved)

    def pieces() -> Iterator[NDArray[np.uint8]]:
        try:
            yield from _pieces(tensor, tensor_type, order)
        except ValueError as error:
            raise ModelFileError(
                f'Tensor "{tensor.name}" cannot be stored as {tensor_type.name}: {error}. '
                "bf16 and f32 hold every value."
            ) from error

    return PendingTensor(tensor.name, tensor_type, tensor.shape, pieces)


def row_order(rows: int, architecture: Architecture, interleaved: bool) -> NDArray[np.intp] | None:
    """For each row of q or k in the other layout of rotated pairs, the row that it is now.

    Pair i of a head is its features (2 i, 2 i + 1) in the interleaved layout, and (i, i + half)
    in the other one. None where the layout stays.
    """
    if interleaved == architecture.rope_interleaved:
        return None
    half = architecture.head_dim // 2
    pairs = (-1, 2, half) if interleaved else (-1, half, 2)
    return np.arange(rows).reshape(pairs).swapaxes(1, 2).reshape(-1)


def _pieces(
    tensor: Tensor, tensor_type: TensorType, order: NDArray[np.intp] | None
) -> Iterator[NDArray[np.uint8]]:
    if len(tensor.shape) == 1:
        values = tensor.float32()
        yield quantize(values if order is None else values[order], tensor_type)
        return
    count, columns = tensor.shape
    rows = tensor.data.reshape(count, -1)
    step = max(1, _PIECE_ELEMENTS // columns)
    for start in range(0, count, step):
        stop = min(start + step, count)
        piece = (rows[start:stop] if order is None else rows[order[start:stop]]).reshape(-1)
        if tensor_type is tensor.type:
            yield piece
        else:
            values = dequantize(piece, tensor.type).reshape(stop - start, columns)
            yield quantize(values, tensor_type)


# --- tokenizer and rotary scaling ------------------------------------------------------------


def folder_architecture(parameters: Parameters) -> Architecture:
    """The architecture with frequency divisors, if a GGUF file has them, as a named scaling.

    Raises:
        UnsupportedModelError: there is no name for what they do.
    """
    architecture = parameters.architecture
    tensor = parameters.tensors.get(_ROPE_FACTORS)
    if tensor is None:
        return architecture
    factors = tensor.float32()
    scaling = _named_scaling(architecture, factors)
    if scaling is None and not np.allclose(factors, 1):
        raise UnsupportedModelError(
            f'{parameters.path.name}: tensor "{_ROPE_FACTORS}" scales the rotary frequencies in '
            "a way that config.json has no name for."
        )
    return replace(architecture, rope_scaling=scaling)


def _named_scaling(architecture: Architecture, factors: NDArray[np.float32]) -> RopeScaling | None:
    """Llama 3's scaling that gives these divisors: its factor is the largest of them."""
    for exponent in range(5, 18):
        scaling = RopeScaling("llama3", float(factors.max()), 1.0, 4.0, 1 << exponent)
        expected = scaling_factors(scaling, base_frequencies(architecture))
        if np.allclose(factors, expected, rtol=1e-5):
            return scaling
    return None
