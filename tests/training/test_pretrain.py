"""The training loop: against a plain loop, cut up, stopped, and with numbers that go wrong."""

from __future__ import annotations

import itertools
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from oneiros.errors import TrainingError
from oneiros.training import pretrain as pretrain_module
from oneiros.training.checkpoint import checkpoints
from oneiros.training.config import PretrainConfig
from oneiros.training.events import Dreamed, Evaluated, Event, Stepped
from oneiros.training.network import Network, NetworkConfig
from oneiros.training.pretrain import build_learner, pretrain
from oneiros.training.processes import Processes
from oneiros.training.run_folder import RunFolder
from oneiros.training.shards import IGNORED, Batches, Corpus
from oneiros.training.step import Learner, losses, train_step
from tests.training.builders import (
    CPU,
    IN_TILES,
    byte_tokenizer,
    losses_of,
    small_config,
    small_corpus,
    train,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def plain_losses(corpus: Corpus, steps: int) -> list[float]:
    """What training is, in forty lines of plain PyTorch."""
    torch.set_num_threads(1)
    sizes = {"vocabulary": 257, "layers": 2, "width": 32, "ffn_width": 48, "context": 32}
    network = Network(NetworkConfig(**sizes, heads=4, kv_heads=2, head_dim=8, qk_norm=True))
    network.initialise(seed=1)
    embedding, *inner = [p for p in network.parameters() if p.ndim == 2]
    vectors = [p for p in network.parameters() if p.ndim == 1]
    momenta = [torch.zeros_like(p) for p in inner]
    adam = torch.optim.AdamW(
        [{"params": [embedding], "peak": 0.004}, {"params": vectors, "peak": 0.003}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    stream = torch.from_numpy(corpus.train.read(0, corpus.train.tokens))
    order = Batches(corpus.train, context=32, rows=8, seed=1)
    losses = []
    for step in range(steps):
        rows = torch.stack([stream[i : i + 33] for i in order.begins(step).tolist()])
        begun = (rows[:, 1:] == 256) & (rows[:, :-1] == 256)  # an end, and the next opening
        documents = functional.pad(begun, (1, 0)).cumsum(1)[:, :-1]
        logits = network(rows[:, :-1], documents)
        targets = rows[:, 1:].masked_fill(begun, -100)
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        factor = min(1.0, (step + 1) / 4, (steps - step) / 11)
        for parameter, momentum in zip(inner, momenta, strict=True):
            momentum += 0.05 * (parameter.grad - momentum)
            x = 0.05 * parameter.grad + 0.95 * momentum
            x = x / (x.norm() + 1e-7)
            for _ in range(5):
                y = x @ x.T
                x = 3.4445 * x + (-4.7750 * y + 2.0315 * y @ y) @ x
            with torch.no_grad():
                tall = max(1, x.shape[0] / x.shape[1]) ** 0.5
                parameter -= 0.02 * factor * (tall * x + 0.01 * parameter)
        for group in adam.param_groups:
            group["lr"] = group["peak"] * factor
        adam.step()
        network.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def test_fifty_steps_equal_a_plain_loop(corpus: Corpus, tmp_path: Path) -> None:
    config = small_config(
        steps=50, warmup=3, decay=10, embedding_rate=0.004, vector_rate=0.003, matrix_decay=0.01
    )
    _, events = train(tmp_path, corpus, config)
    expected = plain_losses(corpus, 50)
    assert losses_of(events) == pytest.approx(expected, abs=2e-4)
    assert expected[-1] < 0.75 * expected[0]


@pytest.mark.long  # half a minute of compiling
@pytest.mark.parametrize("settings, error", [({}, 2e-4), (IN_TILES, 0.02)])
def test_a_compiled_network_learns_the_same(
    settings: dict[str, Any], error: float, corpus: Corpus, tmp_path: Path
) -> None:
    expected = losses_of(train(tmp_path / "plain", corpus, small_config(**settings))[1])
    _, events = train(tmp_path / "compiled", corpus, small_config(compile=True, **settings))
    assert losses_of(events) == pytest.approx(expected, abs=error)


def test_accumulated_micro_batches_equal_the_big_batch(corpus: Corpus, tmp_path: Path) -> None:
    whole_batch = losses_of(train(tmp_path / "whole", corpus, small_config())[1])
    for micro_batch in (1, 3):
        folder = tmp_path / str(micro_batch)
        _, events = train(folder, corpus, small_config(micro_batch=micro_batch))
        assert losses_of(events) == pytest.approx(whole_batch, abs=1e-4)


def test_the_same_settings_give_the_same_run_and_another_seed_another(
    corpus: Corpus, tmp_path: Path
) -> None:
    runs = [
        losses_of(train(tmp_path / name, corpus, small_config(seed=seed))[1])
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_attention_never_crosses_documents_through_the_data_path(corpus: Corpus) -> None:
    learner = build_learner(small_config(), CPU)
    batch = Batches(corpus.train, 32, 8, seed=1).batch(0)
    row = next(row for row in range(8) if 4 < np.argmax(batch.documents[row]) < 28)
    first = batch.documents[row] == 0
    changed = batch.tokens.copy()
    changed[row, first] = (changed[row, first] + 1) % 256
    before = losses(learner, batch)[row]
    after = losses(learner, replace(batch, tokens=changed))[row]
    assert not torch.equal(before[first], after[first])
    assert torch.equal(before[~first], after[~first])


def test_no_token_predicts_the_beginning_of_the_next_document(corpus: Corpus) -> None:
    batch = Batches(corpus.train, 32, 8, seed=1).batch(0)
    last_of_document = np.diff(batch.documents, axis=1) > 0
    assert last_of_document.any()
    assert (batch.targets[:, :-1][last_of_document] == IGNORED).all()
    assert (batch.tokens[:, :-1][last_of_document] == 256).all()


def test_a_batch_without_targets_changes_nothing_and_gives_no_nan(corpus: Corpus) -> None:
    learner = build_learner(small_config(), CPU)
    batch = Batches(corpus.train, 32, 8, seed=1).batch(0)
    done = train_step(learner, replace(batch, targets=np.full_like(batch.targets, IGNORED)), 1.0)
    assert done.loss == 0
    assert done.gradient_norm == 0
    half = batch.targets.copy()
    half[:4] = IGNORED
    learner.micro_batch = 4  # the first micro-batch has no target at all
    assert math.isfinite(train_step(learner, replace(batch, targets=half), 1.0).loss)


def test_steps_that_are_not_finite_change_no_weight_and_end_the_run_in_time(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learners = []

    def poisoned(config: PretrainConfig, processes: Processes) -> Learner:
        learner = build_learner(config, processes)
        calls = itertools.count()
        network = learner.network

        def forward(tokens: Tensor, documents: Tensor | None) -> Tensor:
            logits = network(tokens, documents)
            return logits * math.nan if next(calls) in bad else logits

        learner.forward = forward
        learners.append(learner)
        return learner

    monkeypatch.setattr(pretrain_module, "build_learner", poisoned)
    bad = {1, 2}
    config = small_config(evaluate_every=100, dream_every=100, dream_tokens=0)
    _, events = train(tmp_path / "two", corpus, config)
    refused = [event.step for event in events if isinstance(event, Stepped) and not event.applied]
    assert refused == [1, 2]
    assert math.isfinite(losses_of(events)[-1])

    bad = set(range(4, 1000))
    with pytest.raises(TrainingError, match=r"not finite in 5 steps in a row, up to step 8"):
        train(tmp_path / "all", corpus, config)
    assert [path.stem for path in checkpoints(tmp_path / "all" / "checkpoints")] == [
        "step-0000004",
        "step-0000008",
    ]
    for parameter in learners[-1].network.parameters():
        assert torch.isfinite(parameter).all()


def test_when_memory_runs_out_the_micro_batch_is_halved(corpus: Corpus, tmp_path: Path) -> None:
    plain = build_learner(small_config(), CPU)
    tight = build_learner(small_config(), CPU)

    def forward(tokens: Tensor, documents: Tensor | None) -> Tensor:
        if len(tokens) > limit:
            raise torch.OutOfMemoryError("no memory")
        return tight.network(tokens, documents)

    tight.forward = forward
    limit = 3
    batches = Batches(corpus.train, 32, 8, seed=1)
    for step in range(3):
        expected = train_step(plain, batches.batch(step), 1.0)
        done = train_step(tight, batches.batch(step), 1.0)
        assert done.loss == pytest.approx(expected.loss, abs=1e-4)
    assert tight.micro_batch == 2

    limit = 0
    with pytest.raises(TrainingError, match="--micro-batch"):
        train_step(tight, batches.batch(3), 1.0)


def test_what_happens_along_the_way_is_reported_and_recorded(
    corpus: Corpus, tmp_path: Path
) -> None:
    outcome, events = train(tmp_path, corpus, small_config())
    assert outcome.finished
    assert outcome.step == 12
    assert [event.step for event in events if isinstance(event, Stepped)] == [*range(12)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert [event.step for event in evaluations] == [0, 5, 10, 12]
    assert evaluations[-1].bits_per_byte < evaluations[0].bits_per_byte
    assert [event.step for event in events if isinstance(event, Dreamed)] == [0, 6, 12]
    assert [*RunFolder(tmp_path).events()] == events


def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    uninterrupted = losses_of(train(tmp_path / "whole", corpus, small_config())[1])
    folder = tmp_path / "stopped"
    folder.mkdir()
    events: list[Event] = []

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped) and event.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = RunFolder(folder)
    outcome = pretrain(small_config(), corpus, byte_tokenizer(), run, CPU, report=interrupt)
    assert not outcome.finished
    assert outcome.step == 7
    assert signal.getsignal(signal.SIGINT) is before
    _, rest = train(folder, corpus, small_config())
    assert losses_of(events) + losses_of(rest) == uninterrupted
    assert losses_of(run.events()) == uninterrupted


def test_data_of_another_tokenizer_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    manifest = replace(corpus.manifest, tokenizer_sha256="0" * 64)
    with pytest.raises(TrainingError, match="another tokenizer"):
        train(tmp_path, replace(corpus, manifest=manifest), small_config())


def test_a_run_does_not_go_on_with_other_data(corpus: Corpus, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, corpus, small_config(steps=4, warmup=0, decay=0))
    other = small_corpus(tmp_path, documents=310)
    with pytest.raises(TrainingError, match="other data"):
        train(run, other, small_config(steps=8, warmup=0, decay=0))
