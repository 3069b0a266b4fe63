"""A model with an adapter: what it computes, the same bits always, and pages of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oneiros
from oneiros.engine.engine import Engine, Work
from oneiros.engine.local_model import start_local_model
from oneiros.engine.memory import memory_needed
from oneiros.engine.prefix_cache import identity_of
from oneiros.engine.requests import GenerationRequest
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.sequence import Sequence
from oneiros.engine.worker import EngineSettings
from oneiros.errors import ModelFileError
from oneiros.model.adapter import Adapter, open_adapter
from oneiros.model.architecture import Architecture
from oneiros.model.parameters import Parameters, open_parameters
from oneiros.model.tensor import Tensor
from oneiros.model.tensor_types import TensorType
from tests.engine.reference_network import reference_logits
from tests.engine.serving import collect, run
from tests.model.adapters import write_adapter
from tests.model.builders import build_folder, build_gguf, tiny_architecture, wide_architecture

LENGTH = 48
KINDS = {
    "q4": ("llama", TensorType.Q4_1),
    "f16": ("qwen2", TensorType.F16),
}


def text(seed: int, length: int = LENGTH) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(0, 288, length)]


def whole(engine: Engine, tokens: list[int]) -> np.ndarray:
    logits = engine.sequence().extend(tokens, "all")
    assert logits is not None
    return logits


def merged(parameters: Parameters, adapter: Adapter) -> Parameters:
    """The model with the adapter's products added to its matrices, in float32."""
    tensors = dict(parameters.tensors)
    for name, low in adapter.matrices.items():
        values = tensors[name].float32() + low.b @ low.a
        data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        tensors[name] = Tensor(name, TensorType.F32, values.shape, data)
    return replace(parameters, tensors=tensors)


def tiny(path: Path, architecture: Architecture, kind: TensorType) -> Parameters:
    no_tokens = {"tokenizer.ggml.tokens": None}  # the engine does not ask for them
    return open_parameters(build_gguf(path / "base.gguf", architecture, kind, metadata=no_tokens))


@pytest.fixture(scope="module", params=KINDS)
def engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[Engine]:
    """One model with one adapter on one, two and three threads."""
    folder = tmp_path_factory.mktemp("adapted")
    name, kind = KINDS[request.param]
    parameters = tiny(folder, tiny_architecture(name), kind)
    path = write_adapter(folder / "adapter", parameters.architecture, rank=7)
    adapter = open_adapter(path, parameters)
    return [Engine(parameters, adapter=adapter, threads=n) for n in (1, 2, 3)]


