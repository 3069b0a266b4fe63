"""Runs that are killed go on as if nothing had happened, alone and over several processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from oneiros.errors import ModelFileError, TrainingError
from oneiros.training.checkpoint import (
    KEPT,
    Progress,
    checkpoint_path,
    checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from oneiros.training.pretrain import build_learner
from oneiros.training.run_folder import RunFolder
from oneiros.training.shards import Batches, Corpus
from oneiros.training.step import Learner, train_step
from tests.training.builders import (
    CPU,
    IN_TILES,
    losses_of,
    small_config,
    small_corpus,
    train,
)

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return small_corpus(folder)


@pytest.fixture(scope="module")
def alone(corpus: Corpus, folder: Path) -> list[float]:
    """The losses of the uninterrupted run of one process."""
    return losses_of(train(folder / "alone", corpus, small_config())[1])


def program(*arguments: str | Path, processes: int = 1) -> int:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else [])]
    done = subprocess.run(
        [*command, "-m", "tests.training.train_program", *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def test_killed_and_resumed_gives_the_same_losses_to_the_bit(
    folder: Path, alone: list[float]
) -> None:
    run = folder / "killed"
    assert program(folder / "shards", run, "--kill-at", "6") == -signal.SIGKILL
    assert losses_of(RunFolder(run).events()) == alone[:7]
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["step-0000004.safetensors"]
    assert program(folder / "shards", run) == 0
    assert losses_of(RunFolder(run).events()) == alone


def test_two_processes_equal_one_and_each_goes_on_with_the_others_run(
    folder: Path, corpus: Corpus, alone: list[float]
) -> None:
    run = folder / "two"
    assert program(folder / "shards", run, processes=2) == 0
    assert losses_of(RunFolder(run).events()) == pytest.approx(alone, abs=1e-4)

    for old in checkpoints(run / "checkpoints")[1:]:
        old.unlink()
    _, events = train(run, corpus, small_config())
    assert losses_of(events) == pytest.approx(alone[8:], abs=1e-4)


def test_in_bfloat16_too_resuming_is_exact_and_two_processes_equal_one(
    folder: Path, corpus: Corpus
) -> None:
    alone = losses_of(train(folder / "narrow", corpus, small_config(**IN_TILES))[1])
    given = [f"{name}={value}" for name, value in IN_TILES.items()]

    run = folder / "narrow and killed"
    assert program(folder / "shards", run, "--kill-at", "6", *given) == -signal.SIGKILL
    assert program(folder / "shards", run, *given) == 0
    assert losses_of(RunFolder(run).events()) == alone

    assert program(folder / "shards", folder / "two narrow", *given, processes=2) == 0
    shared = losses_of(RunFolder(folder / "two narrow").events())
    assert shared == pytest.approx(alone, abs=2e-3)


def test_a_run_that_is_prolonged_goes_on_from_its_end(corpus: Corpus, tmp_path: Path) -> None:
    train(tmp_path, corpus, small_config(steps=4, warmup=0, decay=0))
    _, events = train(tmp_path, corpus, small_config(steps=6, warmup=0, decay=0))
    assert len(losses_of(events)) == 2


@pytest.fixture
def learner(corpus: Corpus) -> Learner:
    learner = build_learner(small_config(), CPU)
    train_step(learner, Batches(corpus.train, 32, 8, seed=1).batch(0), 1.0)
    return learner


def save(learner: Learner, folder: Path, step: int) -> None:
    save_checkpoint(folder, learner.network, learner.optimizer, Progress(step, 1.5, "data"), CPU)


def test_a_checkpoint_restores_everything(learner: Learner, tmp_path: Path) -> None:
    save(learner, tmp_path, 7)
    other = build_learner(small_config(seed=2), CPU)
    progress = load_checkpoint(checkpoint_path(tmp_path, 7), other.network, other.optimizer)
    assert progress == Progress(7, 1.5, "data")
    assert other.optimizer.updates == 1
    expected = dict(learner.network.named_parameters()) | learner.optimizer.state
    found = dict(other.network.named_parameters()) | other.optimizer.state
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_only_the_latest_checkpoints_stay(learner: Learner, tmp_path: Path) -> None:
    for step in range(0, 50, 10):
        save(learner, tmp_path, step)
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in (30, 40)]
    assert KEPT == 2


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 10_000, 150_000])
def test_a_disk_that_is_full_leaves_the_last_checkpoint_whole(
    learner: Learner, tmp_path: Path, size: int
) -> None:
    save(learner, tmp_path, 1)
    content = checkpoint_path(tmp_path, 1).read_bytes()
    assert len(content) > 150_000
    with disk_of(size), pytest.raises(ModelFileError, match=r"cannot be written"):
        save(learner, tmp_path, 2)
    assert [*tmp_path.iterdir()] == [checkpoint_path(tmp_path, 1)]
    assert checkpoint_path(tmp_path, 1).read_bytes() == content


def test_a_writer_that_is_killed_leaves_the_last_checkpoint_whole(
    learner: Learner, tmp_path: Path
) -> None:
    save(learner, tmp_path, 1)
    content = checkpoint_path(tmp_path, 1).read_bytes()
    child = os.fork()
    if child == 0:
        # The limit's signal kills in the middle of a write, as kill -9 would.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with disk_of(100_000):
            save(learner, tmp_path, 2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGXFSZ
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 1)]
    assert checkpoint_path(tmp_path, 1).read_bytes() == content
    remove_leftovers(tmp_path)
    assert [*tmp_path.iterdir()] == [checkpoint_path(tmp_path, 1)]


def test_a_checkpoint_of_another_network_is_refused(learner: Learner, tmp_path: Path) -> None:
    save(learner, tmp_path, 1)
    other = build_learner(small_config(ffn_width=64), CPU)
    with pytest.raises(TrainingError, match="another network"):
        load_checkpoint(checkpoint_path(tmp_path, 1), other.network, other.optimizer)


def test_a_damaged_checkpoint_is_refused(learner: Learner, tmp_path: Path) -> None:
    save(learner, tmp_path, 1)
    path = checkpoint_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError):
        load_checkpoint(path, learner.network, learner.optimizer)
