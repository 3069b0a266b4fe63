"""Damaged and hostile files: always a clear error or a sound model, never anything else."""

import contextlib
import json
import os
import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import ModelFileError
from oneiros.model.gguf import GGUFArray, GGUFType, read_gguf
from oneiros.model.gguf_writer import write_gguf
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from tests.model.builders import build_folder, build_gguf, tiny_architecture

SMALL = tiny_architecture("qwen2", layers=1, width=32, heads=2, kv_heads=1, ffn_width=32)

# What a hostile file puts where a count, a length, an offset or a dimension belongs.
NUMBERS = (0, 1, 3, 255, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The bytes of a small valid GGUF file, and where its tensor data start."""
    path = tmp_path_factory.mktemp("valid") / "valid.gguf"
    build_gguf(path, SMALL, TensorType.Q4_1, embedding_type=TensorType.Q8_0)
    data = path.read_bytes()
    size = sum(-(-t.data.nbytes // 32) * 32 for t in read_gguf(path).tensors.values())
    return data, len(data) - size


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Where the damaged file goes, over and over."""
    return tmp_path_factory.mktemp("hostile") / "hostile.gguf"


def read_everything(path):
    """Open a model and touch all that it holds."""
    parameters = open_parameters(path)
    for tensor in parameters.tensors.values():
        tensor.float32()
    for value in parameters.metadata.values():
        read_array(value)
    return parameters


def read_array(value):
    if isinstance(value, GGUFArray):
        for item in value.values():
            read_array(item)
        if value.item_type is GGUFType.STRING:
            value.strings()


def outcome(path, allowance=0):
    """The message of the refusal, or None; and no more memory than a small multiple of the file."""
    limit = 30 * path.stat().st_size + 4_000_000 + allowance
    tracemalloc.start()
    try:
        read_everything(path)
    except ModelFileError as error:
        message = str(error)
        assert path.name in message or "array at byte" in message
        assert len(message) < 3000
        return message
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < limit
    return None


def refusal(path):
    message = outcome(path)
    assert message is not None
    return message


# --- GGUF -------------------------------------------------------------------------------------


def test_every_truncation_of_a_valid_file_is_refused_clearly(valid, target):
    data, header = valid
    target.write_bytes(data)
    assert outcome(target) is None
    # Every point in the header; in the tensors' bytes, where nothing is parsed, every 37th. The
    # last bytes pad the last tensor, whose end is one truncation too many.
    end = max(start for start in range(len(data)) if data[start])
    points = [*range(end - 40, header, -37), *range(header, 0, -1)]
    for size in points:
        os.truncate(target, size)
        with pytest.raises(ModelFileError) as caught:
            open_parameters(target)
        assert "byte" in str(caught.value), size
    os.truncate(target, 0)
    assert "is empty" in refusal(target)


def position(header, generator):
    """A byte of the header. Most of it is vocabulary, and half of the draws avoid that."""
    return generator.randrange(generator.choice((0, header - 2500)), header - 8)


def flip_bits(data, header, generator):
    mutant = bytearray(data)
    for _ in range(generator.randrange(1, 9)):
        mutant[position(header, generator)] ^= 1 << generator.randrange(8)
    return mutant


def put_absurd_number(data, header, generator):
    at, width = position(header, generator), generator.choice((4, 8))
    number = generator.choice(NUMBERS).to_bytes(8, "little")
    return data[:at] + number[:width] + data[at + width :]


def move_bytes(data, header, generator):
    """Drop, double or move a piece of the header."""
    start, to = position(header, generator), position(header, generator)
    piece = data[start : start + generator.randrange(1, 200)]
    without = data[:start] + data[start + len(piece) :]
    doubled, moved = data[:to] + piece + data[to:], without[:to] + piece + without[to:]
    return generator.choice((without, doubled, moved))


MUTATE = pytest.mark.parametrize("mutate", [flip_bits, put_absurd_number, move_bytes])


@MUTATE
@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_mutated_file_opens_or_is_refused(valid, target, mutate, seed):
    target.write_bytes(mutate(*valid, random.Random(seed)))
    outcome(target)


@MUTATE
@pytest.mark.long
def test_a_hundred_thousand_mutated_files_open_or_are_refused(valid, target, mutate):
    for seed in range(100_000):
        target.write_bytes(mutate(*valid, random.Random(seed)))
        outcome(target)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200), version=st.sampled_from((2, 3)))