@given(
    cuts=st.lists(st.integers(1, LENGTH - 1), max_size=5, unique=True).map(sorted),
    thread=st.integers(0, 2),
    neighbours=st.lists(st.integers(1, 20), max_size=2),
)
@settings(max_examples=6, deadline=None)
def test_any_split_on_any_threads_among_any_neighbours(
    engines: list[Engine], cuts: list[int], thread: int, neighbours: list[int]
) -> None:
    expected = whole(engines[0], text(0))
    engine = engines[thread]
    sequence = engine.sequence()
    pieces = []
    for first, last in zip([0, *cuts], [*cuts, LENGTH], strict=True):
        work = [Work(engine.sequence(), text(9, n), "last") for n in neighbours]
        work.insert(len(work) // 2, Work(sequence, text(0)[first:last], "all"))
        pieces.append(engine.step(work)[(len(work) - 1) // 2])
    np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_one_token_at_a_time_forked_and_restored(engines: list[Engine], tmp_path: Path) -> None:
    expected = whole(engines[0], text(1))
    for engine in engines:
        sequence = engine.sequence()
        ours = [sequence.extend([token]) for token in text(1)[:20]]
        fork = sequence.fork()
        sequence.extend(text(2), "none")
        ours += [fork.extend([token]) for token in text(1)[20:34]]
        fork.save(tmp_path / "saved")
        restored = Sequence.restore(engines[0], tmp_path / "saved")
        ours += [restored.extend([token]) for token in text(1)[34:]]
        np.testing.assert_array_equal(np.stack(ours), expected)


def test_an_adapter_of_zeros_changes_no_bit(engines: list[Engine], tmp_path: Path) -> None:
    parameters = engines[0].parameters
    path = write_adapter(tmp_path / "zero", parameters.architecture, size=0)
    zero = Engine(parameters, adapter=open_adapter(path, parameters), threads=2)
    plain = whole(Engine(parameters, threads=1), text(3))
    np.testing.assert_array_equal(whole(zero, text(3)), plain)
    assert np.abs(whole(engines[0], text(3)) - plain).max() > 0.1


@pytest.mark.parametrize("rank", [1, 37, 256])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_logits_are_those_of_the_merged_model(name: str, rank: int, tmp_path: Path) -> None:
    """Float32 weights; the reference is plain NumPy. Keys and values in FP16 cost the most."""
    parameters = tiny(tmp_path, wide_architecture(name, tied=True), TensorType.F32)
    path = write_adapter(tmp_path / "adapter", parameters.architecture, rank=rank, alpha=rank)
    adapter = open_adapter(path, parameters)
    expected = reference_logits(merged(parameters, adapter), text(4, 40))
    ours = whole(Engine(parameters, adapter=adapter, threads=2), text(4, 40))
    assert np.abs(reference_logits(parameters, text(4, 40)) - expected).max() > 0.1
    np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("targets", [["v_proj"], ["q_proj", "v_proj"], ["up_proj", "down_proj"]])
def test_an_adapter_of_some_matrices(targets: list[str], tmp_path: Path) -> None:
    parameters = tiny(tmp_path, tiny_architecture(), TensorType.F32)
    path = write_adapter(tmp_path / "adapter", parameters.architecture, targets=targets)
    adapter = open_adapter(path, parameters)
    expected = reference_logits(merged(parameters, adapter), text(5, 20))
    for threads in (1, 2):
        ours = whole(Engine(parameters, adapter=adapter, threads=threads), text(5, 20))
        np.testing.assert_allclose(ours, expected, atol=2e-3 * np.abs(expected).max())


def test_each_adapter_is_a_model_of_its_own(tmp_path: Path) -> None:
    parameters = tiny(tmp_path, tiny_architecture(), TensorType.Q8_0)
    paths = [
        write_adapter(tmp_path / str(seed), parameters.architecture, seed=seed) for seed in (0, 1)
    ]
    added = [None, *(open_adapter(path, parameters) for path in paths)]
    engines = [Engine(parameters, adapter=adapter, threads=1) for adapter in added]
    assert len({identity_of(engine) for engine in engines}) == 3
    again = Engine(parameters, adapter=open_adapter(paths[0], parameters), threads=1)
    assert identity_of(again) == identity_of(engines[1])
    sequence = engines[1].sequence()
    sequence.extend(text(6), "none")
    sequence.save(tmp_path / "saved")
    for other in (engines[0], engines[2]):
        with pytest.raises(ModelFileError, match="saved with model"):
            Sequence.restore(other, tmp_path / "saved")
    more = memory_needed(parameters, adapter=added[1]).total - memory_needed(parameters).total
    assert more > sum(low.a.nbytes + low.b.nbytes for low in added[1].matrices.values())


def test_a_process_with_an_adapter_uses_no_pages_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEIROS_HOME", str(tmp_path / "home"))
    architecture = tiny_architecture()
    base = build_folder(tmp_path / "base", architecture)
    adapter = write_adapter(tmp_path / "adapter", architecture, size=0.3)
    plain = EngineSettings(str(base), threads=1, kv_disk=1 << 24, kv_memory=1 << 24)
    adapted = replace(plain, adapter=str(adapter))
    prompt = tuple(text(7, 100))
    request = GenerationRequest(prompt, SamplingOptions(temperature=0, max_tokens=12))

    async def reply(settings: EngineSettings) -> tuple[list[int], int]:
        model = await start_local_model(settings)
        try:
            got = await collect(model.service, request)
        finally:
            await model.service.close()
        return got.ids, got.end.usage.cached_tokens

    first, cached = run(lambda: reply(plain))
    assert cached == 0
    second, cached = run(lambda: reply(adapted))
    assert cached == 0 and second != first
    again, cached = run(lambda: reply(adapted))
    assert cached >= 96 and again == second

    language_model = oneiros.load(base, adapter=adapter, threads=1)
    assert language_model.name == f"{base}+adapter"
    sequence = language_model.engine.sequence()
    logits = sequence.extend(list(prompt))
    for token in second:
        assert logits is not None and int(logits.argmax()) == token
        logits = sequence.extend([token])
