"""Logits do not depend on how the work was cut, on neighbours, threads, forks or restarts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.engine.engine import Engine, Work
from oneiros.engine.language_model import LanguageModel
from oneiros.engine.sequence import Sequence
from oneiros.errors import ContextLengthError, ModelFileError
from oneiros.model.gguf_architecture import gguf_metadata
from oneiros.model.gguf_writer import write_gguf
from oneiros.model.parameters import open_parameters
from oneiros.model.tensor import PendingTensor
from oneiros.model.tensor_types import TensorType
from tests.engine.conftest import MakeEngine
from tests.model.builders import wide_architecture

LENGTH = 300  # more than a span of 256 positions
KINDS = {
    "q4": ("llama", TensorType.Q4_1),
    "q5": ("qwen2", TensorType.Q5_0),
    "q6": ("qwen3", TensorType.Q6_K),
    "q8": ("qwen2", TensorType.Q8_0),
    "bf16": ("llama", TensorType.BF16),
}
THREADS = (1, 2, 3)


@pytest.fixture(scope="module", params=KINDS)
def engines(request: pytest.FixtureRequest, tiny_engine: MakeEngine) -> list[Engine]:
    name, tensor_type = KINDS[request.param]
    architecture = wide_architecture(name, context=512)
    return [tiny_engine(architecture, tensor_type, threads=n) for n in THREADS]


def text(seed: int, length: int = LENGTH) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(0, 288, length)]


def whole(engine: Engine, tokens: list[int]) -> np.ndarray:
    logits = engine.sequence().extend(tokens, "all")
    assert logits is not None
    return logits


cuts = st.lists(st.integers(1, LENGTH - 1), max_size=6, unique=True).map(sorted)


@given(cuts=cuts, thread=st.integers(0, len(THREADS) - 1), data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_split_on_any_threads_among_any_neighbours(
    engines: list[Engine], cuts: list[int], thread: int, data: st.DataObject
) -> None:
    expected = whole(engines[0], text(0))
    engine = engines[thread]
    sequence = engine.sequence()
    pieces = []
    for first, last in zip([0, *cuts], [*cuts, LENGTH], strict=True):
        neighbours = data.draw(st.lists(st.integers(1, 40), max_size=3))
        work = [Work(engine.sequence(), text(9, n), "last") for n in neighbours]
        place = data.draw(st.integers(0, len(work)))
        work.insert(place, Work(sequence, text(0)[first:last], "all"))
        pieces.append(engine.step(work)[place])
    np.testing.assert_array_equal(np.concatenate(pieces), expected)


def test_one_token_at_a_time(engines: list[Engine]) -> None:
    expected = whole(engines[0], text(1))
    for engine in engines:
        sequence = engine.sequence()
        ours = np.stack([sequence.extend([token]) for token in text(1)])
        np.testing.assert_array_equal(ours, expected)


@given(at=st.integers(1, LENGTH - 2), back=st.integers(0, LENGTH - 2))
@settings(max_examples=15, deadline=None)
def test_forks_share_a_prefix_and_do_not_disturb_each_other(
    engines: list[Engine], at: int, back: int
) -> None:
    engine = engines[1]
    tokens, other = text(0), text(2)
    first = engine.sequence()
    first.extend(tokens[:at], "none")
    second = first.fork()
    second.truncate(min(back, at))
    second.extend(other[len(second) :], "none")
    ours = first.extend(tokens[at:])
    np.testing.assert_array_equal(ours, whole(engine, tokens)[-1])
    mixed = tokens[: min(back, at)] + other[min(back, at) :]
    assert second.tokens == mixed
    second.truncate(LENGTH - 1)
    np.testing.assert_array_equal(second.extend(mixed[-1:]), whole(engine, mixed)[-1])


def test_a_restored_sequence_continues_in_a_new_process(
    model: LanguageModel, tmp_path: Path
) -> None:
    ids = model.tokenizer.encode("It was the best of times, it was the worst of times, it was")
    sequence = model.engine.sequence()
    sequence.extend(ids, "none")
    sequence.save(tmp_path / "saved")
    expected = sequence.extend(model.tokenizer.encode(" the age of"))
    program = (
        "import sys, numpy, pathlib, oneiros\n"
        "from oneiros.engine.sequence import Sequence\n"
        "model = oneiros.load('smollm2-135m', threads=1)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "sequence = Sequence.restore(model.engine, folder / 'saved')\n"
        "logits = sequence.extend(model.tokenizer.encode(' the age of'))\n"
        "numpy.save(folder / 'logits.npy', logits)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected)


def test_the_default_model_gives_the_same_bits_token_by_token(model: LanguageModel) -> None:
    ids = model.tokenizer.encode("Call me Ishmael. Some years ago - never mind how long precisely")
    sequence = model.engine.sequence()
    one_by_one = np.stack([sequence.extend([token]) for token in ids])
    np.testing.assert_array_equal(one_by_one, whole(model.engine, ids))


def test_a_damaged_or_foreign_saved_sequence_is_refused(
    engines: list[Engine], tiny_engine: MakeEngine, tmp_path: Path
) -> None:
    engine = engines[0]
    sequence = engine.sequence()
    sequence.extend(text(3, 40), "none")
    path = tmp_path / "saved"
    sequence.save(path)
    data = path.read_bytes()
    broken = (b"", b"[]\n", b"[" * 200_000, b'{"tokens": [1e999]}\n', b'{"tokens": ["5"]}\n')
    for damaged in (data[:-1], data + b"x", data[:20], b"\xff" + data, *broken):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="saved"):
            Sequence.restore(engine, path)
    path.write_bytes(data)
    other = tiny_engine(wide_architecture("llama", context=512, layers=3), TensorType.F16)
    with pytest.raises(ModelFileError, match="saved with model"):
        Sequence.restore(other, path)
    with pytest.raises(ModelFileError, match="No such file"):
        Sequence.restore(engine, tmp_path / "nothing")


def test_pages_are_given_back(engines: list[Engine]) -> None:
    engine = engines[0]
    sequence = engine.sequence()
    sequence.extend(text(4), "none")
    free = len(engine.pool._free)
    fork = sequence.fork()
    fork.truncate(100)
    sequence.close()
    assert len(engine.pool._free) == free + LENGTH // 32 + 1 - 4  # the fork keeps 100 positions
    del fork
    assert len(engine.pool._free) == free + LENGTH // 32 + 1


def test_what_does_not_fit_the_context_is_refused_before_anything_is_done(
    engines: list[Engine],
) -> None:
    sequence = engines[0].sequence()
    sequence.extend(text(5, 500), "none")
    with pytest.raises(ContextLengthError, match=r"513 tokens.*512: 1 too many"):
        sequence.extend(text(5, 13))
    assert len(sequence) == 500
    assert sequence.extend(text(5, 12)) is not None


@pytest.mark.parametrize("tokens", [[], [-1], [288]])
def test_impossible_tokens_are_refused(engines: list[Engine], tokens: list[int]) -> None:
    with pytest.raises(ValueError, match=r"(?i)token"):
        engines[0].sequence().extend(tokens)


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_values_beyond_halves_do_not_reach_earlier_positions(
    tiny_engine: MakeEngine, tmp_path: Path, value: float
) -> None:
    """A query of a tile multiplies the values of positions that it does not see by 0."""
    architecture = wide_architecture("qwen2", layers=1)
    source = tiny_engine(architecture, TensorType.F32).parameters
    tensors = [
        PendingTensor.encoded(
            t.name,
            np.full_like(t.float32(), value) if t.name.endswith("attn_v.bias") else t.float32(),
            t.type,
        )
        for t in source.tensors.values()
    ]
    broken = tmp_path / "broken.gguf"
    write_gguf(broken, gguf_metadata(architecture), tensors)
    engine = Engine(open_parameters(broken), threads=1)
    sequence = engine.sequence()
    one_by_one = np.stack([sequence.extend([token]) for token in text(6, 20)])
    np.testing.assert_array_equal(whole(engine, text(6, 20)), one_by_one)
    assert np.isfinite(one_by_one).all()


def test_a_sequence_of_another_engine_is_refused(engines: list[Engine]) -> None:
    with pytest.raises(ValueError, match="another engine"):
        engines[0].step([Work(engines[1].sequence(), [1])])


def test_a_forked_process_is_told_to_load_the_model_itself() -> None:
    program = (
        "import os, oneiros\n"
        "from oneiros.errors import KernelError\n"
        "model = oneiros.load('smollm2-135m', threads=2)\n"
        "model.engine.sequence().extend([1, 2])\n"
        "if os.fork() == 0:\n"
        "    try: model.engine.sequence().extend([3])\n"
        "    except KernelError as error: print(error, flush=True)\n"
        "    raise SystemExit\n"
        "os.wait()\n"
        "model.engine.sequence().extend([3])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert "forked" in run.stdout


def test_many_rows_and_few_rows_take_different_roads_to_the_same_bits(
    engines: list[Engine],
) -> None:
    """Few single rows are cut into spans of positions, many are not."""
    engine = engines[1]
    base = engine.sequence()
    base.extend(text(7, 290), "none")
    alone = base.fork().extend([5])
    crowd = engine.step([Work(base.fork(), [5]) for _ in range(40)])
    for logits in crowd:
        np.testing.assert_array_equal(logits, alone)