def test_random_bytes_after_the_magic_are_refused(target, body, version):
    target.write_bytes(b"GGUF" + struct.pack("<I", version) + body)
    refusal(target)


@pytest.mark.parametrize("at", [8, 16])
@pytest.mark.parametrize("number", [1 << 17, 1 << 40, (1 << 64) - 1])
def test_oversized_counts_are_refused_at_once(valid, target, at, number):
    data = bytearray(valid[0])
    data[at : at + 8] = struct.pack("<Q", number)
    target.write_bytes(data)
    field = "tensor count" if at == 8 else "metadata count"
    assert f"{field} at byte {at} is {number:,}" in refusal(target)


def test_the_other_kinds_of_file_are_named(target):
    target.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "Git LFS pointer" in refusal(target)
    target.write_bytes(b"PK\x03\x04" + bytes(60))
    assert "magic at byte 0 is b'PK" in refusal(target)
    target.write_bytes(b"GGUF" + struct.pack(">I", 3) + bytes(60))
    assert "big-endian" in refusal(target)
    target.write_bytes(b"GGUF" + struct.pack("<I", 1) + bytes(60))
    assert "version at byte 4 is 1" in refusal(target)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_parameters(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ModelFileError, match="cannot be opened"):
        open_parameters(tmp_path / "loop")


def pair(key, kind, content):
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + content


def metadata_file(target, *pairs):
    target.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))
    return target


