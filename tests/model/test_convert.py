import dataclasses
import json
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from oneiros.errors import ModelFileError, UnsupportedModelError
from oneiros.model import catalog
from oneiros.model.architecture import rope_frequencies
from oneiros.model.convert import convert, row_order
from oneiros.model.gguf import GGUFArray, read_gguf
from oneiros.model.gguf_writer import write_gguf
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import load_tokenizer
from oneiros.model.tokenizer_files import folder_tokenizer, gguf_tokenizer
from oneiros.model.vocabulary import SpacePrefix
from tests.model.builders import (
    CHAT_TEMPLATE,
    LLAMA3_SCALING,
    build_folder,
    build_gguf,
    tiny_architecture,
)

TEXT = "The king in the ring sat on 1234 things, and thé ☃ said:\n\n\tI'm  other.  "


def values_of(path):
    return {name: tensor.float32() for name, tensor in open_parameters(path).tensors.items()}


def assert_same_values(left, right):
    left, right = values_of(left), values_of(right)
    assert left.keys() == right.keys()
    for name, values in left.items():
        assert np.array_equal(values, right[name]), name


def ids_of(path, text=TEXT):
    return load_tokenizer(open_parameters(path)).encode(text)


# --- there and back ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_file_becomes_the_folder_of_the_same_model_and_back(tmp_path, name, tied):
    architecture = tiny_architecture(name, tied=tied, head_dim=32)
    file = build_gguf(tmp_path / "file.gguf", architecture)
    folder = build_folder(tmp_path / "folder", architecture)
    convert(file, tmp_path / "from-file")
    assert_same_values(tmp_path / "from-file", folder)
    convert(folder, tmp_path / "from-folder.gguf")
    assert_same_values(tmp_path / "from-folder.gguf", file)
    assert open_parameters(tmp_path / "from-folder.gguf").architecture == architecture
    assert open_parameters(tmp_path / "from-file").architecture == dataclasses.replace(
        architecture, rope_interleaved=False
    )


def test_llama_biases_move_with_their_rows(tmp_path):
    architecture = tiny_architecture(attention_bias=True)
    file = build_gguf(tmp_path / "file.gguf", architecture)
    convert(file, tmp_path / "folder")
    assert_same_values(tmp_path / "folder", build_folder(tmp_path / "expected", architecture))
    convert(tmp_path / "folder", tmp_path / "back.gguf")
    assert_same_values(tmp_path / "back.gguf", file)


def test_reordered_rows_give_the_same_attention_scores():
    architecture = tiny_architecture(rope_interleaved=False)
    half, dim = architecture.head_dim // 2, architecture.head_dim
    generator = np.random.default_rng(3)
    queries, keys = generator.standard_normal((2, architecture.heads * dim))
    angles = rope_frequencies(architecture) * 5

    def rotated(vector, first, second):
        heads = vector.reshape(-1, dim)
        turned = heads.copy()
        turned[:, first] = heads[:, first] * np.cos(angles) - heads[:, second] * np.sin(angles)
        turned[:, second] = heads[:, first] * np.sin(angles) + heads[:, second] * np.cos(angles)
        return turned

    halves = slice(0, half), slice(half, dim)
    pairs = slice(0, dim, 2), slice(1, dim, 2)
    order = row_order(len(queries), architecture, True)
    expected = (rotated(queries, *halves) * keys.reshape(-1, dim)).sum(axis=1)
    found = (rotated(queries[order], *pairs) * keys[order].reshape(-1, dim)).sum(axis=1)
    assert np.allclose(found, expected)
    assert row_order(len(queries), architecture, False) is None


@pytest.mark.parametrize(
    "tensor_type",
    [TensorType.Q5_0, TensorType.Q5_1, TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K],
    ids=lambda t: t.name,
)
def test_formats_that_are_only_read_can_be_converted(tmp_path, tensor_type):
    file = build_gguf(tmp_path / "file.gguf", tensor_type=tensor_type)
    convert(file, tmp_path / "f32.gguf", tensor_type=TensorType.F32)
    assert_same_values(file, tmp_path / "f32.gguf")
    convert(file, tmp_path / "same.gguf")
    assert read_gguf(tmp_path / "same.gguf").tensors["blk.0.attn_q.weight"].type is tensor_type


def test_llama3_scaling_becomes_divisors_and_back(tmp_path):
    architecture = tiny_architecture(rope_scaling=LLAMA3_SCALING)
    folder = build_folder(tmp_path / "folder", architecture)
    expected = rope_frequencies(open_parameters(folder).architecture)
    convert(folder, tmp_path / "file.gguf")
    file = open_parameters(tmp_path / "file.gguf")
    factors = file.tensors["rope_freqs.weight"].float32()
    assert file.architecture.rope_scaling is None
    assert len(np.unique(factors)) > 2
    assert np.allclose(rope_frequencies(file.architecture, factors), expected, rtol=1e-6)
    convert(tmp_path / "file.gguf", tmp_path / "back")
    assert open_parameters(tmp_path / "back").architecture.rope_scaling == LLAMA3_SCALING


