"""Fine-tuning: a network that continues texts learns to answer (Ouyang et al. 2022, step 1).

It is pre-training's loop on conversations: rows hold packed ones, and only what the assistant says
carries loss, so that the model learns to answer questions and not to ask them. Either all weights
learn, or adapters beside frozen ones do (LoRA). AdamW moves everything: Muon's steps are as large
in every direction, which is more than a trained network should be changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oneiros.errors import TrainingError
from oneiros.model.adapter import LARGEST_RANK
from oneiros.model.tokenizer import Tokenizer
from oneiros.training.bits_per_byte import Evaluation, token_lengths
from oneiros.training.checkpoint import (
    Progress,
    checkpoints,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from oneiros.training.config import PRECISIONS
from oneiros.training.events import Evaluated, Event, Noted, Saved
from oneiros.training.lora import LoraConfig, adapt
from oneiros.training.machine import compiled
from oneiros.training.network import Network, NetworkConfig
from oneiros.training.optimizer import Optimizer, OptimizerConfig, rate_factor
from oneiros.training.packing import PackedBatches, PackedRows, pack
from oneiros.training.pretrain import LARGEST_BAD_STREAK, Outcome, Pace, noticed_signals
from oneiros.training.processes import Processes, keep_freed_memory
from oneiros.training.run_folder import RunFolder
from oneiros.training.shards import IGNORED
from oneiros.training.step import Learner, losses, rows_of, train_step

EPOCHS = 3.0

LONGEST_CONTEXT = 2048
"""Rows are no longer by default, even where the model could: their cost grows with the square."""

# Updates per epoch that the batch is chosen for, within these bounds of tokens.
_UPDATES_PER_EPOCH, _SMALLEST_BATCH, _LARGEST_BATCH = 32, 2048, 65536

_RATE_TIMES_WIDTH = 0.2
"""Full fine-tuning: 8e-4 at width 256, 5e-5 at 4096: wider networks want smaller steps."""

_FULL_RATE_BATCH = 8192
"""Tokens. The gradient of a smaller batch says less of where to go, and the rate falls with the
root of its size (Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient
Algorithms"). At 1,024 tokens the whole rate made SmolLM2-135M worse on Dolly's replies than the
reduced one did: 2.10 and 2.01 nats per token."""

_LORA_RATE_TIMES_WIDTH = 0.8
"""Adapters want larger rates than the whole network does, at small batches too; their B begins at
zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Everything that determines a run, apart from its model, its data and the arithmetic."""

    rank: int  # of the adapters; 0: all weights learn
    alpha: float  # adapters count alpha / rank times
    context: int  # positions of a row
    steps: int  # updates in all
    batch: int  # rows per update
    micro_batch: int  # rows that are computed at once, at most
    rate: float  # AdamW's, at the peak
    weight_decay: float  # decoupled, times the rate, of matrices
    warmup: int  # steps of rising learning rate
    decay: int  # steps of falling learning rate, at the end
    final_rate: float  # the last learning rate, as a fraction of the peak
    clip: float  # largest norm of the gradient
    evaluate_every: int  # steps
    checkpoint_every: int  # steps
    seed: int
    precision: str  # of matrix products: "float32" or "bfloat16"
    compile: bool  # torch.compile

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            TrainingError: says which is out of range.
        """
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_ZERO else 1e-30
            if field.name not in ("precision", "compile") and not least <= value < math.inf:
                bound = "not be negative" if least == 0 else "be above 0"
                raise TrainingError(f"{field.name} is {value}, and must {bound}.")
        if self.precision not in PRECISIONS:
            raise TrainingError(
                f"precision is {self.precision!r}: choose {' or '.join(PRECISIONS)}."
            )
        if self.warmup + self.decay > self.steps:
            raise TrainingError(
                f"{self.warmup} steps of warm-up and {self.decay} of decay do not fit into "
                f"{self.steps} steps."
            )

    @property
    def lora(self) -> LoraConfig | None:
        """The form of the adapters, where there are some."""
        return LoraConfig(self.rank, self.alpha) if self.rank else None

    @property
    def batch_tokens(self) -> int:
        """Positions per update, those left empty included."""
        return self.batch * self.context

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> FinetuneConfig:
        """The settings that config.json holds.

        Raises:
            TrainingError: one is missing or unknown: the run is of another version.
        """
        names = {field.name for field in fields(FinetuneConfig)}
        if values.keys() != names:
            wrong = ", ".join(sorted(values.keys() ^ names))
            raise TrainingError(f"The run's settings are of another version of Oneiros ({wrong}).")
        return FinetuneConfig(**values)


_MAY_BE_ZERO = ("rank", "weight_decay", "warmup", "decay", "final_rate", "seed")


def finetune_config(
    network: NetworkConfig,
    lengths: Sequence[int],
    *,
    epochs: float | None = None,
    **chosen: Any,
) -> FinetuneConfig:
    """The settings that follow from a network and the conversations that it shall learn.

    Args:
        network: its shape.
        lengths: tokens of each conversation.
        epochs: how often to go through them; default 3.
        chosen: values of `FinetuneConfig` that are set; None counts as not set.

    Raises:
        TrainingError: a value is out of range, or no conversation fits the context.
    """
    values = {name: value for name, value in chosen.items() if value is not None}
    known = {field.name for field in fields(FinetuneConfig)}
    if unknown := values.keys() - known:
        raise TrainingError(f"There is no setting called {', '.join(sorted(unknown))}.")
    if not lengths:
        raise TrainingError("There is no conversation to learn from.")

    def setting(name: str, default: Any) -> Any:
        return values.setdefault(name, default)

    longest = max(64, 1 << math.ceil(math.log2(max(2, max(lengths) - 1))))
    context = setting("context", min(network.context, LONGEST_CONTEXT, longest))
    if context > network.context:
        raise TrainingError(f"The model is made for {network.context:,} tokens, not {context:,}.")
    fitting = [length - 1 for length in lengths if length - 1 <= context]
    if not fitting:
        raise TrainingError(
            f"None of the {len(lengths):,} conversations fits into {context:,} tokens: the "
            f"shortest has {min(lengths):,}. The model is made for {network.context:,}."
        )
    wanted = min(max(sum(fitting) / _UPDATES_PER_EPOCH, _SMALLEST_BATCH), _LARGEST_BATCH)
    batch = setting("batch", 1 << max(0, round(math.log2(wanted / context))))
    if batch < 1:
        raise TrainingError(f"batch is {batch}, and must be above 0.")
    rows = len(pack(fitting, context))
    epochs = EPOCHS if epochs is None else epochs
    if not 0 < epochs < math.inf:
        raise TrainingError(f"epochs is {epochs}, and must be above 0.")
    steps = setting("steps", max(1, math.ceil(epochs * rows / batch)))
    setting("micro_batch", min(batch, max(1, (1 << 12) // context)))
    rank = setting("rank", 0)
    if rank > LARGEST_RANK:
        raise TrainingError(f"rank is {rank}: the engine runs adapters of at most {LARGEST_RANK}.")
    if "alpha" in values and not rank:
        raise TrainingError("alpha weighs adapters: it needs a rank (--lora) too.")
    setting("alpha", 2.0 * rank if rank else 1.0)
    setting(
        "rate", (_LORA_RATE_TIMES_WIDTH if rank else _full_rate(batch * context)) / network.width
    )
    setting("weight_decay", 0.0)
    setting("warmup", steps // 20)
    setting("decay", steps // 2)
    setting("final_rate", 0.0)
    setting("clip", 1.0)
    setting("evaluate_every", max(1, steps // 10))
    setting("checkpoint_every", max(1, steps // 5))
    setting("seed", 1)
    setting("precision", "float32")
    setting("compile", False)
    return FinetuneConfig(**values)


def _full_rate(batch_tokens: int) -> float:
    """The rate times the network's width."""
    return _RATE_TIMES_WIDTH * math.sqrt(min(1.0, batch_tokens / _FULL_RATE_BATCH))


def finetune(
    config: FinetuneConfig,
    network: Network,
    train: PackedRows,
    validation: PackedRows,
    tokenizer: Tokenizer,
    run: RunFolder,
    processes: Processes,
    *,
    data: str,
    report: Callable[[Event], None],
) -> Outcome:
    """Fine-tune a network, or go on with a run that stopped.

    A run goes on as `pretrain`'s do: from its last checkpoint, with the numbers that it would
    have had; Ctrl-C and SIGTERM end it after the present step, with a checkpoint.

    Args:
        config: the settings.
        network: as loaded; it learns, or gets adapters that do.
        train: conversations to learn from.
        validation: conversations to evaluate on; may be empty.
        tokenizer: the network's.
        run: where checkpoints and metrics go.
        processes: this one, with its device.
        data: identifies the conversations; a checkpoint of others is refused.
        report: is told of everything that happens, after it was recorded.

    Raises:
        TrainingError: the checkpoint is of other data or another network, numbers stopped being
            finite, or memory ran out.
        ModelFileError: a checkpoint cannot be written or read.
    """
    if processes.device.type == "cpu":
        keep_freed_memory()
    batches = PackedBatches(train, config.batch, config.seed)
    lengths = token_lengths(tokenizer)
    learner = build_learner(config, network, processes)
    start = Progress(0, 0.0, data)
    if saved := checkpoints(run.checkpoints):
        start = load_checkpoint(saved[-1], learner.network, learner.optimizer)
        if start.data != data:
            raise TrainingError(
                f"{saved[-1]}: was trained on other conversations: bring them back, or start "
                "another run."
            )
    remove_leftovers(run.checkpoints)
    run.rewind(start.step)
    work = _Work(config.batch_tokens, flops_per_token(network.config, config))
    pace = Pace(work, processes, learner.precision, start.seconds)

    def tell(event: Event) -> None:
        run.record(event)
        report(event)

    def look(step: int) -> None:
        """Evaluate, when it is time to."""
        if step == config.steps or step % config.evaluate_every == 0:
            found = evaluate_replies(learner, validation, lengths)
            if found is not None:
                tell(Evaluated(step, found.bits_per_byte, found.loss))

    def save(step: int) -> None:
        progress = Progress(step, pace.seconds, data)
        save_checkpoint(run.checkpoints, learner.network, learner.optimizer, progress, processes)
        tell(Saved(step))

    step, bad_streak = start.step, 0
    with noticed_signals() as stopping:
        while step < config.steps:
            look(step)
            pace.begin()
            factor = rate_factor(
                step,
                config.steps,
                warmup=config.warmup,
                decay=config.decay,
                final=config.final_rate,
            )
            micro_batch = learner.micro_batch
            done = train_step(learner, batches.batch(step), factor)
            tell(pace.end(step, done, factor, batches.epoch(step)))
            if learner.micro_batch < micro_batch:
                tell(Noted(step, f"Out of memory: micro-batches of {learner.micro_batch} rows now"))
            bad_streak = 0 if done.applied else bad_streak + 1
            if bad_streak == LARGEST_BAD_STREAK:
                raise TrainingError(
                    f"Loss or gradient were not finite in {LARGEST_BAD_STREAK} steps in a row, up "
                    f"to step {step:,}: lower the learning rate (--rate {config.rate / 4:.1g}), or "
                    "use --precision float32."
                )
            step += 1
            stop = stopping.is_set()
            if stop or step == config.steps or step % config.checkpoint_every == 0:
                save(step)
            if stop:
                break
        else:
            look(step)
    run.close()
    return Outcome(learner, step, step == config.steps, pace.seconds)


def build_learner(config: FinetuneConfig, network: Network, processes: Processes) -> Learner:
    """A network with what it takes to learn; with adapters, where the settings ask for them."""
    network.to(processes.device)
    if config.lora is not None:
        adapt(network, config.lora, config.seed)
    optimizer = Optimizer(
        ((name, p) for name, p in network.named_parameters() if p.requires_grad),
        OptimizerConfig(
            embedding_rate=config.rate,
            vector_rate=config.rate,
            embedding_decay=config.weight_decay,
            muon=False,
        ),
    )
    precision = getattr(torch, config.precision)
    forward = compiled(network, processes) if config.compile else network
    return Learner(
        network, forward, optimizer, processes, precision, config.micro_batch, config.clip
    )


@torch.no_grad()
def evaluate_replies(
    learner: Learner, rows: PackedRows, lengths: NDArray[np.int64]
) -> Evaluation | None:
    """How well replies are predicted that the network does not learn.

    Args:
        learner: its network is evaluated.
        rows: conversations.
        lengths: see `token_lengths`.

    Returns:
        The sums over the replies' text, without the tokens that end them, as in pre-training;
        None if there is none.
    """
    nats, tokens, size = 0.0, 0, 0
    for begin in range(0, len(rows), learner.micro_batch):
        batch = rows.batch(range(begin, min(begin + learner.micro_batch, len(rows))))
        batch.targets[(batch.targets != IGNORED) & (lengths[batch.targets] == 0)] = IGNORED
        nats += float(losses(learner, rows_of(batch, 0, len(batch.tokens))).double().sum())
        counted = batch.targets[batch.targets != IGNORED]
        tokens += len(counted)
        size += int(lengths[counted].sum())
    return Evaluation(nats, tokens, size) if size else None


def flops_per_token(network: NetworkConfig, config: FinetuneConfig) -> int:
    """Floating-point operations per position, forward and backward, as `PretrainConfig` counts.

    Frozen matrices need no gradient of their own, which saves a third of their work.
    """
    width = network.heads * network.head_dim
    layer = 2 * network.width * (width + network.kv_heads * network.head_dim)
    layer += 3 * network.width * network.ffn_width
    matrices = network.layers * layer + network.vocabulary * network.width
    return (4 if config.rank else 6) * matrices + 12 * network.layers * width * config.context


@dataclass(frozen=True, slots=True)
class _Work:
    batch_tokens: int
    flops_per_token: int
