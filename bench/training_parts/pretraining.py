"""Cases of pre-training: how fast, how well in three minutes, how much of a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from bench.report import Row
from bench.training_parts import litgpt_peer
from bench.training_parts.characters import VOCABULARY, Characters
from bench.training_parts.console import say
from bench.training_parts.plain import PlainLearner, Shape, cosine_rate
from oneiros.training.config import PretrainConfig, pretrain_config
from oneiros.training.machine import computes_bfloat16
from oneiros.training.optimizer import rate_factor
from oneiros.training.pretrain import build_learner
from oneiros.training.processes import Processes, keep_freed_memory
from oneiros.training.shards import IGNORED, Batch, Batches
from oneiros.training.speed import peak_flops
from oneiros.training.step import Learner, losses, rows_of, train_step

SPEEDUP, GPU_MFU = 1.3, 0.5
EVALUATIONS = 10
PARTS = 1000  # that a schedule by the clock is counted in

Update = Callable[[int], float]
"""The number of an update -> the seconds that it took."""


@dataclass(frozen=True, slots=True)
class SpeedSize:
    shape: Shape
    rows: int  # of an update
    micro_batch: int
    rounds: int
    compiled: bool = True  # compiled networks too; each takes a minute or two to compile
    litgpt: bool = True


FULL_SPEED = SpeedSize(Shape(VOCABULARY, 6, 6, 384, 256), 64, 16, 3)
QUICK_SPEED = SpeedSize(Shape(VOCABULARY, 1, 1, 64, 32), 4, 2, 1, compiled=False, litgpt=False)


def speed_rows(case: str, characters: Characters, size: SpeedSize, threads: int) -> Iterator[Row]:
    """Updates of ours and of the peers in turns; every side in the better of its settings."""
    precision = "bfloat16" if computes_bfloat16(torch.device("cpu")) else "float32"
    keep_freed_memory()  # as `pretrain` does; the plain loop gains from it as well
    with ExitStack() as ending:
        updates: dict[str, Update] = {}
        for compiled in (False, True) if size.compiled else (False,):
            setting = "compiled" if compiled else "eager"
            updates |= _updates_here(characters, size, precision, setting)
            if size.litgpt and litgpt_peer.is_installed():
                settings = asdict(size.shape) | {
                    "ffn_width": our_config(size.shape).ffn_width,
                    "rows": size.rows,
                    "micro_batch": size.micro_batch,
                    "precision": "bf16-mixed" if precision == "bfloat16" else "32-true",
                    "compile": compiled,
                    "threads": threads,
                }
                worker = litgpt_peer.LitgptPeer(settings)
                ending.callback(worker.close)
                updates[f"litgpt {setting}"] = worker.update
            elif size.litgpt:
                say("  litgpt is not installed (`make peers`): the plain loop is the only peer")
        seconds: dict[str, list[float]] = {name: [] for name in updates}
        for step in range(1 + size.rounds):
            for name, update in updates.items():
                taken = update(step)
                if step:  # the first one compiles
                    seconds[name].append(taken)
    tokens = size.rows * size.shape.context
    speeds = {name: tokens / statistics.median(taken) for name, taken in seconds.items()}
    for name, speed in speeds.items():
        say(f"  {name}: {speed:,.0f} tokens/s")
    ours = max(speed for name, speed in speeds.items() if name.startswith("ours"))
    peer = max(speed for name, speed in speeds.items() if not name.startswith("ours"))
    yield Row(case, "tokens/s", ours, peer, "tokens/s", "higher", SPEEDUP)


def _updates_here(
    characters: Characters, size: SpeedSize, precision: str, setting: str
) -> dict[str, Update]:
    """Ours and the plain loop, which share this process."""
    device = torch.device("cpu")
    batches = Batches(characters.corpus.train, size.shape.context, size.rows, seed=1)
    config = our_config(
        size.shape,
        steps=1000,
        batch=size.rows,
        micro_batch=size.micro_batch,
        precision=precision,
        compile=setting == "compiled",
    )
    learner = build_learner(config, Processes(device))
    plain = PlainLearner(
        size.shape,
        micro_batch=size.micro_batch,
        precision=getattr(torch, precision),
        device=device,
        compiled=setting == "compiled",
    )
    return {
        f"ours {setting}": _timed(lambda step: train_step(learner, batches.batch(step), 1.0)),
        f"plain {setting}": _timed(lambda step: plain.update(batches.batch(step))),
    }


@dataclass(frozen=True, slots=True)
class LossSize:
    shape: Shape
    seconds: float  # of training
    epochs: float  # at most: beyond, a large network learns the text by heart
    rows: int  # of an update
    peer_rows: int
    peer_steps: int  # 0: without the peer
    target: float


CPU_LOSS = LossSize(Shape(VOCABULARY, 4, 4, 128, 64), 180, 100, 32, 12, 2000, 1.75)
GPU_LOSS = LossSize(Shape(VOCABULARY, 6, 6, 384, 256), 180, 12, 64, 64, 0, 1.4697)
QUICK_LOSS = LossSize(Shape(VOCABULARY, 1, 2, 32, 32), 0.3, 1, 8, 4, 10, 6.0)


def loss_rows(
    case: str, characters: Characters, size: LossSize, device: torch.device
) -> Iterator[Row]:
    """Loss on text that was set aside, the best of the evaluations along the way."""
    config = our_config(
        size.shape,
        steps=PARTS,
        batch=size.rows,
        micro_batch=size.rows,
        precision="bfloat16" if device.type == "cuda" else "float32",
        compile=device.type == "cuda",
    )
    validation = characters.validation(size.shape.context)
    ours = _trained_for(size, config, characters, validation, device)
    peer = None
    if size.peer_steps:
        peer = _plain_loss(size, characters, validation, device)
    yield Row(case, "val-loss", ours, peer, "nats/char", "lower", size.target, absolute=True)


def _trained_for(
    size: LossSize,
    config: PretrainConfig,
    characters: Characters,
    validation: Batch,
    device: torch.device,
) -> float:
    """Train with a schedule that ends with the time; evaluating and compiling do not count."""
    learner = build_learner(config, Processes(device))
    batches = Batches(characters.corpus.train, config.context, config.batch, config.seed)
    if config.compile:
        train_step(learner, batches.batch(0), 0.0)
    elapsed, step, best, evaluated = 0.0, 0, float("inf"), 0
    done = 0.0
    while done < 1:
        begun = time.perf_counter()
        factor = rate_factor(
            int(done * PARTS), PARTS, warmup=PARTS // 50, decay=PARTS // 2, final=0.0
        )
        train_step(learner, batches.batch(step), factor)
        elapsed += time.perf_counter() - begun
        step += 1
        done = max(elapsed / size.seconds, batches.epoch(step) / size.epochs)
        if int(done * EVALUATIONS) > evaluated:
            evaluated = int(done * EVALUATIONS)
            best = min(best, _loss(learner, validation))
            say(f"  ours, step {step:,}, {elapsed:.0f} s: best so far {best:.4f}")
    return best


@torch.no_grad()
def _loss(learner: Learner, validation: Batch) -> float:
    """Nats per target."""
    nats = sum(
        float(losses(learner, rows_of(validation, begin, begin + 64)).double().sum())
        for begin in range(0, len(validation.tokens), 64)
    )
    return nats / int(np.sum(validation.targets != IGNORED))


def _plain_loss(
    size: LossSize, characters: Characters, validation: Batch, device: torch.device
) -> float:
    """The plain loop with nanoGPT's recipe, all of its iterations."""
    learner = PlainLearner(
        size.shape, micro_batch=size.peer_rows, precision=torch.float32, device=device
    )
    batches = Batches(characters.corpus.train, size.shape.context, size.peer_rows, seed=1)
    begun = time.perf_counter()
    for step in range(size.peer_steps):
        learner.update(batches.batch(step), cosine_rate(step, size.peer_steps))
    taken = time.perf_counter() - begun
    loss = learner.evaluate(validation)
    say(f"  plain, {size.peer_steps:,} steps, {taken:.0f} s: {loss:.4f}")
    return loss


