import dataclasses
import hashlib
import json
import struct

import numpy as np
import pytest

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model.architecture import rope_frequencies, tensor_shapes
from oneiros.model.huggingface import canonical_name, folder_name
from oneiros.model.parameters import RopeScaling, open_parameters
from oneiros.model.safetensors import read_safetensors, write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from tests.model.builders import (
    LLAMA3_SCALING,
    build_folder,
    build_gguf,
    random_weights,
    tiny_architecture,
)

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def architecture_of(path, config):
    return open_parameters(build_folder(path / "model", config=config)).architecture


def rewrite(path, change):
    """Write a folder's single weight file again with other tensors."""
    file = path / "model.safetensors"
    tensors = [PendingTensor.stored(tensor) for tensor in read_safetensors(file).tensors.values()]
    write_safetensors(file, change(tensors))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_holds_what_was_written(tmp_path, name, tied, shards):
    architecture = tiny_architecture(name, tied=tied, head_dim=32, rope_interleaved=False)
    path = build_folder(tmp_path / "model", architecture, TensorType.F32, shards=shards)
    found = open_parameters(path)
    assert found.architecture == architecture
    weights = dict(random_weights(architecture))
    assert found.tensors.keys() == weights.keys()
    for tensor, values in weights.items():
        assert found.tensors[tensor].name == tensor
        assert np.array_equal(found.tensors[tensor].float32(), values)


@pytest.mark.parametrize("tensor_type", [TensorType.F16, TensorType.BF16])
def test_half_precision_folders_are_read(tmp_path, tensor_type):
    found = open_parameters(build_folder(tmp_path / "model", tensor_type=tensor_type))
    for name, values in random_weights(tiny_architecture()):
        tolerance = 2.0**-10 if tensor_type is TensorType.F16 else 2.0**-8
        assert found.tensors[name].type is tensor_type
        assert np.allclose(found.tensors[name].float32(), values, rtol=tolerance, atol=1e-6)


def test_the_hash_runs_over_the_shards_in_order_and_the_configuration(tmp_path):
    path = build_folder(tmp_path / "model", shards=2)
    found = open_parameters(path)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert [file.name for file in found.source_files] == [*names, "config.json"]
    together = b"".join(file.read_bytes() for file in found.source_files)
    assert found.sha256() == hashlib.sha256(together).hexdigest()
    assert found.file_bytes == len(together)


def test_every_tensor_name_has_one_counterpart():
    for name in ("llama", "qwen2", "qwen3"):
        names = [tensor for tensor, _ in tensor_shapes(tiny_architecture(name, layers=11))]
        theirs = [folder_name(tensor) for tensor in names]
        assert len(set(theirs)) == len(names)
        assert [canonical_name(tensor) for tensor in theirs] == names


@pytest.mark.parametrize(
    "name", ["model.layers.01.mlp.up_proj.weight", "model.layers.٣.mlp.up_proj.weight", "lm_head"]
)
def test_other_spellings_have_no_counterpart(name):
    assert canonical_name(name) is None


# --- config.json ------------------------------------------------------------------------------


def test_mistral_runs_as_a_llama_with_a_window(tmp_path):
    mistral = {"architectures": ["MistralForCausalLM"], "sliding_window": 100}
    found = architecture_of(tmp_path, mistral)
    assert (found.name, found.context, found.sliding_window) == ("llama", 100, 100)


def test_mistral_without_a_window_has_its_whole_context(tmp_path):
    mistral = {"architectures": ["MistralForCausalLM"], "sliding_window": None}
    found = architecture_of(tmp_path, mistral)
    assert (found.context, found.sliding_window) == (256, None)


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({"sliding_window": 32}, None),
        ({"sliding_window": 32, "use_sliding_window": True}, 32),
        ({"sliding_window": 32, "layer_types": ["full_attention"] * 2}, None),
        ({"sliding_window": 32, "layer_types": ["full_attention", "sliding_attention"]}, 32),
    ],
)
def test_qwen_slides_only_where_it_says_so(tmp_path, changes, window):
    path = build_folder(tmp_path / "model", tiny_architecture("qwen2"), config=changes)
    assert open_parameters(path).architecture.sliding_window == window


