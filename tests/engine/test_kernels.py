"""The kernels against plain NumPy, for every format, network and instruction path."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from oneiros.engine.library import INSTRUCTION_PATHS, PATH_VARIABLE, kernels
from oneiros.engine.network import Network
from oneiros.engine.packing import packed_weights
from oneiros.errors import KernelError, UnsupportedModelError
from oneiros.model.architecture import Architecture
from oneiros.model.tensor_types import TensorType
from tests.engine.conftest import MakeEngine
from tests.engine.reference_network import reference_logits
from tests.model.builders import tiny_architecture, wide_architecture

AVAILABLE = INSTRUCTION_PATHS[: kernels().oneiros_best_instruction_path() + 1]
FLOATS = (TensorType.F32, TensorType.F16, TensorType.BF16)
NETWORKS = {
    "llama": wide_architecture("llama"),
    "qwen2": wide_architecture("qwen2"),
    "qwen3": wide_architecture("qwen3"),
    "tied": wide_architecture("llama", tied=True),
    "no-sharing": wide_architecture("llama", kv_heads=8),
    "one-kv-head": wide_architecture("qwen2", kv_heads=1),
    "wide-heads": wide_architecture("qwen3", head_dim=128, heads=4),
    "odd-heads": wide_architecture("llama", heads=12, kv_heads=4, head_dim=48),
    "odd-vocabulary": wide_architecture("llama", vocabulary=293),
}


def error(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Root mean square difference relative to the spread of the reference."""
    return float(np.sqrt(np.mean((ours - reference) ** 2)) / np.std(reference))


def tokens_of(architecture: Architecture, count: int) -> list[int]:
    generator = np.random.default_rng(count)
    return [int(t) for t in generator.integers(0, architecture.vocabulary, count)]


@pytest.mark.parametrize("path", AVAILABLE)
@pytest.mark.parametrize("tensor_type", TensorType, ids=lambda t: t.name)
def test_every_format_on_every_path_matches_numpy(
    tiny_engine: MakeEngine,
    tensor_type: TensorType,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, path)
    engine = tiny_engine(NETWORKS["qwen2"], tensor_type)
    tokens = tokens_of(engine.architecture, 45)
    logits = engine.sequence().extend(tokens, "all")
    assert logits is not None
    # A sum that differs in its last bit tips some activations over to the next of 255 steps.
    limit = 1e-4 if tensor_type in FLOATS else 0.035
    assert error(logits, reference_logits(engine.parameters, tokens)) < limit


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_matches_numpy(tiny_engine: MakeEngine, name: str) -> None:
    engine = tiny_engine(NETWORKS[name], TensorType.F32, threads=2)
    tokens = tokens_of(engine.architecture, 130)
    logits = engine.sequence().extend(tokens, "all")
    assert logits is not None
    assert logits.shape == (130, engine.architecture.vocabulary)
    assert error(logits, reference_logits(engine.parameters, tokens)) < 1e-4


@pytest.mark.parametrize("length", [256, 257, 1024, 8192])
def test_the_last_of_many_positions_matches_numpy(tiny_engine: MakeEngine, length: int) -> None:
    """One head, because the reference holds all scores at once."""
    architecture = tiny_architecture("qwen3", context=length, heads=1, kv_heads=1, head_dim=32)
    engine = tiny_engine(architecture, TensorType.BF16, threads=2)
    tokens = tokens_of(architecture, length)
    sequence = engine.sequence()
    sequence.extend(tokens[:-1], "none")
    logits = sequence.extend(tokens[-1:])
    assert logits is not None
    assert error(logits, reference_logits(engine.parameters, tokens)[-1]) < 1e-4


@pytest.mark.parametrize("tensor_type", [TensorType.Q4_1, TensorType.Q6_K, TensorType.Q8_0])
def test_vector_paths_give_the_same_bits(
    tiny_engine: MakeEngine, tensor_type: TensorType, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for path in AVAILABLE[1:]:
        monkeypatch.setenv(PATH_VARIABLE, path)
        engine = tiny_engine(NETWORKS["qwen2"], tensor_type)
        results.append(engine.sequence().extend(tokens_of(engine.architecture, 70), "all"))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("tensor_type", TensorType, ids=lambda t: t.name)
def test_an_embedding_row_is_the_dequantised_row(
    tiny_engine: MakeEngine, tensor_type: TensorType
) -> None:
    """Packing keeps weights: exactly, or to the rounding of a K format's scales to halves."""
    engine = tiny_engine(NETWORKS["tied"], tensor_type)
    network = Network(engine.parameters, packed_weights(engine.parameters, None))
    tensor = engine.parameters.tensors["token_embd.weight"]
    expected = tensor.float32()
    row = np.empty(tensor.shape[1], np.float32)
    for index in (0, 1, 15, 16, 287):
        kernels().oneiros_embedding(network.struct, index, row.ctypes.data)
        if tensor.type in (TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K):
            largest = np.abs(expected[index]).max()
            np.testing.assert_allclose(row, expected[index], atol=2.0**-10 * largest)
        else:
            np.testing.assert_array_equal(row, expected[index])


def test_an_unknown_instruction_path_is_refused(
    tiny_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, "mmx")
    with pytest.raises(KernelError, match=r"mmx.*portable, avx2"):
        tiny_engine(NETWORKS["llama"], TensorType.F32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_dim": 24}, "multiple of 16"),
        ({"ffn_width": 272}, "multiple of 32"),
        ({"head_dim": 512, "heads": 2}, "512 features"),
        ({"width": 32, "heads": 2, "ffn_width": 1 << 18}, "262,144; the kernels hold"),
    ],
)
def test_shapes_that_the_kernels_do_not_compute_are_refused(
    tiny_engine: MakeEngine, change: dict[str, int], message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        tiny_engine(wide_architecture("llama", **change), TensorType.F32)
