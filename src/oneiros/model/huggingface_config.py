"""config.json of Hugging Face folders: hyper-parameters from it, and it from hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping

from oneiros.errors import UnsupportedModelError, quoted
from oneiros.model.architecture import (
    LARGEST_CONTEXT,
    OTHER_ENGINE,
    Architecture,
    RopeScaling,
    check_architecture,
)
from oneiros.model.hyperparameters import Hyperparameters

# Class in config.json -> the name that GGUF gives the same network.
CLASSES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


def architecture_from_config(config: Mapping[str, object], where: str) -> Architecture:
    """The hyper-parameters that a config.json gives, in the forms of transformers 4 and 5.

    Args:
        config: the parsed file.
        where: the file's name, for error messages.

    Raises:
        ModelFileError: a key is missing, has the wrong type or contradicts another.
        UnsupportedModelError: the network is not one that the engine runs.
    """
    keys = Hyperparameters(where, config)
    theirs = _class(keys)
    name = CLASSES[theirs]
    _refuse_variants(keys)
    width, heads = keys.integer("hidden_size"), keys.integer("num_attention_heads")
    head_dim = keys.integer("head_dim", max(1, width // heads))
    rope = _rope(keys)
    window = _sliding_window(keys, theirs)
    context = keys.integer("max_position_embeddings", most=LARGEST_CONTEXT)
    architecture = Architecture(
        name=name,
        layers=keys.integer("num_hidden_layers"),
        width=width,
        heads=heads,
        kv_heads=keys.integer("num_key_value_heads", heads if name == "llama" else None),
        head_dim=head_dim,
        ffn_width=keys.integer("intermediate_size"),
        vocabulary=keys.integer("vocab_size"),
        context=min(context, window) if window else context,
        rope_base=rope.positive("rope_theta", keys.positive("rope_theta", 10000.0)),
        rope_dim=round(head_dim * rope.positive("partial_rotary_factor", 1.0)),
        rope_interleaved=False,
        rope_scaling=_rope_scaling(rope),
        rms_epsilon=keys.positive("rms_norm_eps"),
        tied=keys.flag("tie_word_embeddings", False),
        qk_norm=name == "qwen3",
        attention_bias=name == "qwen2" or keys.flag("attention_bias", False),
        sliding_window=window,
    )
    check_architecture(architecture, where)
    return architecture


def config_from_architecture(architecture: Architecture, dtype: str) -> dict[str, object]:
    """A config.json, in the form that transformers 4 and 5 both read.

    Args:
        architecture: what to describe; `rope_interleaved` is the weights' business.
        dtype: "float32", "float16" or "bfloat16", which `transformers` loads the weights as.
    """
    theirs = next(theirs for theirs, name in CLASSES.items() if name == architecture.name)
    config: dict[str, object] = {
        "architectures": [theirs],
        "model_type": architecture.name,
        "hidden_act": "silu",
        "hidden_size": architecture.width,
        "intermediate_size": architecture.ffn_width,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "head_dim": architecture.head_dim,
        "vocab_size": architecture.vocabulary,
        "max_position_embeddings": architecture.context,
        "rms_norm_eps": architecture.rms_epsilon,
        "rope_theta": architecture.rope_base,
        "rope_scaling": _scaling_config(architecture.rope_scaling),
        "tie_word_embeddings": architecture.tied,
        "torch_dtype": dtype,
    }
    if architecture.name != "qwen2":
        config["attention_bias"] = architecture.attention_bias
    return config


def _scaling_config(scaling: RopeScaling | None) -> dict[str, object] | None:
    if scaling is None:
        return None
    config: dict[str, object] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "llama3":
        config |= {
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return config


def _class(keys: Hyperparameters) -> str:
    found = keys.get("architectures")
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], str):
        keys.fail("architectures", "is not a list with one class name")
    if found[0] not in CLASSES:
        raise UnsupportedModelError(
            f"{keys.where}: architecture {quoted(found[0])} is not run by the Oneiros engine "
            f"({', '.join(CLASSES)} are). " + OTHER_ENGINE
        )
    return found[0]


def _refuse_variants(keys: Hyperparameters) -> None:
    activation = keys.text("hidden_act", "silu")
    if activation != "silu":
        keys.unsupported("hidden_act", f"is {quoted(activation)}")
    if keys.get("quantization_config") is not None:
        keys.unsupported("quantization_config", "says that the weights are quantised")


def _rope(keys: Hyperparameters) -> Hyperparameters:
    """Where the rotary parameters are: `rope_parameters` (transformers 5), else `rope_scaling`."""
    for key in ("rope_parameters", "rope_scaling"):
        found = keys.get(key)
        if found is not None:
            break
    else:
        found = {}
    if not isinstance(found, dict):
        keys.fail(key, "is not an object")
    if "full_attention" in found or "sliding_attention" in found:
        keys.unsupported(key, "differs between layers")
    partial = {"partial_rotary_factor": keys.get("partial_rotary_factor")}
    return Hyperparameters(f"{keys.where}: {key}", partial | found)


def _rope_scaling(rope: Hyperparameters) -> RopeScaling | None:
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", rope.positive("factor"))
    if kind != "llama3":
        rope.unsupported("rope_type", f"is {quoted(kind)}")
    scaling = RopeScaling(
        "llama3",
        rope.positive("factor"),
        rope.positive("low_freq_factor"),
        rope.positive("high_freq_factor"),
        rope.integer("original_max_position_embeddings", most=LARGEST_CONTEXT),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        rope.fail("high_freq_factor", "is not above low_freq_factor")
    return scaling


def _sliding_window(keys: Hyperparameters, theirs: str) -> int | None:
    """Positions that a layer looks back on, or None where every layer looks back on all."""
    layer_types = keys.get("layer_types")
    if layer_types is not None:
        if not isinstance(layer_types, list):
            keys.fail("layer_types", "is not a list")
        if any(kind not in ("full_attention", "sliding_attention") for kind in layer_types):
            keys.unsupported("layer_types", "names another kind of attention")
        slides = "sliding_attention" in layer_types
    elif theirs.startswith("Qwen"):
        slides = keys.flag("use_sliding_window", False)
    else:
        slides = theirs.startswith("Mistral") and keys.get("sliding_window") is not None
    return keys.integer("sliding_window") if slides else None
