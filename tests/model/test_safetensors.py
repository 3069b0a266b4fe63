import json

import numpy as np
import pytest
import safetensors.numpy

from oneiros.errors import ModelFileError
from oneiros.model.safetensors import read_safetensors, write_safetensors
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType

VALUES = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "vector": np.array([0.5, -2, 1e-3], np.float32),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
}


def with_header(path, header, data=b"", length=None):
    """A file with the given header (an object, or raw bytes) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + text + data)
    return path


def entry(begin, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_files_of_the_safetensors_package_are_read(tmp_path):
    path = tmp_path / "theirs.safetensors"
    others = {"positions": np.arange(4)}
    safetensors.numpy.save_file(VALUES | others, path, {"format": "pt"})
    found = read_safetensors(path)
    assert found.metadata == {"format": "pt"}
    assert found.others == {"positions": "I64"}
    assert found.tensors.keys() == VALUES.keys()
    for name, values in VALUES.items():
        assert found.tensors[name].shape == values.shape
        assert np.array_equal(found.tensors[name].float32(), values.astype(np.float32))


def test_the_safetensors_package_reads_our_files(tmp_path):
    path = tmp_path / "ours.safetensors"
    tensors = [
        PendingTensor.encoded(name, values.astype(np.float32), TensorType.F32)
        for name, values in VALUES.items()
    ]
    tensors.insert(1, PendingTensor.encoded("ä half", np.ones((3, 3), "f4"), TensorType.F16))
    write_safetensors(path, tensors, {"format": "pt"})
    found = safetensors.numpy.load_file(path)
    for name, values in VALUES.items():
        assert np.array_equal(found[name], values.astype(np.float32))
    assert found["ä half"].dtype == np.float16
    assert read_safetensors(path).tensors["ä half"].shape == (3, 3)


def test_bfloat16_survives_being_written(tmp_path):
    path = tmp_path / "ours.safetensors"
    values = np.array([[1.0, -3.0], [0.15625, 2.0**100]], np.float32)
    write_safetensors(path, [PendingTensor.encoded("a", values, TensorType.BF16)])
    found = read_safetensors(path).tensors["a"]
    assert found.type is TensorType.BF16
    assert np.array_equal(found.float32(), values)


def test_every_tensor_is_aligned_in_our_files(tmp_path):
    path = tmp_path / "ours.safetensors"
    tensors = [
        PendingTensor.encoded("half", np.ones(3, np.float32), TensorType.F16),
        PendingTensor.encoded("single", np.ones(3, np.float32), TensorType.F32),
    ]
    write_safetensors(path, tensors)
    for tensor in read_safetensors(path).tensors.values():
        assert tensor.data.ctypes.data % tensor.type.block_bytes == 0


def test_tensors_at_odd_bytes_are_read(tmp_path):
    values = np.array([1.5, -2.5], np.float32)
    header = json.dumps({"a": entry(0, 8, [2])}).encode()
    header += b" " * (1 - len(header) % 2)
    path = with_header(tmp_path / "odd.safetensors", header, values.tobytes())
    assert np.array_equal(read_safetensors(path).tensors["a"].float32(), values)


def test_a_scalar_and_an_empty_tensor_are_read(tmp_path):
    header = {"scalar": entry(0, 4, []), "empty": entry(4, 4, [0, 3])}
    path = with_header(tmp_path / "odd.safetensors", header, bytes(4))
    assert read_safetensors(path).tensors["scalar"].float32().shape == ()
    assert read_safetensors(path).tensors["empty"].float32().shape == (0, 3)


def test_formats_that_safetensors_lacks_are_not_written(tmp_path):
    zeros = PendingTensor.encoded("a", np.zeros((1, 32), np.float32), TensorType.Q8_0)
    with pytest.raises(ValueError, match="Q8_0"):
        write_safetensors(tmp_path / "a.safetensors", [zeros])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"", b"", "JSON at byte 8"),
        (b"[1]", b"", "not an object"),
        (b"{\xff}", b"", "byte 9 is not UTF-8"),
        (b'{"a": }', b"", "JSON at byte 14"),
        (b'{"a": NaN}', b"", "NaN"),
        (b"[" * 200_000, b"", "JSON from byte 8"),
        (b'{"a": ' + b"1" * 5000 + b"}", b"", "JSON from byte 8"),
        (b'{"a": 1, "a": 2}', b"", '"a" appears twice'),
        ({"a": 3}, b"", "header at byte 9: is not an object"),
        ({"a": {}}, b"", "dtype is 'None'"),
        ({"a": entry(0, 4, [1], "Q4")}, bytes(4), "dtype is 'Q4'"),
        ({"a": entry(0, 4, [1], ["F32"])}, bytes(4), "dtype is"),
        ({"a": entry(0, 4, [2])}, bytes(4), r"shape \[2\] of F32 does not fill 4 bytes"),
        ({"a": entry(0, 4, [1 << 40, 1 << 40])}, bytes(4), "does not fill"),
        ({"a": entry(0, 4, [1.0])}, bytes(4), "shape is not a list"),
        ({"a": entry(0, 4, [True])}, bytes(4), "shape is not a list"),
        ({"a": entry(0, 4, "1")}, bytes(4), "shape is not a list"),
        ({"a": entry(0, 4, [1] * 9)}, bytes(4), "does not fill"),
        ({"a": entry(-4, 0, [1])}, bytes(4), "data_offsets is not a list"),
        ({"a": entry(4, 0, [1])}, bytes(4), r"data_offsets are \[4, 0\]"),
        ({"a": entry(0, 8, [2])}, bytes(4), r'"a" ends at byte \d+ but the file has'),
        ({"a": entry(0, 4, [1]), "b": entry(2, 6, [1])}, bytes(6), '"b".* overlaps'),
        ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12), '"b".* gap'),
        ({"a": entry(0, 4, [1])}, bytes(9), "tensors end at byte"),
        ({"__metadata__": []}, b"", "is not an object"),
        ({"__metadata__": {"a": 1}}, b"", "not a string"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_malformed_headers_are_refused_by_name(tmp_path, header, data, message):
    path = with_header(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(ModelFileError, match=message):
        read_safetensors(path)


@pytest.mark.parametrize("length", [3, 1 << 20, 1 << 63, (1 << 64) - 1])
def test_a_wrong_header_length_is_refused(tmp_path, length):
    path = with_header(tmp_path / "bad.safetensors", {"a": entry(0, 4, [1])}, bytes(4), length)
    with pytest.raises(ModelFileError, match=r"bad\.safetensors: (header length|JSON) at byte"):
        read_safetensors(path)
