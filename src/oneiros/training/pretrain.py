"""Pre-training: a network learns to predict the next token of a corpus.

`pretrain` is the whole story from top to bottom: build, go on from the last checkpoint if there is
one, then for each step a batch, an update, and now and then an evaluation, a dream, a checkpoint.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

import torch

from oneiros.errors import TrainingError
from oneiros.model.tokenizer import Tokenizer
from oneiros.training.bits_per_byte import evaluate, token_lengths
from oneiros.training.checkpoint import (
    Progress,
    checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from oneiros.training.config import PretrainConfig
from oneiros.training.dreams import dream
from oneiros.training.events import Dreamed, Evaluated, Event, Noted, Saved, Stepped
from oneiros.training.machine import compiled
from oneiros.training.network import Network, NetworkConfig
from oneiros.training.optimizer import Optimizer, OptimizerConfig, rate_factor
from oneiros.training.processes import Processes, keep_freed_memory, spread
from oneiros.training.run_folder import RunFolder
from oneiros.training.shard_writer import opening_ids
from oneiros.training.shards import Batches, Corpus
from oneiros.training.speed import peak_flops
from oneiros.training.step import Learner, Step, train_step

LARGEST_BAD_STREAK = 5
"""Steps in a row whose loss or gradient is not finite, after which a run ends."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    learner: Learner
    step: int  # updates made, this time and before
    finished: bool  # False: it was interrupted, and goes on from its checkpoint
    seconds: float  # of computing, this time and before


def pretrain(
    config: PretrainConfig,
    corpus: Corpus,
    tokenizer: Tokenizer,
    run: RunFolder,
    processes: Processes,
    *,
    report: Callable[[Event], None],
) -> Outcome:
    """Train a network, or go on with a run that stopped. All processes of a run call this.

    A run that was stopped at any instruction goes on from its last checkpoint with the very
    numbers that it would have had (on the CPU, with as many threads and processes, to the bit).
    Ctrl-C and SIGTERM end it after the present step, with a checkpoint.

    Args:
        config: the settings.
        corpus: what to learn from; see `open_shards`.
        tokenizer: the corpus's own.
        run: where checkpoints and metrics go.
        processes: see `joined_processes`.
        report: is told of everything that happens, after it was recorded; on the first process.

    Raises:
        TrainingError: data, tokenizer or checkpoint do not fit together, numbers stopped being
            finite, or memory ran out.
        ModelFileError: a checkpoint cannot be written or read.
    """
    check_fit(config, corpus, tokenizer)
    if processes.device.type == "cpu":
        keep_freed_memory()
    batches = Batches(corpus.train, config.context, config.batch, config.seed)
    lengths = token_lengths(tokenizer)
    learner = build_learner(config, processes)
    start = _resume(run, corpus, learner)
    if processes.first:
        remove_leftovers(run.checkpoints)
        run.rewind(start.step)
    processes.wait()
    pace = Pace(config, processes, learner.precision, start.seconds)

    def tell(event: Event) -> None:
        if processes.first:
            run.record(event)
            report(event)

    def look(step: int) -> None:
        """Evaluate and dream, when it is time to."""
        last = step == config.steps
        if last or step % config.evaluate_every == 0:
            found = evaluate(
                learner,
                corpus.validation,
                lengths,
                context=config.context,
                rows=config.evaluation_rows,
            )
            if found is not None:
                tell(Evaluated(step, found.bits_per_byte, found.loss))
        if config.dream_tokens and (last or step % config.dream_every == 0):
            ids = dream(
                learner,
                opening_ids(tokenizer),
                tokens=config.dream_tokens,
                context=config.context,
                vocabulary=tokenizer.vocabulary_size,
                end=tokenizer.eos_id,
                seed=config.seed,
            )
            tell(Dreamed(step, tokenizer.decode(ids)))

    def save(step: int) -> None:
        progress = Progress(step, pace.seconds, corpus.manifest.fingerprint)
        save_checkpoint(run.checkpoints, learner.network, learner.optimizer, progress, processes)
        tell(Saved(step))

    step, bad_streak = start.step, 0
    with noticed_signals() as stopping:
        while step < config.steps:
            look(step)
            pace.begin()
            rows = _own_rows(config, processes)
            factor = rate_factor(
                step,
                config.steps,
                warmup=config.warmup,
                decay=config.decay,
                final=config.final_rate,
            )
            micro_batch = learner.micro_batch
            done = train_step(learner, batches.batch(step, rows), factor)
            tell(pace.end(step, done, factor, batches.epoch(step)))
            if learner.micro_batch < micro_batch:
                tell(Noted(step, f"Out of memory: micro-batches of {learner.micro_batch} rows now"))
            bad_streak = 0 if done.applied else bad_streak + 1
            if bad_streak == LARGEST_BAD_STREAK:
                raise TrainingError(_diverged(step, run))
            step += 1
            (stop,) = processes.sum(stopping.is_set())
            if stop or step == config.steps or step % config.checkpoint_every == 0:
                save(step)
            if stop:
                break
        else:
            look(step)
    run.close()
    return Outcome(learner, step, step == config.steps, pace.seconds)


