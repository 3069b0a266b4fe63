"""Hugging Face model folders: config.json, safetensors shards, and their names for things."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oneiros.errors import ModelFileError, UnsupportedModelError, quoted
from oneiros.model.architecture import OTHER_ENGINE, Architecture, check_tensors
from oneiros.model.huggingface_config import architecture_from_config
from oneiros.model.json_text import read_object
from oneiros.model.safetensors import DTYPES, SafetensorsFile, read_safetensors
from oneiros.model.tensor import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_OUTER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER_NAMES_BACK = {name: theirs for theirs, name in _LAYER_NAMES.items()}
_OUTER_NAMES_BACK = {name: theirs for theirs, name in _OUTER_NAMES.items()}
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.(.+)\.(weight|bias)")
_BLOCK = re.compile(r"blk\.([0-9]+)\.(.+)\.(weight|bias)")
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
# Llama's attention_bias and mlp_bias add these, and released models that set one leave it 0.
_ZERO_BIASES = (".attn_output.bias", ".ffn_gate.bias", ".ffn_up.bias", ".ffn_down.bias")


@dataclass(frozen=True, slots=True)
class HuggingFaceFolder:
    """A folder's network, with its tensors under GGUF's names."""

    config: Mapping[str, object]
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    source_files: tuple[Path, ...]  # the shards in order, and config.json
    file_bytes: int


def read_folder(path: Path) -> HuggingFaceFolder:
    """Open a folder with config.json and model.safetensors, or shards and their index.

    Raises:
        ModelFileError: something is missing, damaged or inconsistent.
        UnsupportedModelError: the network is not one that the engine runs.
    """
    config = read_object(path / CONFIG)
    where = f"{path.name}/{CONFIG}"
    architecture = architecture_from_config(config, where)
    shards = [read_safetensors(file) for file in _shard_files(path)]
    tensors = _canonical(shards, architecture, path.name)
    check_tensors(architecture, tensors, path.name)
    sources = (*(shard.path for shard in shards), path / CONFIG)
    return HuggingFaceFolder(
        config, architecture, tensors, sources, sum(source.stat().st_size for source in sources)
    )


def canonical_name(name: str) -> str | None:
    """GGUF's name of a tensor, or None where it has none."""
    if name in _OUTER_NAMES:
        return _OUTER_NAMES[name]
    match = _LAYER.fullmatch(name)
    if match is None or match[2] not in _LAYER_NAMES:
        return None
    return f"blk.{match[1]}.{_LAYER_NAMES[match[2]]}.{match[3]}"


def folder_name(name: str) -> str:
    """The name in Hugging Face folders of a tensor with a GGUF name."""
    if name in _OUTER_NAMES_BACK:
        return _OUTER_NAMES_BACK[name]
    match = _BLOCK.fullmatch(name)
    if match is None or match[2] not in _LAYER_NAMES_BACK:
        raise ValueError(f"{name}: has no name in Hugging Face folders")
    return f"model.layers.{match[1]}.{_LAYER_NAMES_BACK[match[2]]}.{match[3]}"


def _shard_files(path: Path) -> Iterator[Path]:
    index = path / INDEX
    if not index.exists():
        if not (path / WEIGHTS).exists():
            raise ModelFileError(
                f"{path}: holds neither {WEIGHTS} nor {INDEX}. A folder with other weight files "
                "(pytorch_model.bin) must be saved again as safetensors."
            )
        yield path / WEIGHTS
        return
    where = f"{path.name}/{INDEX}"
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f'{where}: "weight_map" is not an object with tensor names.')
    names = set()
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise ModelFileError(
                f'{where}: "weight_map" names the file {str(file)[:100]!r} for tensor '
                f"{quoted(tensor)}; a plain .safetensors name in the same folder is expected."
            )
        names.add(file)
    for name in sorted(names):
        yield path / name


def _canonical(
    shards: list[SafetensorsFile], architecture: Architecture, where: str
) -> dict[str, Tensor]:
    """All tensors under GGUF's names, without those that carry nothing of the network."""
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for theirs in (*shard.tensors, *shard.others):
            if theirs.endswith("rotary_emb.inv_freq"):
                continue  # follows from the configuration; older files store it
            name = canonical_name(theirs)
            if name is None:
                raise UnsupportedModelError(
                    f"{shard.path.name}: tensor {quoted(theirs)} is not part of the "
                    f'"{architecture.name}" network that the Oneiros engine runs. ' + OTHER_ENGINE
                )
            if theirs in shard.others:
                raise UnsupportedModelError(
                    f'{shard.path.name}: tensor "{theirs}" is stored as {shard.others[theirs]}; '
                    f"read are {', '.join(DTYPES)}."
                )
            if name in tensors:
                raise ModelFileError(f'{where}: tensor "{theirs}" is in more than one shard.')
            found = shard.tensors[theirs]
            tensors[name] = Tensor(name, found.type, found.shape, found.data)
    if architecture.tied:
        tensors.pop("output.weight", None)  # a copy of the embedding
    for name in [name for name in tensors if name.endswith(_ZERO_BIASES)]:
        if not np.any(tensors[name].float32()):
            del tensors[name]
    return tensors
