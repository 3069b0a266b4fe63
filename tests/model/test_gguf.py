import dataclasses
import hashlib
import struct
import time

import gguf
import gguf.quants
import numpy as np
import pytest

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model import catalog
from oneiros.model.architecture import rope_frequencies
from oneiros.model.gguf import GGUFArray, GGUFType, read_gguf
from oneiros.model.gguf_writer import write_gguf
from oneiros.model.inspect import inspect_parameters
from oneiros.model.parameters import RopeScaling, open_parameters
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from tests.model.builders import (
    TOKENS,
    build_gguf,
    random_weights,
    tiny_architecture,
    wide_architecture,
)

LONG = pytest.mark.long


def plain(value):
    """A metadata value with arrays as lists, to any depth."""
    return [plain(item) for item in value.values()] if isinstance(value, GGUFArray) else value


@pytest.fixture(scope="module")
def default_model(default_model_path):
    return open_parameters(default_model_path)


# --- the default model ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["smollm2-135m", *(pytest.param(f"qwen2.5-coder-{s}b", marks=LONG) for s in ("0.5", "1.5"))],
)
def test_a_real_models_tensors_are_those_that_the_gguf_package_reads(name):
    path = catalog.resolve(name)
    model, theirs = open_parameters(path), gguf.GGUFReader(path).tensors
    assert [tensor.name for tensor in theirs] == list(model.tensors)
    for tensor in theirs:
        ours = model.tensors[tensor.name]
        assert ours.type == int(tensor.tensor_type)
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert ours.shape == expected.shape
        assert np.array_equal(ours.float32(), expected), tensor.name


def test_the_default_models_metadata_are_those_that_the_gguf_package_reads(
    default_model, default_model_path
):
    fields = gguf.GGUFReader(default_model_path).fields
    theirs = {key: f.contents() for key, f in fields.items() if not key.startswith("GGUF.")}
    assert {key: plain(value) for key, value in default_model.metadata.items()} == theirs


def test_the_default_model_is_a_small_llama(default_model):
    architecture = default_model.architecture
    assert architecture.name == "llama"
    assert (architecture.layers, architecture.width, architecture.ffn_width) == (30, 576, 1536)
    assert (architecture.heads, architecture.kv_heads, architecture.head_dim) == (9, 3, 64)
    assert (architecture.vocabulary, architecture.context) == (49152, 8192)
    assert architecture.rope_base == 100000
    assert architecture.rope_interleaved
    assert architecture.tied
    assert not architecture.attention_bias


