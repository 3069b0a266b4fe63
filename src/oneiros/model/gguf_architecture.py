"""Which network a GGUF file holds, from its metadata; and the metadata that says so."""

from __future__ import annotations

from oneiros.errors import ModelFileError, UnsupportedModelError, quoted
from oneiros.model.architecture import (
    LARGEST_CONTEXT,
    OTHER_ENGINE,
    SUPPORTED,
    Architecture,
    RopeScaling,
    check_architecture,
    check_tensors,
)
from oneiros.model.gguf import GGUFArray, GGUFFile
from oneiros.model.hyperparameters import Hyperparameters


def architecture_from_gguf(file: GGUFFile) -> Architecture:
    """The hyper-parameters of a GGUF file, checked against its tensors.

    Raises:
        ModelFileError: a key is missing, has the wrong type or contradicts the tensors.
        UnsupportedModelError: the network is not one that the engine runs.
    """
    where = file.path.name
    name = Hyperparameters(where, file.metadata, "", file.offsets).text("general.architecture")
    if name not in SUPPORTED:
        raise UnsupportedModelError(
            f"{where}: architecture {quoted(name)} is not run by the Oneiros engine "
            f"({', '.join(SUPPORTED)} are). " + OTHER_ENGINE
        )
    keys = Hyperparameters(where, _without_layer_arrays(file), name + ".", file.offsets)
    _refuse_variants(file, keys)
    width, heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", max(1, width // heads))
    if keys.integer("attention.value_length", head_dim) != head_dim:
        keys.unsupported("attention.value_length", "differs from the key length")
    window = keys.integer("attention.sliding_window", 0, least=0) or None
    context = keys.integer("context_length", most=LARGEST_CONTEXT)
    architecture = Architecture(
        name=name,
        layers=keys.integer("block_count"),
        width=width,
        heads=heads,
        kv_heads=keys.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        ffn_width=keys.integer("feed_forward_length"),
        vocabulary=_vocabulary(file),
        context=min(context, window) if window else context,
        rope_base=keys.positive("rope.freq_base", 10000.0),
        rope_dim=keys.integer("rope.dimension_count", head_dim),
        rope_interleaved=name == "llama",
        rope_scaling=_rope_scaling(keys),
        rms_epsilon=keys.positive("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
        qk_norm=name == "qwen3",
        attention_bias=name == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        sliding_window=window,
    )
    check_architecture(architecture, where)
    check_tensors(architecture, file.tensors, where)
    return architecture


def gguf_metadata(architecture: Architecture) -> dict[str, object]:
    """The keys that `architecture_from_gguf` reads. "llama3" scaling goes into a tensor instead."""
    scaling = architecture.rope_scaling
    values: dict[str, object] = {
        "block_count": architecture.layers,
        "context_length": architecture.context,
        "embedding_length": architecture.width,
        "feed_forward_length": architecture.ffn_width,
        "attention.head_count": architecture.heads,
        "attention.head_count_kv": architecture.kv_heads,
        "attention.key_length": architecture.head_dim,
        "attention.value_length": architecture.head_dim,
        "attention.layer_norm_rms_epsilon": architecture.rms_epsilon,
        "rope.freq_base": architecture.rope_base,
        "rope.dimension_count": architecture.rope_dim,
        "vocab_size": architecture.vocabulary,
    }
    if scaling is not None and scaling.kind == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    prefix = architecture.name + "."
    return {"general.architecture": architecture.name} | {
        prefix + key: value for key, value in values.items()
    }


def _without_layer_arrays(file: GGUFFile) -> dict[str, object]:
    """The metadata, where an array with one and the same value for every layer is that value."""
    metadata = dict(file.metadata)
    for key, value in file.metadata.items():
        if isinstance(value, GGUFArray) and 0 < len(value) <= len(file.tensors):
            first, *others = value.values()
            if all(other == first for other in others):
                metadata[key] = first
    return metadata


def _refuse_variants(file: GGUFFile, keys: Hyperparameters) -> None:
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise UnsupportedModelError(
            f"{keys.where}: is one part of a split GGUF file. Join the parts first, with "
            "llama.cpp's `llama-gguf-split --merge`."
        )
    for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
        if isinstance(keys.get(key), GGUFArray):
            keys.unsupported(key, "differs between layers")
    if keys.integer("expert_count", 0, least=0):
        keys.unsupported("expert_count", "says that the model is a mixture of experts")


def _vocabulary(file: GGUFFile) -> int:
    """Rows of the embedding, which must be the number of tokens where the file lists them."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(f'{file.path.name}: tensor "token_embd.weight" is missing.')
    rows = embedding.shape[0]
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, GGUFArray) and len(tokens) != rows:
        raise ModelFileError(
            f'{file.path.name}: metadata "tokenizer.ggml.tokens" at byte {tokens.offset:,} lists '
            f'{len(tokens):,} tokens, and tensor "token_embd.weight" has {rows:,} rows.'
        )
    return rows


def _rope_scaling(keys: Hyperparameters) -> RopeScaling | None:
    kind = keys.text("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "linear":
        keys.unsupported("rope.scaling.type", f"is {quoted(kind)}")
    return RopeScaling("linear", keys.positive("rope.scaling.factor"))
