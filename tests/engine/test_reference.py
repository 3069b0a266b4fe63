"""The engine, run.c and transformers agree.

Three implementations that share no arithmetic code: transformers computed the golden logits in
float32; run.c with -f computes all logits in float32; run.c without it computes what the engine
does, roundings and order of sums included, in plain C. So the chain is: run.c -f is right because
transformers says the same; the engine is close to it, by the divergence that its roundings cost;
and the engine has no other error, because run.c gives the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import oneiros
from oneiros.engine.engine import Engine
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.sampling import SamplingOptions
from oneiros.model import catalog
from oneiros.model.convert import convert
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor_types import TensorType
from tests.engine.golden import (
    NETWORK_POSITIONS,
    NETWORKS,
    Golden,
    load_golden,
    load_network_logits,
    network_ids,
)
from tests.engine.run_program import RunProgram, compiled_program
from tests.model.builders import build_folder, build_gguf, tiny_architecture, wide_architecture

Logits = NDArray[np.float32]

QUESTIONS = ("Why is the sky blue?", "Tell me a story about a fox.", "What is 7 times 8?")
BEGINNINGS = ("Once upon a time", "def fibonacci(n):\n", "ROMEO:\n")
GREEDY = SamplingOptions(temperature=0, max_tokens=64)


class Agreement(NamedTuple):
    """How far logits are from those of a reference."""

    top1: float  # share of positions with the same most probable token
    divergence: float  # mean KL(reference || logits) in nats


def agreement(reference: Logits, logits: Logits) -> Agreement:
    same, divergences = [], []
    for expected, actual in zip(reference, logits, strict=True):
        p, q = log_softmax(expected), log_softmax(actual)
        same.append(p.argmax() == q.argmax())
        divergences.append(np.sum(np.exp(p) * (p - q)))
    return Agreement(float(np.mean(same)), float(np.mean(divergences)))


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.sum(np.exp(shifted)))
    return result


def divergence_by_top_tokens(golden: Golden, logits: Logits) -> float:
    """Mean KL(golden || logits) in nats over the stored tokens and one bucket for all others.

    Putting tokens together only ever lowers a divergence (data processing inequality), so this is
    a lower bound of the true one, which `agreement` computes where all logits are at hand.
    """
    divergences = []
    for ids, top, log_sum, actual in zip(
        golden.top_ids, golden.top_logits, golden.log_sum_exp, logits, strict=True
    ):
        p, q = np.exp(top - log_sum), np.exp(log_softmax(actual)[ids])
        rest_p, rest_q = max(1 - p.sum(), 1e-12), max(1 - q.sum(), 1e-12)
        divergences.append(np.sum(p * np.log(p / q)) + rest_p * np.log(rest_p / rest_q))
    return float(np.mean(divergences))


def engine_logits(engine: Engine, ids: NDArray[np.int32]) -> Logits:
    logits = engine.sequence().extend(ids.tolist(), "all")
    assert logits is not None
    return logits


def assert_matches_golden(golden: Golden, exact: Logits) -> None:
    stored = np.take_along_axis(exact, golden.top_ids, axis=1)
    assert np.abs(stored - golden.top_logits).max() < 1e-3
    log_sums = [np.log(np.sum(np.exp(row.astype(np.float64)))) for row in exact]
    assert np.abs(log_sums - golden.log_sum_exp).max() < 1e-3
    assert np.mean(exact.argmax(axis=1) == golden.top_ids[:, 0]) >= 0.998  # bar ties


def assert_same_bits(engine: Engine, ours: Logits, program: Logits) -> None:
    """The portable path has no fused multiply-add where the others and run.c have."""
    if engine.arithmetic == "portable":
        assert agreement(program, ours).divergence <= 0.01
    else:
        np.testing.assert_array_equal(ours, program)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """run.c, compiled."""
    return compiled_program(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden("smollm2-135m")


@pytest.fixture(scope="module")
def program(
    compiled: Path, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> RunProgram:
    return RunProgram(compiled, model.parameters, tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def exact(program: RunProgram, golden: Golden) -> Logits:
    return program.logits(golden.ids, exact=True)


@pytest.fixture(scope="module")
def ours(model: LanguageModel, golden: Golden) -> Logits:
    return engine_logits(model.engine, golden.ids)


def test_the_program_computes_what_transformers_computes(golden: Golden, exact: Logits) -> None:
    assert_matches_golden(golden, exact)


def test_the_engine_is_close_to_float32(golden: Golden, exact: Logits, ours: Logits) -> None:
    top1, divergence = agreement(exact, ours)
    assert top1 >= 0.97
    assert divergence <= 0.01
    assert divergence_by_top_tokens(golden, ours) <= divergence + 1e-6


def test_the_engine_computes_bit_for_bit_what_the_program_computes(
    model: LanguageModel, program: RunProgram, golden: Golden, ours: Logits
) -> None:
    assert_same_bits(model.engine, ours, program.logits(golden.ids))


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_program_answers_as_the_model_does(
    model: LanguageModel, program: RunProgram, question: str
) -> None:
    assert program.text(question, 64) == "".join(model.stream(question, GREEDY))


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_the_program_continues_as_the_model_does(
    model: LanguageModel, program: RunProgram, beginning: str
) -> None:
    continued = program.text(beginning, 64, completion=True)
    assert continued == "".join(model.complete(beginning, GREEDY))


@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks_compute_what_transformers_computes(
    compiled: Path, name: str, tmp_path: Path
) -> None:
    expected, ids = load_network_logits(name), network_ids(name)
    folder = build_folder(tmp_path / "tiny", NETWORKS[name])
    gguf = tmp_path / "tiny.gguf"
    convert(folder, gguf)
    exact = RunProgram(compiled, open_parameters(gguf), tmp_path / "exported").logits(
        ids, exact=True
    )
    assert np.abs(exact[-NETWORK_POSITIONS:] - expected).max() < 1e-4
    for path in (gguf, folder):
        logits = engine_logits(Engine(open_parameters(path)), ids)
        # Keys and values are FP16 in the engine, and everything else is float32.
        assert agreement(expected, logits[-NETWORK_POSITIONS:]).divergence <= 1e-4


@pytest.mark.parametrize("tensor_type", TensorType, ids=lambda tensor_type: tensor_type.name)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_every_format_gives_the_same_bits_in_the_program(
    compiled: Path, name: str, tensor_type: TensorType, tmp_path: Path
) -> None:
    wide = tensor_type.block_size > 32
    architecture = wide_architecture(name) if wide else tiny_architecture(name, context=512)
    path = build_gguf(tmp_path / "tiny.gguf", architecture, tensor_type)
    parameters = open_parameters(path)
    ids = (np.arange(wide * 40 + (not wide) * 300) * 37 % architecture.vocabulary).astype(np.int32)
    engine = Engine(parameters)
    program = RunProgram(compiled, parameters, tmp_path / "exported")
    assert_same_bits(engine, engine_logits(engine, ids), program.logits(ids))


@pytest.mark.parametrize(
    "tensor_type",
    [TensorType.BF16, pytest.param(TensorType.F32, marks=pytest.mark.long)],
    ids=lambda tensor_type: tensor_type.name,
)
def test_the_engine_is_exact_with_floating_point_weights(
    compiled: Path, tensor_type: TensorType, model: LanguageModel, golden: Golden, tmp_path: Path
) -> None:
    path = tmp_path / "float.gguf"
    convert(model.parameters.path, path, tensor_type=tensor_type)
    parameters = open_parameters(path)
    exact = RunProgram(compiled, parameters, tmp_path / "exported").logits(golden.ids, exact=True)
    logits = engine_logits(Engine(parameters), golden.ids)
    top1, divergence = agreement(exact, logits)
    assert top1 >= 0.99
    assert divergence <= 1e-4


@pytest.mark.long
def test_qwen_agrees_too(compiled: Path, tmp_path: Path) -> None:
    name = "qwen2.5-coder-0.5b"
    golden, model = load_golden(name), oneiros.load(catalog.resolve(name))
    program = RunProgram(compiled, model.parameters, tmp_path)
    exact, ours = program.logits(golden.ids, exact=True), engine_logits(model.engine, golden.ids)
    assert_matches_golden(golden, exact)
    top1, divergence = agreement(exact, ours)
    assert top1 >= 0.97
    assert divergence <= 0.01
    assert divergence_by_top_tokens(golden, ours) <= divergence + 1e-6
    assert_same_bits(model.engine, ours, program.logits(golden.ids))
    for question in QUESTIONS:
        assert program.text(question, 64) == "".join(model.stream(question, GREEDY))
    for beginning in BEGINNINGS:
        continued = program.text(beginning, 64, completion=True)
        assert continued == "".join(model.complete(beginning, GREEDY))