def test_divisors_without_a_name_stay_in_gguf(tmp_path):
    file = read_gguf(build_gguf(tmp_path / "tiny.gguf"))
    tensors = [PendingTensor.stored(tensor) for tensor in file.tensors.values()]
    odd = np.linspace(1, 3, 8, dtype=np.float32)
    factors = PendingTensor.encoded("rope_freqs.weight", odd, TensorType.F32)
    write_gguf(tmp_path / "odd.gguf", file.metadata, [factors, *tensors])
    convert(tmp_path / "odd.gguf", tmp_path / "copy.gguf", tensor_type=TensorType.F16)
    assert np.array_equal(values_of(tmp_path / "copy.gguf")["rope_freqs.weight"], odd)
    with pytest.raises(UnsupportedModelError, match="rope_freqs"):
        convert(tmp_path / "odd.gguf", tmp_path / "folder")


def test_a_folder_becomes_another_folder_with_its_companions(tmp_path):
    folder = build_folder(tmp_path / "folder", shards=3)
    (folder / "special_tokens_map.json").write_text("{}")
    convert(folder, tmp_path / "copy", tensor_type=TensorType.BF16)
    names = {"config.json", "model.safetensors", "special_tokens_map.json"}
    names |= {"tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "copy").iterdir()} == names
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    tensors = open_parameters(tmp_path / "copy").tensors
    assert tensors["blk.0.attn_q.weight"].type is TensorType.BF16
    assert tensors["blk.0.attn_norm.weight"].type is TensorType.F32


# --- types ------------------------------------------------------------------------------------


def test_four_bit_files_have_eight_bits_at_the_ends_and_floats_where_rows_are_ragged(tmp_path):
    file = build_gguf(tmp_path / "file.gguf", tiny_architecture(ffn_width=144))
    convert(file, tmp_path / "q4.gguf", tensor_type=TensorType.Q4_1)
    found = read_gguf(tmp_path / "q4.gguf")
    types = {name: tensor.type.name for name, tensor in found.tensors.items()}
    assert types["token_embd.weight"] == types["output.weight"] == "Q8_0"
    assert types["blk.0.attn_q.weight"] == types["blk.1.ffn_up.weight"] == "Q4_1"
    assert types["blk.0.ffn_down.weight"] == "F16"  # rows of 144
    assert types["blk.0.attn_norm.weight"] == types["output_norm.weight"] == "F32"
    assert found.metadata["general.file_type"] == 3
    assert found.metadata["general.quantization_version"] == 2


@pytest.mark.parametrize(
    ("tensor_type", "number"),
    [("F32", 0), ("F16", 1), ("Q4_0", 2), ("Q8_0", 7), ("BF16", 32)],
)
def test_matrices_get_the_type_that_is_asked_for(tmp_path, tensor_type, number):
    folder = build_folder(tmp_path / "folder", tensor_type=TensorType.BF16)
    convert(folder, tmp_path / "file.gguf", tensor_type=TensorType[tensor_type])
    found = read_gguf(tmp_path / "file.gguf")
    assert found.tensors["blk.1.ffn_down.weight"].type.name == tensor_type
    assert found.metadata["general.file_type"] == number
    before, after = values_of(folder), values_of(tmp_path / "file.gguf")
    error = after["blk.1.ffn_down.weight"] - before["blk.1.ffn_down.weight"]
    assert np.abs(error).max() <= (0.05 if tensor_type == "Q4_0" else 0.003)


def test_types_stay_as_they_are_if_none_is_asked_for(tmp_path):
    file = build_gguf(tmp_path / "a.gguf", embedding_type=TensorType.Q8_0)
    convert(file, tmp_path / "b.gguf")
    convert(tmp_path / "b.gguf", tmp_path / "folder")
    tensors = safetensors.numpy.load_file(tmp_path / "folder" / "model.safetensors")
    assert tensors["model.embed_tokens.weight"].dtype == np.float16
    assert tensors["model.layers.0.mlp.up_proj.weight"].dtype == np.float32
    assert read_gguf(tmp_path / "b.gguf").tensors["token_embd.weight"].type is TensorType.Q8_0


def test_a_folder_is_not_written_in_a_quantised_format(tmp_path):
    file = build_gguf(tmp_path / "file.gguf")
    with pytest.raises(ModelFileError, match="not written as Q8_0; choose one of f32, f16, bf16"):
        convert(file, tmp_path / "folder", tensor_type=TensorType.Q8_0)
    with pytest.raises(ModelFileError, match="not written as Q6_K"):
        convert(file, tmp_path / "other.gguf", tensor_type=TensorType.Q6_K)


def test_a_value_that_the_type_cannot_hold_is_named_and_nothing_is_left(tmp_path):
    file = read_gguf(build_gguf(tmp_path / "file.gguf"))
    tensors = [PendingTensor.stored(tensor) for tensor in file.tensors.values()]
    large = np.full((64, 64), 1e6, np.float32)
    name = "blk.0.attn_output.weight"
    tensors = [
        PendingTensor.encoded(name, large, TensorType.F32) if tensor.name == name else tensor
        for tensor in tensors
    ]
    write_gguf(tmp_path / "file.gguf", file.metadata, tensors)
    for destination in ("half.gguf", "half"):
        with pytest.raises(ModelFileError, match=r'"blk\.0\.attn_output\.weight" .* as F16.*bf16'):
            convert(tmp_path / "file.gguf", tmp_path / destination, tensor_type=TensorType.F16)
    assert [path.name for path in tmp_path.iterdir()] == ["file.gguf"]


# --- tokenizer and chat template --------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_tokenizer_and_the_template_go_along(tmp_path, name):
    architecture = tiny_architecture(name)
    file = build_gguf(tmp_path / "file.gguf", architecture)
    convert(file, tmp_path / "folder")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    assert theirs.encode(TEXT).ids == ids_of(file) == ids_of(tmp_path / "folder")
    assert theirs.decode(theirs.encode(TEXT).ids) == TEXT
    assert theirs.encode("a<|im_end|>").tokens == ["a", "<|im_end|>"]
    config = json.loads((tmp_path / "folder" / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE
    assert (config["bos_token"], config["eos_token"]) == ("<|endoftext|>", "<|im_end|>")
    convert(tmp_path / "folder", tmp_path / "back.gguf")
    before, after = read_gguf(file).metadata, read_gguf(tmp_path / "back.gguf").metadata
    for key, value in before.items():
        if isinstance(value, GGUFArray):
            assert list(after[key]) == list(value), key
        elif key.startswith("tokenizer."):
            assert after[key] == value, key
    assert after["general.name"] == "folder"


def test_a_template_in_a_file_of_its_own_goes_along(tmp_path):
    folder = build_folder(tmp_path / "folder")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    convert(folder, tmp_path / "file.gguf")
    assert read_gguf(tmp_path / "file.gguf").metadata["tokenizer.chat_template"] == "{{ messages }}"


def test_rows_without_a_token_get_placeholders(tmp_path):
    folder = build_folder(tmp_path / "folder", tiny_architecture("qwen2", vocabulary=300))
    convert(folder, tmp_path / "file.gguf")
    metadata = read_gguf(tmp_path / "file.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"].strings()[287:] == [
        "<|im_end|>",
        *(f"[PAD{token_id}]" for token_id in range(288, 300)),
    ]
    assert metadata["tokenizer.ggml.token_type"].values()[287:] == [3] + [5] * 12
    assert ids_of(tmp_path / "file.gguf") == ids_of(folder)


def test_a_pre_tokenizer_without_a_name_is_refused(tmp_path):
    folder = build_folder(tmp_path / "folder")
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(UnsupportedModelError, match="no name for its pre-tokenizer"):
        convert(folder, tmp_path / "file.gguf")


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    folder = build_folder(tmp_path / "folder")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"neither tokenizer\.json nor"):
        convert(folder, tmp_path / "file.gguf")


def sentencepiece_metadata(**changes):
    """A SentencePiece-like vocabulary of 288 tokens: 3 special, 256 bytes, characters, pieces."""
    words = ["▁t", "he", "▁the", "in", "ing", "▁a", "nd", "▁and", "▁k", "▁▁"]
    characters = list("▁abdeghiknrst.é")
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    ordinary = [*words, *characters]
    pieces += [*ordinary, *(f"[PAD{n}]" for n in range(288 - len(pieces) - len(ordinary)))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(ordinary)
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(ordinary))]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": kinds + [5] * (288 - len(kinds)),
        "tokenizer.ggml.scores": scores + [0.0] * (288 - len(scores)),
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
    }
    return metadata | changes


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_vocabulary_goes_along(tmp_path, prefix):
    metadata = sentencepiece_metadata(**{"tokenizer.ggml.add_space_prefix": prefix})
    file = build_gguf(tmp_path / "file.gguf", metadata=metadata)
    convert(file, tmp_path / "folder")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    ours = load_tokenizer(open_parameters(file))
    for text in (TEXT, "the king and the ring", "thing  ing", "  ", "☃"):
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)
        assert theirs.encode(text).ids == ours.prompt_ids(text)
        assert theirs.decode(theirs.encode(text).ids) == text
    convert(tmp_path / "folder", tmp_path / "back.gguf")
    back = load_tokenizer(open_parameters(tmp_path / "back.gguf"))
    assert back.encode(TEXT) == ours.encode(TEXT)
    assert back.add_bos
    metadata = read_gguf(tmp_path / "back.gguf").metadata
    assert metadata["tokenizer.ggml.add_space_prefix"] is prefix