def build_learner(config: PretrainConfig, processes: Processes) -> Learner:
    """A network with fresh weights, which follow from the seed alone, and its optimizer."""
    network = Network(network_config(config)).to(processes.device)
    network.initialise(config.seed)
    spread(network, network.blocks, processes)
    precision = getattr(torch, config.precision)
    optimizer = Optimizer(
        network.named_parameters(),
        OptimizerConfig(
            matrix_rate=config.matrix_rate,
            embedding_rate=config.embedding_rate,
            vector_rate=config.vector_rate,
            matrix_decay=config.matrix_decay,
            precision=precision,
        ),
    )
    forward = compiled(network, processes) if config.compile else network
    return Learner(
        network, forward, optimizer, processes, precision, config.micro_batch, config.clip
    )


def network_config(config: PretrainConfig) -> NetworkConfig:
    """The shape of the network that a run trains."""
    return NetworkConfig(
        vocabulary=config.vocabulary,
        width=config.width,
        layers=config.depth,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        ffn_width=config.ffn_width,
        qk_norm=config.qk_norm,
        context=config.context,
    )


def check_fit(config: PretrainConfig, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Refuse data that was made with another tokenizer, or that the network has no rows for.

    Raises:
        TrainingError: says which does not fit.
    """
    if corpus.manifest.tokenizer_sha256 != tokenizer.sha256:
        raise TrainingError(
            "The token shards were made with another tokenizer: make them again with this one, or "
            "name the other one."
        )
    if config.vocabulary < tokenizer.vocabulary_size:
        raise TrainingError(
            f"The network has {config.vocabulary:,} rows in its embedding, and the tokenizer "
            f"{tokenizer.vocabulary_size:,} tokens."
        )


class Work(Protocol):
    """What a step takes."""

    @property
    def batch_tokens(self) -> int: ...

    @property
    def flops_per_token(self) -> int: ...


class Pace:
    """Times the steps. Evaluations, dreams and checkpoints do not count.

    Attributes:
        seconds: of computing, this time and before.
    """

    def __init__(
        self, work: Work, processes: Processes, precision: torch.dtype, seconds: float
    ) -> None:
        self.seconds = seconds
        self._work = work
        self._peak = peak_flops(processes.device, precision) * processes.count
        self._begun = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._begun = time.perf_counter()

    def end(self, step: int, done: Step, factor: float, epoch: float) -> Stepped:
        """A step is over."""
        elapsed = time.perf_counter() - self._begun
        self.seconds += elapsed
        speed = self._work.batch_tokens / elapsed
        return Stepped(
            step=step,
            loss=done.loss,
            gradient_norm=done.gradient_norm,
            rate=factor,
            epoch=epoch,
            tokens_per_second=speed,
            mfu=speed * self._work.flops_per_token / self._peak,
            applied=done.applied,
        )


@contextmanager
def noticed_signals() -> Iterator[threading.Event]:
    """Sets the event at the first SIGINT or SIGTERM; the second one acts as ever.

    Signals reach only a program's main thread; elsewhere nothing is noticed.
    """
    stopping = threading.Event()
    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def notice(number: int, frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)
        }
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _resume(run: RunFolder, corpus: Corpus, learner: Learner) -> Progress:
    """Go back to the last checkpoint; without one, to the beginning."""
    saved = checkpoints(run.checkpoints)
    if not saved:
        return Progress(0, 0.0, corpus.manifest.fingerprint)
    progress = load_checkpoint(saved[-1], learner.network, learner.optimizer)
    if progress.data != corpus.manifest.fingerprint:
        raise TrainingError(
            f"{saved[-1]}: was trained on other data: bring the data back, or start another run."
        )
    return progress


def _own_rows(config: PretrainConfig, processes: Processes) -> slice:
    share = config.batch // processes.count
    return slice(processes.rank * share, (processes.rank + 1) * share)


def _diverged(step: int, run: RunFolder) -> str:
    saved = checkpoints(run.checkpoints)
    advice = "lower the learning rates (--matrix-rate, --embedding-rate)"
    last = f" The last checkpoint is {saved[-1].name}." if saved else ""
    return (
        f"Loss or gradient were not finite in {LARGEST_BAD_STREAK} steps in a row, up to step "
        f"{step:,}: {advice}, or use --precision float32.{last}"
    )
