"""Networks from model files, and to folders that everything else can load."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneiros.errors import ModelFileError, TrainingError
from oneiros.model.chat_format import stored_template
from oneiros.model.convert import COMPANIONS, folder_architecture, row_order, write_json
from oneiros.model.huggingface import CONFIG, WEIGHTS, folder_name
from oneiros.model.huggingface_config import config_from_architecture
from oneiros.model.parameters import open_parameters
from oneiros.model.quantization import quantize
from oneiros.model.replacement import refuse_existing, replacing_folder
from oneiros.model.safetensors import write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_json
from oneiros.model.tokenizer_files import folder_tokenizer
from oneiros.training.network import Network, NetworkConfig

TOKENIZER = "tokenizer.json"

# Parts of our names -> of GGUF's.
_OUTER_NAMES = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
_BLOCK_NAMES = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention.output": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
_PARAMETER = re.compile(r"(?:blocks\.([0-9]+)\.)?(.+)\.(weight|bias)")

DTYPES = {
    "float32": TensorType.F32,
    "float16": TensorType.F16,
    "bfloat16": TensorType.BF16,
}


def canonical_name(parameter: str) -> str:
    """GGUF's name of a network's parameter: blocks.0.attention.q.weight -> blk.0.attn_q.weight.

    Raises:
        KeyError: a network has no such parameter.
    """
    match = _PARAMETER.fullmatch(parameter)
    if match is None:
        raise KeyError(parameter)
    layer, part, kind = match.groups()
    if layer is None:
        return f"{_OUTER_NAMES[part]}.{kind}"
    return f"blk.{layer}.{_BLOCK_NAMES[part]}.{kind}"


def load_model(path: Path) -> Network:
    """The network in a GGUF file or a Hugging Face folder, dequantised to float32 on the CPU.

    Raises:
        ModelFileError: the path is not there, or the file is damaged or inconsistent.
        UnsupportedModelError: the engine, and with it this class, does not know the network.
    """
    parameters = open_parameters(path)
    with torch.device("meta"):  # no time for random weights that are thrown away
        network = Network(NetworkConfig.of(folder_architecture(parameters)))
    state: dict[str, Tensor] = {}
    for name, _ in network.named_parameters():
        tensor = parameters.tensors[canonical_name(name)]
        values = tensor.float32()
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            order = row_order(tensor.shape[0], parameters.architecture, interleaved=False)
            values = values if order is None else values[order]
        # A copy: float32 is a view of the read-only file where the file has it so.
        state[name] = torch.from_numpy(np.array(values))
    network.load_state_dict(state, assign=True)
    return network


def save_folder(
    network: Network,
    path: Path,
    *,
    tokenizer: Path,
    dtype: str = "float32",
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network as a Hugging Face folder, which appears when it is whole.

    Args:
        network: what to write.
        path: a folder that does not exist, or is empty.
        tokenizer: whose tokenizer and chat template go with it: a folder with tokenizer.json, or
            a GGUF file.
        dtype: of the weights: one of `DTYPES`.
        state: the parameters by name, in the place of the network's own (gathered ones, where
            they are spread over processes).

    Raises:
        TrainingError: the tokenizer does not fit the network.
        ModelFileError: the tokenizer cannot be read, `path` holds something already or cannot be
            written, or a weight is too large for `dtype`.
    """
    refuse_existing(path)
    opened, write_tokenizer = _tokenizer(tokenizer)
    count = len(opened.vocabulary.pieces)
    if count > network.config.vocabulary:
        raise TrainingError(
            f"{tokenizer}: has {count:,} tokens, and the network is made for "
            f"{network.config.vocabulary:,}: it was trained with another tokenizer."
        )
    values = dict(network.named_parameters()) if state is None else state
    tensors = [
        _pending(name, values[name], DTYPES[dtype]) for name, _ in network.named_parameters()
    ]
    with replacing_folder(path) as folder:
        write_tokenizer(folder)
        config = config_from_architecture(network.config.architecture, dtype)
        # Without these, transformers takes Llama 1's.
        others = opened.end_ids - {opened.eos_id}
        ends = [end for end in (opened.eos_id, *sorted(others)) if end is not None]
        config |= {"bos_token_id": opened.bos_id, "eos_token_id": ends or None}
        write_json(folder / CONFIG, config)
        write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a model, or of a folder that holds nothing but a tokenizer.

    Raises:
        ModelFileError: there is none, or it is damaged.
    """
    if path.is_dir() and (path / TOKENIZER).exists():
        return tokenizer_from_json(path / TOKENIZER)
    return load_tokenizer(open_parameters(path))


def _tokenizer(path: Path) -> tuple[Tokenizer, Callable[[Path], None]]:
    """A tokenizer, and what writes its files into a folder."""
    tokenizer = open_tokenizer(path)

    def copy(folder: Path) -> None:
        for name in COMPANIONS:
            if (path / name).is_file():
                shutil.copyfile(path / name, folder / name)

    def write(folder: Path) -> None:
        template = stored_template(open_parameters(path))
        for name, content in folder_tokenizer(tokenizer.vocabulary, template).items():
            write_json(folder / name, content)

    return tokenizer, copy if path.is_dir() else write


def _pending(parameter: str, values: Tensor, kind: TensorType) -> PendingTensor:
    """A parameter under its name in folders, converted when it is written."""
    name = folder_name(canonical_name(parameter))

    def pieces() -> list[NDArray[np.uint8]]:
        numbers = cast(NDArray[np.float32], values.detach().float().cpu().contiguous().numpy())
        try:
            return [quantize(numbers, kind)]
        except ValueError as error:
            raise ModelFileError(
                f'Tensor "{name}" cannot be stored as {kind.name}: {error}.'
            ) from error

    return PendingTensor(name, kind, tuple(values.shape), pieces)