def mfu_rows(case: str) -> Iterator[Row]:
    """The part of a GPU's peak that the network's arithmetic uses; random tokens cost the same."""
    device = torch.device("cuda")
    config = pretrain_config(12, 1 << 15, precision="bfloat16", compile=True)
    learner = build_learner(config, Processes(device))
    random = np.random.default_rng(1)
    shape = (config.batch, config.context + 1)
    seconds = []
    for _ in range(13):
        ids = random.integers(config.vocabulary, size=shape)
        batch = Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), np.zeros_like(ids[:, 1:]))
        begun = time.perf_counter()
        train_step(learner, batch, 0.1)
        seconds.append(time.perf_counter() - begun)
    speed = config.batch_tokens / statistics.median(seconds[3:])
    mfu = speed * config.flops_per_token / peak_flops(device, torch.bfloat16)
    say(f"  {torch.cuda.get_device_name(device)}: {speed:,.0f} tokens/s")
    yield Row(case, "mfu", mfu, None, "of peak", "higher", GPU_MFU, absolute=True)


def our_config(shape: Shape, **settings: Any) -> PretrainConfig:
    """Our defaults for a network of this shape."""
    return pretrain_config(
        shape.layers,
        shape.vocabulary,
        width=shape.width,
        heads=shape.heads,
        head_dim=shape.width // shape.heads,
        context=shape.context,
        **settings,
    )


def _timed(update: Callable[[int], object]) -> Update:
    def seconds(step: int) -> float:
        begun = time.perf_counter()
        update(step)
        return time.perf_counter() - begun

    return seconds