def test_a_space_before_the_first_word_only_goes_along(tmp_path):
    file = build_gguf(tmp_path / "file.gguf", metadata=sentencepiece_metadata())
    vocabulary = load_tokenizer(open_parameters(file)).vocabulary
    first = dataclasses.replace(vocabulary, space_prefix=SpacePrefix.FIRST)
    files = folder_tokenizer(first, None)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    found = theirs.encode("the<s>the", add_special_tokens=False).tokens
    assert found == ["▁the", "<s>", "t", "he"]
    assert gguf_tokenizer(first, 288, None)["tokenizer.ggml.add_space_prefix"] is True


def test_more_tokens_than_rows_are_refused(tmp_path):
    vocabulary = load_tokenizer(open_parameters(build_gguf(tmp_path / "a.gguf"))).vocabulary
    with pytest.raises(ModelFileError, match="288 tokens, and the embedding 287 rows"):
        gguf_tokenizer(vocabulary, 287, None)


# --- the destination --------------------------------------------------------------------------


def test_nothing_that_exists_is_overwritten(tmp_path):
    file = build_gguf(tmp_path / "file.gguf")
    before = file.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").touch()
    for destination in (file, tmp_path / "folder"):
        with pytest.raises(ModelFileError, match="exists already"):
            convert(file, destination)
    assert file.read_bytes() == before
    (tmp_path / "empty").mkdir()
    convert(file, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").exists()


def test_a_destination_in_no_folder_is_refused(tmp_path):
    file = build_gguf(tmp_path / "file.gguf")
    with pytest.raises(ModelFileError, match="no such folder to write into"):
        convert(file, tmp_path / "missing" / "file.gguf")


@pytest.mark.parametrize("destination", ["b.gguf", "b"])
def test_progress_rises_to_the_whole(tmp_path, destination):
    seen = []
    file = build_gguf(tmp_path / "a.gguf")
    convert(file, tmp_path / destination, progress=lambda done, total: seen.append((done, total)))
    assert all(before[0] < after[0] for before, after in pairwise(seen))
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


def test_memory_is_bounded_by_pieces_and_not_by_the_model(tmp_path):
    # 48 MB of float32 in one tensor; a piece has 4 million elements in a few copies.
    architecture = tiny_architecture(width=1024, vocabulary=12288, layers=1)
    pad = [f"t{n}" for n in range(12288 - 288)]
    metadata = {
        "tokenizer.ggml.tokens": [*tokens(tmp_path), *pad],
        "tokenizer.ggml.token_type": [1] * 285 + [3] * 3 + [5] * len(pad),
    }
    file = build_gguf(tmp_path / "large.gguf", architecture, TensorType.F16, metadata=metadata)
    largest = 12288 * 1024 * 4
    tracemalloc.start()
    try:
        convert(file, tmp_path / "small.gguf", tensor_type=TensorType.Q8_0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < largest


def tokens(folder):
    return read_gguf(build_gguf(folder / "t.gguf")).metadata["tokenizer.ggml.tokens"].strings()


@pytest.mark.parametrize(
    ("name", "tensor_type"),
    [
        ("smollm2-135m", TensorType.Q4_1),
        pytest.param("qwen2.5-coder-0.5b", TensorType.Q8_0, marks=pytest.mark.long),
        pytest.param("qwen2.5-coder-1.5b", TensorType.BF16, marks=pytest.mark.long),
    ],
)
def test_a_real_model_survives_the_way_through_a_folder(tmp_path, name, tensor_type):
    source = catalog.resolve(name)
    convert(source, tmp_path / "folder", tensor_type=TensorType.F32)
    convert(tmp_path / "folder", tmp_path / "back.gguf", tensor_type=tensor_type)
    before, after = open_parameters(source), open_parameters(tmp_path / "back.gguf")
    assert after.architecture == before.architecture
    for tensor_name, tensor in before.tensors.items():
        found = after.tensors[tensor_name].float32()
        scale = float(np.abs(tensor.float32()).max())
        # Q4_1 values are on the grid that they are rounded to; others move by half a step.
        atol = scale * (1e-3 if tensor_type is TensorType.Q4_1 else 5e-3)
        assert np.allclose(found, tensor.float32(), rtol=0, atol=atol), tensor_name
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    expected = load_tokenizer(before).encode(TEXT)
    assert theirs.encode(TEXT).ids == load_tokenizer(after).encode(TEXT) == expected