@pytest.mark.parametrize(
    ("config", "base", "scaling"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 10000, RopeScaling("linear", 2.0)),
        ({"rope_scaling": LLAMA3, "rope_theta": 5e5}, 5e5, LLAMA3_SCALING),
        ({"rope_scaling": {"rope_type": "default"}}, 10000, None),
        ({"rope_theta": None}, 10000, None),
        (
            {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 2e4}},
            2e4,
            None,
        ),
        (
            {"rope_theta": None, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}},
            5e5,
            LLAMA3_SCALING,
        ),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}},
            10000,
            None,
        ),
    ],
    ids=["linear", "llama3", "default", "no base", "parameters", "llama3 parameters", "partial 1"],
)
def test_rotary_settings_are_read_in_their_old_and_new_forms(tmp_path, config, base, scaling):
    found = architecture_of(tmp_path, config)
    assert (found.rope_base, found.rope_scaling) == (base, scaling)


def test_llama3_frequencies_are_those_of_transformers():
    # LlamaRotaryEmbedding.inv_freq of transformers 5.23 for Llama 3.1's configuration.
    expected = {
        0: 1.0,
        10: 0.12868738174438477,
        28: 0.0032114461064338684,
        30: 0.0013718936825171113,
        32: 0.0005248460220173001,
        34: 0.0001785077911335975,
        36: 7.784655463183299e-05,
        40: 3.428102354519069e-05,
        63: 3.068925877869333e-07,
    }
    architecture = dataclasses.replace(
        tiny_architecture(head_dim=128),
        rope_base=500000.0,
        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192),
    )
    frequencies = rope_frequencies(architecture)
    found = [frequencies[pair] for pair in expected]
    assert np.allclose(found, list(expected.values()), rtol=1e-6, atol=0)


def test_head_dim_follows_from_the_width_where_it_is_not_given(tmp_path):
    assert architecture_of(tmp_path, {"head_dim": None}).head_dim == 16


