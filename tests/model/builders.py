"""Tiny models with random weights and a small real vocabulary, for tests of every room.

    path = build_gguf(tmp_path / "tiny.gguf", tiny_architecture("qwen2"), TensorType.Q5_0)
    folder = build_folder(tmp_path / "tiny", tiny_architecture("llama"), shards=2)

The same seed and architecture give the same float32 weights in both, up to the rounding of the
tensor type, and with q and k rows permuted for "llama" as the two layouts ask for.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.model.architecture import Architecture, RopeScaling, tensor_shapes
from oneiros.model.gguf_architecture import gguf_metadata
from oneiros.model.gguf_writer import write_gguf
from oneiros.model.huggingface import folder_name
from oneiros.model.huggingface_config import config_from_architecture
from oneiros.model.quantization import QUANTIZABLE, quantize
from oneiros.model.safetensors import write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (
    "Ġ t", "h e", "Ġt he", "i n", "Ġ a", "r e", "o n", "Ġ s", "Ġ w", "e r", "Ġ o", "n d", "a t",
    "o u", "i s", "i t", "e n", "Ġ c", "Ġ b", "o r", "e s", "Ġ f", "in g", "Ġ p", "Ġa nd",
    "l l", "Ġ in", "Ġo f", "Ġt o",
)  # fmt: skip


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte value."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


TOKENS = (*byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES), *CONTROL_TOKENS)
VOCABULARY = len(TOKENS)  # 288
LLAMA3_SCALING = RopeScaling("llama3", 8.0, 1.0, 4.0, 64)


def tiny_architecture(name: str = "llama", **changes: object) -> Architecture:
    """Two layers of width 64 with grouped queries; any field can be given another value.

    Rows of 64 suit every type but the K formats, whose blocks are 256: use `wide_architecture`.
    """
    architecture = Architecture(
        name=name,
        layers=2,
        width=64,
        heads=4,
        kv_heads=2,
        head_dim=16,
        ffn_width=128,
        vocabulary=VOCABULARY,
        context=256,
        rope_base=10000.0,
        rope_dim=16,
        rope_interleaved=name == "llama",
        rope_scaling=None,
        rms_epsilon=2.0**-17,  # exact in float32, as GGUF stores it
        tied=False,
        qk_norm=name == "qwen3",
        attention_bias=name == "qwen2",
        sliding_window=None,
    )
    changed = dataclasses.replace(architecture, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(changed, rope_dim=changed.head_dim)


def wide_architecture(name: str = "llama", **changes: object) -> Architecture:
    """Two layers of width 256, for the K formats."""
    sizes: dict[str, object] = {"width": 256, "heads": 8, "kv_heads": 2, "head_dim": 32}
    return tiny_architecture(name, **(sizes | {"ffn_width": 512} | changes))


def random_weights(
    architecture: Architecture, seed: int = 0
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor's name and float32 values: norms near 1, matrices that keep the variance."""
    generator = np.random.default_rng(seed)
    for name, shape in tensor_shapes(architecture):
        values = generator.standard_normal(shape, dtype=np.float32)
        if name.endswith("norm.weight"):
            values = 1 + values / 10
        elif name.endswith(".bias"):
            values = values / 10
        elif name != "token_embd.weight":
            values = values / np.float32(np.sqrt(shape[-1]))
        yield name, values