def array(kind, count, content=b""):
    return struct.pack("<IQ", kind, count) + content


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([pair(b"a", 4, bytes(4))] * 2, '"a" at byte 41 appears twice'),
        ([pair(b"a", 99, b"")], '"a" at byte 33 has the unknown value type 99'),
        ([pair(b"a", 7, b"\x02")], '"a" at byte 37 is the bool 2'),
        ([pair(b"a", 8, struct.pack("<Q", 1 << 60))], '"a" at byte 45 needs'),
        ([pair(b"a", 8, struct.pack("<Q", 2) + b"\xff\xfe")], '"a" at byte 45 is not UTF-8'),
        ([pair(b"\xff", 4, bytes(4))], "metadata key 0 at byte 32 is not UTF-8"),
        ([pair(b"", 4, bytes(4))], "metadata key 0 at byte 24 has the name"),
        ([pair(b"a\nb", 4, bytes(4))], "metadata key 0 at byte 24 has the name"),
        ([struct.pack("<Q", 1 << 20) + bytes(1 << 20)], "has a length of 1,048,576"),
        ([pair(b"a", 9, array(4, 1 << 60))], "array of 1,152,921,504,606,846,976 elements"),
        ([pair(b"a", 9, array(8, 1 << 40))], "more than the file can hold"),
        ([pair(b"a", 9, array(8, 2, bytes(8) + struct.pack("<Q", 90)))], "runs past the end"),
        ([pair(b"a", 9, array(8, 2, struct.pack("<Q", (1 << 64) - 1) + bytes(20)))], "past the"),
        ([pair(b"a", 9, array(9, 1) * 5 + array(4, 0))], "nests arrays more than 4 deep"),
        ([pair(b"a", 9, array(9, 1) * 200_000)], "nests arrays more than 4 deep"),
        ([pair(b"a", 9, array(9, 1 << 60))], "more than the file can hold"),
        ([pair(b"a", 9, array(13, 0))], "unknown value type 13"),
        ([pair(b"general.alignment", 4, struct.pack("<I", 0))], "is 0, and a power of two"),
        ([pair(b"general.alignment", 4, struct.pack("<I", 24))], "is 24, and a power of two"),
        ([pair(b"general.alignment", 4, struct.pack("<I", 1 << 31))], "and a power of two"),
        ([pair(b"general.alignment", 7, b"\x01")], "is True, and a power of two"),
        ([pair(b"general.alignment", 9, array(4, 0))], "a power of two"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_malformed_metadata_are_refused_by_name_and_byte(target, pairs, message):
    found = refusal(metadata_file(target, *pairs))
    assert message in found


def test_a_bool_in_an_array_is_checked_when_it_is_read(target):
    content = array(7, 3, b"\x01\x00\x07")
    values = read_gguf(metadata_file(target, pair(b"a", 9, content))).metadata["a"]
    with pytest.raises(ModelFileError, match="is the bool 7"):
        values.values()


def test_many_small_arrays_in_an_array_take_little_memory(target):
    count = 50_000
    metadata_file(target, pair(b"a", 9, array(9, count, array(0, 0) * count)))
    assert "general.architecture" in refusal(target)


def described(name, shape, kind, offset):
    text = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
    return text + struct.pack(f"<{len(shape)}QIQ", *shape, kind, offset)


def tensor_file(target, *descriptions, data=256):
    header = b"GGUF" + struct.pack("<IQQ", 3, len(descriptions), 0) + b"".join(descriptions)
    target.write_bytes(header + bytes(-len(header) % 32 + data))
    return target


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ([described(b"a", (8,), 0, 0)] * 2, '"a" at byte 57 appears twice'),
        ([described(b"a", (8,), 0, 0), described(b"b", (8,), 0, 0)], 'overlaps tensor "a"'),
        ([described(b"a", (16,), 0, 0), described(b"b", (8,), 0, 32)], 'overlaps tensor "a"'),
        ([described(b"a", (8,), 0, 4)], '"a" at byte 24 has offset 4, not a multiple of 32'),
        ([described(b"a", (8,), 0, 256)], '"a" ends at byte'),
        ([described(b"a", (8,), 0, (1 << 64) - 32)], '"a" ends at byte'),
        ([described(b"a", (1 << 62,), 0, 0)], '"a" ends at byte'),
        ([described(b"a", (1 << 62, 1 << 62, 1 << 62), 0, 0)], '"a" ends at byte'),
        ([described(b"a", (0,), 0, 0)], "has shape (0,)"),
        ([described(b"a", (31,), 3, 0)], "not a whole number of Q4_1 blocks of 32"),
        ([described(b"a", (), 0, 0)], "has 0 dimensions"),
        ([described(b"a", (1,) * 5, 0, 0)], "has 5 dimensions"),
        ([described(b"a", (8,), 10, 0)], "has the tensor type 10; read are F32"),
        ([described(b"a", (8,), 4_000_000_000, 0)], "has the tensor type 4000000000"),
        ([described(b"\xc3", (8,), 0, 0)], "tensor 0 at byte 32 is not UTF-8"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_malformed_tensors_are_refused_by_name_and_byte(target, descriptions, message):
    assert message in refusal(tensor_file(target, *descriptions))


def test_gaps_between_tensors_are_harmless(tmp_path):
    path = build_gguf(tmp_path / "tiny.gguf")
    file = read_gguf(path)
    last = list(file.tensors)[-1]
    expected, size = file.tensors[last].float32(), file.tensors[last].data.nbytes
    data = bytearray(path.read_bytes())
    name = struct.pack("<Q", len(last)) + last.encode()
    at = data.index(name) + len(name) + 4 + 16 + 4
    offset = struct.unpack_from("<Q", data, at)[0]
    data[at : at + 8] = struct.pack("<Q", offset + 64)
    data = data[:-size] + bytes(64) + data[-size:]
    path.write_bytes(data)
    assert (open_parameters(path).tensors[last].float32() == expected).all()


def test_weights_of_any_bytes_are_read(tmp_path):
    for tensor_type in TensorType:
        path = build_gguf(tmp_path / f"{tensor_type.name}.gguf", tensor_type=tensor_type)
        data = bytearray(path.read_bytes())
        data[-20_000:] = random.Random(int(tensor_type)).randbytes(20_000)
        path.write_bytes(data)
        assert outcome(path) is None


# --- Hugging Face folders ---------------------------------------------------------------------

WRONG = (None, True, "x", "", -1, 0, 1, 1.5, 1e308, 10**30, [], [1], {}, {"a": 1}, "../x", [[[]]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in shards whose files tests damage and put back."""
    return build_folder(tmp_path_factory.mktemp("valid") / "model", SMALL, shards=2)


@contextlib.contextmanager
def damaged(path, data):
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def folder_outcome(folder):
    try:
        read_everything(folder)
    except ModelFileError as error:
        return str(error)
    return None


def test_any_wrong_value_in_the_configuration_is_refused_or_harmless(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    extra = ("rope_parameters", "layer_types", "sliding_window", "quantization_config")
    needed = {"architectures", "hidden_size", "num_hidden_layers", "num_attention_heads"}
    needed |= {
        "num_key_value_heads",
        "vocab_size",
        "intermediate_size",
        "rms_norm_eps",
        "max_position_embeddings",
    }
    for key in (*config, *extra, "use_sliding_window", "partial_rotary_factor"):
        without = {name: value for name, value in config.items() if name != key}
        with damaged(path, json.dumps(without).encode()):
            message = folder_outcome(folder)
            assert (message is not None) == (key in needed), key
            assert message is None or key in message
        for value in WRONG:
            with damaged(path, json.dumps(without | {key: value}).encode()):
                folder_outcome(folder)


def test_any_wrong_value_in_the_rotary_settings_is_refused_or_harmless(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    scaling |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    for key in scaling:
        for value in WRONG:
            changed = config | {"rope_scaling": scaling | {key: value}}
            with damaged(path, json.dumps(changed).encode()):
                folder_outcome(folder)


FILES = ("config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors")


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_of_a_folders_file_is_refused(folder, name):
    path = folder / name
    data = path.read_bytes()
    # In a shard, every point of the header and some of the data.
    dense = 2000 if name.endswith(".safetensors") else len(data)
    with damaged(path, data):
        for size in (*range(len(data) - 1, dense, -499), *range(min(dense, len(data)) - 1, -1, -1)):
            os.truncate(path, size)
            message = folder_outcome(folder)
            assert message is not None
            assert name in message


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(1, 6))
def test_flipped_bits_in_a_shard_never_crash(folder, seed, flips):
    path = folder / "model-00002-of-00002.safetensors"
    data = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", data[:8])[0]
    generator = random.Random(seed)
    for _ in range(flips):
        data[generator.randrange(header)] ^= 1 << generator.randrange(8)
    with damaged(path, bytes(data)):
        folder_outcome(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    entry=st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), JSON) | JSON,
    name=st.sampled_from(["model.norm.weight", "a", "__metadata__", ""]),
)
def test_any_json_as_a_header_is_refused(folder, entry, name):
    text = json.dumps({name: entry}).encode()
    path = folder / "model-00001-of-00002.safetensors"
    with damaged(path, struct.pack("<Q", len(text)) + text + bytes(16)):
        assert folder_outcome(folder) is not None


@settings(max_examples=100, deadline=None)
@given(content=JSON)
def test_any_json_as_an_index_or_a_configuration_is_refused(folder, content):
    text = json.dumps(content).encode()
    for name in ("config.json", "model.safetensors.index.json"):
        with damaged(folder / name, text):
            assert folder_outcome(folder) is not None
    with damaged(folder / "model.safetensors.index.json", b'{"weight_map": ' + text + b"}"):
        assert folder_outcome(folder) is not None


def test_a_deeply_nested_or_huge_configuration_is_refused(folder):
    with damaged(folder / "config.json", b'{"a":' * 100_000):
        assert "config.json" in (folder_outcome(folder) or "")
    with damaged(folder / "config.json", b" " * (17 << 20)):
        assert "more than 16,777,216 bytes" in (folder_outcome(folder) or "")


def test_a_refused_write_leaves_nothing_behind(tmp_path):
    tensor = PendingTensor("a", TensorType.F32, (1 << 40,), list)
    with pytest.raises(ValueError, match="its shape needs"):
        write_gguf(tmp_path / "a.gguf", {}, [tensor])
    assert list(tmp_path.iterdir()) == []