def test_opening_the_default_model_does_not_decode_its_vocabulary(default_model_path):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        open_parameters(default_model_path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.08  # about 0.01 s; 100,000 strings take several times as long


def test_the_hash_is_that_of_the_file(default_model, default_model_path):
    expected = hashlib.sha256(default_model_path.read_bytes()).hexdigest()
    assert default_model.sha256() == expected


def test_inspection_adds_up_to_the_file(default_model):
    found = inspect_parameters(default_model)
    assert found.name == "Smollm2 135M 8k Lc100K Mix1 Ep2"
    assert found.elements == 134515008
    assert {total.type.name: total.tensors for total in found.totals} == {
        "Q4_1": 210,
        "Q8_0": 1,
        "F32": 61,
    }
    assert found.totals[0].type is TensorType.Q4_1
    stored = sum(total.bytes for total in found.totals)
    assert stored <= found.file_bytes < stored + 2_000_000


# --- reading and writing ----------------------------------------------------------------------


@pytest.mark.parametrize("tensor_type", list(TensorType), ids=lambda t: t.name)
def test_every_type_reads_as_the_gguf_package_reads_it(tmp_path, tensor_type):
    path = build_gguf(tmp_path / "tiny.gguf", tensor_type=tensor_type)
    parameters = open_parameters(path)
    for tensor in gguf.GGUFReader(path).tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        assert np.array_equal(parameters.tensors[tensor.name].float32(), expected), tensor.name
        assert np.all(np.isfinite(expected))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_architecture_survives_being_written(tmp_path, name, tied):
    architecture = tiny_architecture(name, tied=tied, head_dim=32)
    found = open_parameters(build_gguf(tmp_path / "tiny.gguf", architecture))
    assert found.architecture == architecture
    biases = [tensor for tensor in found.tensors if tensor.endswith(".bias")]
    assert len(biases) == (6 if name == "qwen2" else 0)


def test_llama_biases_and_linear_scaling_survive_being_written(tmp_path):
    architecture = tiny_architecture(
        attention_bias=True, rope_scaling=RopeScaling("linear", 4.0), rope_base=500000.0
    )
    path = build_gguf(tmp_path / "tiny.gguf", architecture)
    assert open_parameters(path).architecture == architecture


def test_files_of_the_gguf_package_open(tmp_path):
    path = tmp_path / "theirs.gguf"
    architecture = tiny_architecture("qwen2", tied=True)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv([2, 2])
    writer.add_layer_norm_rms_eps(2.0**-17)
    writer.add_token_list(list(TOKENS))
    writer.add_custom_alignment(64)
    weights = dict(random_weights(architecture))
    for name, values in weights.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = open_parameters(path)
    assert found.architecture == architecture
    for name, values in weights.items():
        assert np.array_equal(found.tensors[name].float32(), values)


def test_version_2_is_read(tmp_path):
    path = build_gguf(tmp_path / "tiny.gguf")
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    path.write_bytes(data)
    assert read_gguf(path).version == 2


METADATA = {
    "text": "Ὄνειροι",
    "empty": "",
    "yes": True,
    "no": False,
    "small": 7,
    "large": 1 << 40,
    "largest": (1 << 64) - 1,
    "negative": -3,
    "real": 0.15625,
    "texts": ["a", "", "ü"],
    "integers": [1, -2, 3],
    "large integers": [1 << 40, 2],
    "reals": [0.5, -1.25],
    "flags": [True, False],
}


def test_metadata_survive_being_written(tmp_path):
    path = tmp_path / "metadata.gguf"
    write_gguf(path, METADATA, [])
    found = read_gguf(path).metadata
    assert {key: plain(value) for key, value in found.items()} == METADATA
    theirs = gguf.GGUFReader(path).fields
    assert {key: theirs[key].contents() for key in METADATA} == METADATA
    copy = tmp_path / "copy.gguf"
    write_gguf(copy, found, [])
    assert copy.read_bytes() == path.read_bytes()


def test_nested_arrays_are_read(tmp_path):
    path = tmp_path / "nested.gguf"
    write_gguf(path, {"key": [7]}, [])
    data = path.read_bytes()
    flat = struct.pack("<IQi", GGUFType.INT32, 1, 7)
    nested = struct.pack("<IQ", GGUFType.ARRAY, 2) + flat + struct.pack("<IQ", GGUFType.STRING, 0)
    path.write_bytes(data.replace(flat, nested))
    assert plain(read_gguf(path).metadata["key"]) == [[7], []]


def test_a_string_that_is_not_utf8_fails_when_its_array_is_read(tmp_path):
    path = build_gguf(tmp_path / "tiny.gguf")
    data = path.read_bytes().replace("Ġthe".encode(), b"\xff\xfe\xfdhe", 1)
    path.write_bytes(data)
    tokens = open_parameters(path).metadata["tokenizer.ggml.tokens"]
    for read in (tokens.strings, tokens.values):
        with pytest.raises(ModelFileError, match=r"byte [\d,]+ is not UTF-8"):
            read()


def test_numbers_are_not_strings(tmp_path):
    parameters = open_parameters(build_gguf(tmp_path / "tiny.gguf"))
    kinds = parameters.metadata["tokenizer.ggml.token_type"]
    assert len(kinds) == len(list(kinds)) == len(TOKENS)
    with pytest.raises(ModelFileError, match="holds INT32, and strings are expected"):
        kinds.strings()


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    def broken():
        yield np.zeros(16, np.uint8)
        raise ZeroDivisionError

    path = tmp_path / "broken.gguf"
    with pytest.raises(ZeroDivisionError):
        write_gguf(path, {}, [PendingTensor("a", TensorType.F32, (8,), broken)])
    with pytest.raises(ValueError, match="16 bytes given, its shape needs 32"):
        zeros = PendingTensor("a", TensorType.F32, (8,), lambda: [np.zeros(16, np.uint8)])
        write_gguf(path, {}, [zeros])
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_says_so(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_gguf(tmp_path / "missing" / "a.gguf", {}, [])
    with pytest.raises(TypeError, match="'key'"):
        write_gguf(tmp_path / "a.gguf", {"key": object()}, [])
    with pytest.raises(TypeError, match="one type"):
        write_gguf(tmp_path / "a.gguf", {"key": [1, "a"]}, [])


def test_progress_counts_every_byte(tmp_path):
    seen = []
    tensors = [
        PendingTensor.encoded("a", np.zeros((2, 32), np.float32), TensorType.Q8_0),
        PendingTensor.encoded("b", np.zeros(5, np.float32), TensorType.F32),
    ]
    write_gguf(tmp_path / "a.gguf", {}, tensors, progress=lambda *at: seen.append(at))
    assert seen == [(68, 88), (88, 88)]


# --- what the metadata say --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "mamba"}, '"mamba" is not run .*oneiros\\[llamacpp\\]'),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, '"yarn"'),
        ({"llama.attention.value_length": 8}, "value_length"),
        ({"llama.rope.dimension_count": 8}, "rotates 8 of 16"),
        ({"llama.attention.head_count_kv": [2, 4]}, "differs between layers"),
        ({"split.count": 3}, "gguf-split --merge"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_networks_that_the_engine_does_not_run_are_named(tmp_path, changes, message):
    path = build_gguf(tmp_path / "other.gguf", metadata=changes)
    with pytest.raises(UnsupportedModelError, match=message):
        open_parameters(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": None}, '"general.architecture" is missing'),
        ({"general.architecture": 3}, r'"general.architecture" at byte [\d,]+ is not a string'),
        ({"llama.block_count": None}, '"llama.block_count" is missing'),
        ({"llama.block_count": "2"}, r'"llama.block_count" at byte [\d,]+ is not an integer'),
        ({"llama.block_count": True}, "is not an integer"),
        ({"llama.block_count": 0}, "is 0, and must be from 1"),
        ({"llama.block_count": 1 << 50}, "must be from 1"),
        ({"llama.block_count": 3}, r'"blk.2.attn_norm.weight" is missing'),
        ({"llama.attention.head_count": 3}, "cannot share 2"),
        ({"llama.attention.head_count_kv": 4}, r"has shape \(32, 64\)"),
        ({"llama.attention.key_length": 15}, "odd|value_length"),
        ({"llama.rope.freq_base": -1.0}, "positive"),
        ({"llama.rope.freq_base": float("nan")}, "positive"),
        ({"llama.rope.freq_base": [1.0, 2.0, 3.0]}, "is not a number"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "is missing"),
        ({"llama.context_length": 1 << 31}, "must be from 1 to 16,777,216"),
        ({"llama.rope.scaling.type": "linear"}, '"llama.rope.scaling.factor" is missing'),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "lists 2 tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_contradictory_metadata_are_refused_by_name(tmp_path, changes, message):
    path = build_gguf(tmp_path / "wrong.gguf", metadata=changes)
    with pytest.raises(ModelFileError, match=message):
        open_parameters(path)


def test_a_sliding_window_caps_the_context(tmp_path):
    window = {"llama.attention.sliding_window": 100}
    found = open_parameters(build_gguf(tmp_path / "tiny.gguf", metadata=window)).architecture
    assert (found.context, found.sliding_window) == (100, 100)


def test_a_tensor_too_many_is_another_network(tmp_path):
    architecture = tiny_architecture()
    path = build_gguf(tmp_path / "tiny.gguf", architecture)
    file = read_gguf(path)
    tensors = [PendingTensor.stored(tensor) for tensor in file.tensors.values()]
    extra = PendingTensor.encoded("blk.0.ffn_gate_exps.weight", np.ones(4, "f4"), TensorType.F32)
    write_gguf(path, file.metadata, [*tensors, extra])
    with pytest.raises(UnsupportedModelError, match="ffn_gate_exps"):
        open_parameters(path)


@pytest.mark.parametrize(
    ("factors", "message"),
    [(np.ones(7), "need one divisor each"), (np.array([1.0] * 7 + [0]), "not > 0")],
)
def test_frequency_divisors_are_checked(tmp_path, factors, message):
    path = build_gguf(tmp_path / "tiny.gguf")
    file = read_gguf(path)
    tensors = [PendingTensor.stored(tensor) for tensor in file.tensors.values()]
    values = factors.astype(np.float32)
    extra = PendingTensor.encoded("rope_freqs.weight", values, TensorType.F32)
    write_gguf(path, file.metadata, [*tensors, extra])
    with pytest.raises(ModelFileError, match=message):
        open_parameters(path)


def test_linear_scaling_and_divisors_lower_the_frequencies():
    architecture = tiny_architecture()
    plain_frequencies = rope_frequencies(architecture)
    expected = 10000.0 ** (-np.arange(8) / 8)
    assert np.allclose(plain_frequencies, expected, rtol=1e-6)
    scaled = dataclasses.replace(architecture, rope_scaling=RopeScaling("linear", 4.0))
    assert np.allclose(rope_frequencies(scaled), expected / 4, rtol=1e-6)
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    assert np.allclose(rope_frequencies(architecture, factors), expected / factors, rtol=1e-6)


def test_k_formats_need_rows_of_256(tmp_path):
    narrow = build_gguf(tmp_path / "wide.gguf", wide_architecture(), TensorType.Q4_K)
    data = bytearray(narrow.read_bytes())
    at = data.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4
    data[at : at + 8] = struct.pack("<Q", 128)
    narrow.write_bytes(data)
    with pytest.raises(ModelFileError, match=r'"blk.0.attn_q.weight" at byte .* Q4_K blocks'):
        open_parameters(narrow)