def random_blocks(
    shape: tuple[int, ...], tensor_type: TensorType, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Valid random blocks of a format that we do not quantise to, with values of about 0.1."""
    count = int(np.prod(shape)) // tensor_type.block_size
    blocks = generator.integers(0, 256, (count, tensor_type.block_bytes), dtype=np.uint8)

    def put_half(offset: int, value: float) -> None:
        blocks[:, offset : offset + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    if tensor_type is TensorType.Q5_0:
        put_half(0, 0.01)
    elif tensor_type is TensorType.Q5_1:
        put_half(0, 0.01)
        put_half(2, -0.155)
    elif tensor_type is TensorType.Q4_K:
        put_half(0, 0.0005)
        put_half(2, 0.00375)
    elif tensor_type is TensorType.Q5_K:
        put_half(0, 0.00025)
        put_half(2, 0.00375)
    elif tensor_type is TensorType.Q6_K:
        put_half(208, 0.00008)
    else:
        raise ValueError(f"{tensor_type.name}: quantise instead")
    return blocks.reshape(-1)


def tokenizer_metadata(architecture: Architecture) -> dict[str, object]:
    """GGUF metadata of a byte-level BPE tokenizer: 256 bytes, a few merges, ChatML's tokens."""
    ordinary = len(TOKENS) - len(CONTROL_TOKENS)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm" if architecture.name == "llama" else "qwen2",
        "tokenizer.ggml.tokens": list(TOKENS),
        "tokenizer.ggml.token_type": [1] * ordinary + [3] * len(CONTROL_TOKENS),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": ordinary,
        "tokenizer.ggml.eos_token_id": ordinary + 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def build_gguf(
    path: Path,
    architecture: Architecture | None = None,
    tensor_type: TensorType = TensorType.F32,
    *,
    seed: int = 0,
    embedding_type: TensorType | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Write a GGUF file whose matrices have one type and whose norms and biases are F32.

    Args:
        path: where to.
        architecture: `tiny_architecture()` if left out (`wide_architecture()` for K formats).
        tensor_type: of every matrix.
        seed: of the random weights.
        embedding_type: of token_embd.weight and output.weight, if it is to differ.
        metadata: keys to add or to replace; None takes a key out.
    """
    if architecture is None:
        wide = tensor_type.block_size > 32
        architecture = wide_architecture() if wide else tiny_architecture()
    generator = np.random.default_rng(seed + 1)
    tensors = []
    for name, values in random_weights(architecture, seed):
        kind = tensor_type if values.ndim == 2 else TensorType.F32
        if embedding_type is not None and name in ("token_embd.weight", "output.weight"):
            kind = embedding_type
        if kind in QUANTIZABLE:
            stored = quantize(_interleaved(name, values, architecture), kind)
        else:
            stored = random_blocks(values.shape, kind, generator)
        tensors.append(PendingTensor(name, kind, values.shape, lambda stored=stored: [stored]))
    values_by_key = gguf_metadata(architecture) | tokenizer_metadata(architecture)
    values_by_key |= metadata or {}
    write_gguf(path, {key: v for key, v in values_by_key.items() if v is not None}, tensors)
    return path


def tokenizer_files(architecture: Architecture) -> dict[str, object]:
    """tokenizer.json and tokenizer_config.json with the vocabulary of `tokenizer_metadata`."""
    ordinary = len(TOKENS) - len(CONTROL_TOKENS)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if architecture.name == "llama":
        steps = [
            {"type": "Digits", "individual_digits": True},
            byte_level | {"use_regex": True},
        ]
    else:
        pattern = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        split = {"type": "Split", "pattern": {"Regex": pattern}}
        steps = [
            split | {"behavior": "Isolated", "invert": False},
            byte_level | {"use_regex": False},
        ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": ordinary + index, "content": text, "special": True} | flags
        for index, text in enumerate(CONTROL_TOKENS)
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: index for index, token in enumerate(TOKENS[:ordinary])},
        "merges": list(MERGES),
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": byte_level | {"use_regex": True},
        "model": model,
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": CONTROL_TOKENS[0],
        "eos_token": CONTROL_TOKENS[2],
        "chat_template": CHAT_TEMPLATE,
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}


def build_folder(
    path: Path,
    architecture: Architecture | None = None,
    tensor_type: TensorType = TensorType.F32,
    *,
    seed: int = 0,
    shards: int = 1,
    config: Mapping[str, object] | None = None,
) -> Path:
    """Write a Hugging Face folder with the weights and the vocabulary that `build_gguf` writes.

    Args:
        path: a folder that does not exist yet.
        architecture: `tiny_architecture()` if left out.
        tensor_type: F32, F16 or BF16, of every tensor.
        seed: of the random weights.
        shards: above 1, the tensors are dealt to that many files with an index.
        config: keys of config.json to add or to replace; None takes a key out.
    """
    architecture = tiny_architecture() if architecture is None else architecture
    tensors = [
        PendingTensor.encoded(folder_name(name), values, tensor_type)
        for name, values in random_weights(architecture, seed)
    ]
    path.mkdir()
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[tensor_type.name]
    settings = config_from_architecture(architecture, dtype) | dict(config or {})
    files = {"config.json": {key: v for key, v in settings.items() if v is not None}}
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, {"format": "pt"})
    else:
        weight_map = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            write_safetensors(path / file, tensors[shard::shards], {"format": "pt"})
            weight_map |= {tensor.name: file for tensor in tensors[shard::shards]}
        files["model.safetensors.index.json"] = {"metadata": {}, "weight_map": weight_map}
    for file, content in (files | tokenizer_files(architecture)).items():
        (path / file).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def _interleaved(
    name: str, values: NDArray[np.float32], architecture: Architecture
) -> NDArray[np.float32]:
    """Rows of q and k in the order that rotates neighbours, where the architecture does."""
    if not architecture.rope_interleaved or (".attn_q." not in name and ".attn_k." not in name):
        return values
    halves = values.reshape(-1, 2, architecture.head_dim // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
