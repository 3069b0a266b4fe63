import gguf
import gguf.quants
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.model.quantization import QUANTIZABLE, dequantize, quantize
from oneiros.model.tensor_types import TensorType

EVERY_TYPE = pytest.mark.parametrize("tensor_type", list(TensorType), ids=lambda t: t.name)
EVERY_WRITTEN_TYPE = pytest.mark.parametrize(
    "tensor_type", sorted(QUANTIZABLE), ids=lambda t: t.name
)


def reference_dequantize(blocks, tensor_type):
    """The `gguf` package's float32 values of uint8 (rows, bytes)."""
    floats = {TensorType.F32: np.float32, TensorType.F16: np.float16}
    stored = blocks.view(floats.get(tensor_type, np.uint8))
    kind = gguf.GGMLQuantizationType(int(tensor_type))
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(stored, kind).astype(np.float32)


@EVERY_TYPE
def test_block_sizes_are_those_of_the_gguf_package(tensor_type):
    sizes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(int(tensor_type))]
    assert (tensor_type.block_size, tensor_type.block_bytes) == sizes


@EVERY_TYPE
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_stored_bytes_decode_to_exactly_what_ggml_computes(tensor_type, seed):
    blocks = np.random.default_rng(seed).integers(
        0, 256, (4, 3 * tensor_type.block_bytes), dtype=np.uint8
    )
    expected = reference_dequantize(blocks, tensor_type).reshape(-1)
    found = dequantize(blocks.reshape(-1), tensor_type)
    number = ~np.isnan(expected)
    assert np.array_equal(np.isnan(found), ~number)
    assert np.array_equal(found.view(np.uint32)[number], expected.view(np.uint32)[number])


@EVERY_TYPE
def test_decoding_in_pieces_is_decoding_at_once(tensor_type):
    generator = np.random.default_rng(1)
    count = 3 * (1 << 18) // tensor_type.block_size + 5
    block = generator.integers(0, 60, (count, tensor_type.block_bytes), dtype=np.uint8)
    found = dequantize(block.reshape(-1), tensor_type).reshape(count, -1)
    for index in (0, 1, count // 2, count - 1):
        assert np.array_equal(found[index], dequantize(block[index], tensor_type))


@EVERY_TYPE
def test_partial_blocks_are_refused(tensor_type):
    with pytest.raises(ValueError, match="whole number"):
        dequantize(np.zeros(tensor_type.block_bytes * 2 + 1, np.uint8), tensor_type)


@EVERY_WRITTEN_TYPE
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-36, 3))
def test_encoding_rounds_exactly_as_ggml_does(tensor_type, seed, exponent):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((8, 64), dtype=np.float32) * np.float32(10.0**exponent)
    values[0] = 0
    values[1] = values[1, 0]
    values[2, ::2] = 0
    with np.errstate(all="ignore"):
        expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType(int(tensor_type)))
    assert np.array_equal(quantize(values, tensor_type), expected.view(np.uint8).reshape(-1))


@pytest.mark.parametrize(
    ("tensor_type", "steps"),
    [(TensorType.Q8_0, 254), (TensorType.Q4_1, 15), (TensorType.Q4_0, 15)],
    ids=["Q8_0", "Q4_1", "Q4_0"],
)
def test_the_error_of_a_block_is_bounded_by_its_step(tensor_type, steps):
    values = np.random.default_rng(2).uniform(-1, 1, (64, 32)).astype(np.float32)
    found = dequantize(quantize(values, tensor_type), tensor_type).reshape(values.shape)
    reach = 2 * np.abs(values).max(axis=1, keepdims=True)
    # Q4_0 has no level at the far end of the weaker sign, so that end is one step off.
    slack = 1.05 if tensor_type is TensorType.Q4_0 else 0.55
    assert np.all(np.abs(found - values) <= slack * reach / steps)


@pytest.mark.parametrize("tensor_type", [TensorType.F32, TensorType.F16, TensorType.BF16])
def test_values_that_a_float_format_holds_survive_it(tensor_type):
    values = np.array([[0.0, -0.0, 1.0, -2.5, 2.0**-14, np.inf, -np.inf]], np.float32)
    found = dequantize(quantize(values, tensor_type), tensor_type)
    assert np.array_equal(found.view(np.uint32), values.reshape(-1).view(np.uint32))
    assert np.isnan(dequantize(quantize(np.array([np.nan], np.float32), tensor_type), tensor_type))


def test_a_value_beyond_half_precision_is_refused():
    with pytest.raises(ValueError, match="65504"):
        quantize(np.full((1, 32), 70000, np.float32), TensorType.F16)
    with pytest.raises(ValueError, match="65504"):
        quantize(np.full((1, 32), -65520 * 8.0, np.float32), TensorType.Q4_1)


@pytest.mark.parametrize("tensor_type", [TensorType.Q8_0, TensorType.Q4_0, TensorType.Q4_1])
def test_blocks_too_small_for_a_scale_are_zero(tensor_type):
    values = np.full((1, 32), 1e-40, np.float32)
    values[0, 0] = -1e-40
    assert np.abs(dequantize(quantize(values, tensor_type), tensor_type)).max() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("tensor_type", [TensorType.Q8_0, TensorType.Q4_0, TensorType.Q4_1])
def test_values_that_no_block_can_hold_are_refused(tensor_type, value):
    values = np.zeros((1, 32), np.float32)
    values[0, 3] = value
    with pytest.raises(ValueError, match="not finite or too large"):
        quantize(values, tensor_type)


def test_formats_that_are_only_read_and_ragged_rows_are_refused():
    with pytest.raises(ValueError, match="Q6_K"):
        quantize(np.zeros((1, 256), np.float32), TensorType.Q6_K)
    with pytest.raises(ValueError, match="blocks of 32"):
        quantize(np.zeros((2, 48), np.float32), TensorType.Q8_0)