def test_newer_configurations_name_the_dtype_otherwise(tmp_path):
    found = architecture_of(tmp_path, {"torch_dtype": None, "dtype": "float32"})
    assert found == dataclasses.replace(tiny_architecture(), rope_interleaved=False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, '"GPT2LMHeadModel" .*oneiros\\[llamacpp\\]'),
        ({"hidden_act": "gelu"}, '"hidden_act" is "gelu"'),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, '"dynamic"'),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, '"yarn".*oneiros\\[llamacpp\\]'),
        ({"rope_parameters": {"full_attention": {}}}, "differs between layers"),
        ({"partial_rotary_factor": 0.5}, "rotates 8 of 16"),
        ({"layer_types": ["linear_attention"] * 2}, "another kind of attention"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_networks_that_the_engine_does_not_run_are_named(tmp_path, config, message):
    with pytest.raises(UnsupportedModelError, match=message):
        architecture_of(tmp_path, config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": []}, "not a list with one class"),
        ({"num_hidden_layers": None}, r'config.json: "num_hidden_layers" is missing'),
        ({"num_hidden_layers": 3}, '"blk.2.attn_norm.weight" is missing'),
        ({"hidden_size": 64.0}, '"hidden_size" is not an integer'),
        ({"hidden_size": 10**40}, "beyond 64 bits"),
        ({"vocab_size": 5}, "has shape"),
        ({"rms_norm_eps": 10**400}, "beyond 64 bits"),
        ({"num_attention_heads": 5}, "cannot share"),
        ({"tie_word_embeddings": "no"}, "is not a boolean"),
        ({"rope_scaling": []}, "is not an object"),
        ({"rope_scaling": LLAMA3 | {"factor": 0}}, '"factor" is 0'),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "not above low_freq_factor"),
        ({"rope_scaling": {"rope_type": 3}}, '"rope_type" is not a string'),
        ({"layer_types": 3}, "is not a list"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_contradictory_configurations_are_refused_by_name(tmp_path, config, message):
    with pytest.raises(ModelFileError, match=message):
        architecture_of(tmp_path, config)


def test_integers_of_thousands_of_digits_are_refused(tmp_path):
    path = build_folder(tmp_path / "model")
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace("64,", "64" + "0" * 5000 + ",", 1))
    with pytest.raises(ModelFileError, match=r"config\.json: JSON from byte 0"):
        open_parameters(path)


# --- weights ----------------------------------------------------------------------------------


def test_a_copy_of_the_embedding_is_left_out_of_a_tied_model(tmp_path):
    path = build_folder(tmp_path / "model", tiny_architecture(tied=True))
    head = PendingTensor.encoded("lm_head.weight", np.zeros((288, 64), "f4"), TensorType.F32)
    rewrite(path, lambda tensors: [*tensors, head])
    assert "output.weight" not in open_parameters(path).tensors


def test_stored_frequencies_and_biases_of_zero_are_left_out(tmp_path):
    path = build_folder(tmp_path / "model")
    prefix = "model.layers.0.self_attn."
    names = {"rotary_emb.inv_freq": 8, "o_proj.bias": 64}
    extra = [
        PendingTensor.encoded(prefix + name, np.zeros(size, "f4"), TensorType.F32)
        for name, size in names.items()
    ]
    rewrite(path, lambda tensors: [*tensors, *extra])
    open_parameters(path)


def test_an_output_bias_is_another_network(tmp_path):
    path = build_folder(tmp_path / "model")
    name = "model.layers.1.self_attn.o_proj.bias"
    bias = PendingTensor.encoded(name, np.ones(64, np.float32), TensorType.F32)
    rewrite(path, lambda tensors: [*tensors, bias])
    with pytest.raises(UnsupportedModelError, match=r"blk\.1\.attn_output\.bias"):
        open_parameters(path)


def test_an_unknown_tensor_is_another_network(tmp_path):
    path = build_folder(tmp_path / "model")
    gate = PendingTensor.encoded("model.layers.0.mlp.gate.weight", np.ones(4, "f4"), TensorType.F32)
    rewrite(path, lambda tensors: [*tensors, gate])
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.mlp\.gate\.weight"):
        open_parameters(path)


def test_messages_show_no_control_characters(tmp_path):
    path = build_folder(tmp_path / "model")
    odd = PendingTensor.encoded("\x1b[31m\u202eoops", np.ones(4, "f4"), TensorType.F32)
    rewrite(path, lambda tensors: [*tensors, odd])
    with pytest.raises(UnsupportedModelError) as caught:
        open_parameters(path)
    assert str(caught.value).isprintable()
    assert r"\x1b[31m\u202eoops" in str(caught.value)


def test_a_missing_tensor_is_named(tmp_path):
    path = build_folder(tmp_path / "model")
    rewrite(path, lambda tensors: [t for t in tensors if t.name != "model.norm.weight"])
    with pytest.raises(ModelFileError, match=r'"output_norm\.weight" is missing'):
        open_parameters(path)


def test_weights_of_eight_bits_are_named(tmp_path):
    path = build_folder(tmp_path / "model")
    data = (path / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    found = header["model.norm.weight"]
    found |= {"dtype": "F8_E4M3", "shape": [256]}
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text + data[8 + length :]
    )
    with pytest.raises(UnsupportedModelError, match=r'"model\.norm\.weight" is stored as F8'):
        open_parameters(path)


@pytest.mark.parametrize(
    "file",
    [
        "../../etc/passwd",
        "../model.safetensors",
        "/etc/passwd",
        "/tmp/model.safetensors",
        "a/model.safetensors",
        "..\\model.safetensors",
        ".model.safetensors",
        "model.safetensors\0",
        "model.safetensors\n",
        "pytorch_model.bin",
        "",
        3,
        None,
        ["model.safetensors"],
    ],
)
def test_an_index_can_only_name_files_beside_it(tmp_path, file):
    path = build_folder(tmp_path / "model", shards=2)
    index = path / "model.safetensors.index.json"
    settings = json.loads(index.read_text())
    settings["weight_map"]["model.norm.weight"] = file
    index.write_text(json.dumps(settings))
    with pytest.raises(ModelFileError, match='"weight_map" names the file'):
        open_parameters(path)


def test_a_missing_shard_is_named(tmp_path):
    path = build_folder(tmp_path / "model", shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model-00002-of-00003\.safetensors: cannot be read"):
        open_parameters(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    path = build_folder(tmp_path / "model", shards=2)
    first, second = sorted(path.glob("model-*.safetensors"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ModelFileError, match="more than one shard"):
        open_parameters(path)


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_an_index_without_a_map_is_refused(tmp_path, weight_map):
    path = build_folder(tmp_path / "model", shards=2)
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelFileError, match='"weight_map" is not an object'):
        open_parameters(path)


def test_what_is_not_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere: cannot be opened \(No such file"):
        open_parameters(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match=r"config\.json: cannot be read"):
        open_parameters(tmp_path)
    path = build_folder(tmp_path / "model")
    with pytest.raises(ModelFileError, match="open the folder"):
        open_parameters(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match="saved again as safetensors"):
        open_parameters(path)


def test_a_folder_and_a_file_of_the_same_model_differ_in_the_order_of_rotated_rows(tmp_path):
    architecture = tiny_architecture()
    folder = open_parameters(build_folder(tmp_path / "model", architecture))
    file = open_parameters(build_gguf(tmp_path / "model.gguf", architecture))
    assert (folder.architecture.rope_interleaved, file.architecture.rope_interleaved) == (0, 1)
    for name in folder.tensors:
        same = np.array_equal(folder.tensors[name].float32(), file.tensors[name].float32())
        assert same == ("attn_q." not in name and "attn_k." not in name)
