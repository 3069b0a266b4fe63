"""The settings of a pre-training run, and the one dial that they follow from.

`--depth` sets the number of layers, and with it everything else: width, heads, how many tokens to
train on, the batch, the learning rates, the context. Every value can be set instead, and what
follows from it follows from the value that was set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from oneiros.errors import TrainingError

WIDTH_PER_LAYER = 64
HEAD_DIM = 64
TOKENS_PER_PARAMETER = 20.0
"""Near the optimum of Hoffmann et al. 2022 for a given amount of computing."""

# Batches between two recipes that are known to work: nanoGPT's on a laptop (some 2,000 tokens for
# a run of 2 million) and those of GPT-2-size runs (half a million for a run of a few billion).
_SMALL_RUN, _SMALL_BATCH, _BATCH_EXPONENT = 2e6, 2048, 0.75
_LARGEST_BATCH = 1 << 20

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Everything that determines a run, apart from its data and its machine's arithmetic."""

    # The network
    depth: int  # layers
    width: int  # features of the residual stream
    heads: int  # query heads
    kv_heads: int  # key/value heads; heads % kv_heads == 0
    head_dim: int  # features per head
    ffn_width: int  # features inside the feed-forward network
    qk_norm: bool  # queries and keys are normalised per head
    vocabulary: int  # rows of the embedding, which is also the output matrix
    context: int  # tokens of a row
    # The course of the run
    steps: int  # updates in all
    batch: int  # rows per update, over all processes and micro-batches
    micro_batch: int  # rows that one process computes at once, at most
    warmup: int  # steps of rising learning rate
    decay: int  # steps of falling learning rate, at the end
    final_rate: float  # the last learning rate, as a fraction of the peak
    # The optimizer; rates at the peak
    matrix_rate: float  # Muon
    embedding_rate: float  # AdamW
    vector_rate: float  # AdamW, norms
    matrix_decay: float  # decoupled weight decay
    clip: float  # largest norm of the gradient
    # What happens along the way
    evaluate_every: int  # steps
    evaluation_rows: int  # rows of validation text, at most
    dream_every: int  # steps
    dream_tokens: int
    checkpoint_every: int  # steps
    # The arithmetic
    seed: int
    precision: str  # of matrix products: "float32" or "bfloat16"; weights stay float32
    compile: bool  # torch.compile

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> PretrainConfig:
        """The settings that config.json holds.

        Raises:
            TrainingError: one is missing or unknown: the run is of another version.
        """
        names = {field.name for field in fields(PretrainConfig)}
        if values.keys() != names:
            wrong = ", ".join(sorted(values.keys() ^ names))
            raise TrainingError(f"The run's settings are of another version of Oneiros ({wrong}).")
        return PretrainConfig(**values)

    @property
    def matrix_parameters(self) -> int:
        """Parameters of the layers' matrices: those that work for every token."""
        attention = 2 * self.width * self.head_dim * (self.heads + self.kv_heads)
        return self.depth * (attention + 3 * self.width * self.ffn_width)

    @property
    def parameters(self) -> int:
        """All parameters; the embedding, which is tied to the head, counts once."""
        norms = self.width * (2 * self.depth + 1)
        norms += 2 * self.depth * self.head_dim if self.qk_norm else 0
        return self.matrix_parameters + self.vocabulary * self.width + norms

    @property
    def batch_tokens(self) -> int:
        """Tokens per update."""
        return self.batch * self.context

    @property
    def tokens(self) -> int:
        """Tokens that the run trains on, repetitions included."""
        return self.steps * self.batch_tokens

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations per trained token, forward and backward.

        Six per parameter that multiplies (the head does, looking up the embedding does not), and
        12 * layers * features * context for attention (Chowdhery et al. 2022, appendix B), which
        counts all pairs of positions, though the causal half would do.
        """
        attention = 12 * self.depth * self.heads * self.head_dim * self.context
        return 6 * (self.matrix_parameters + self.vocabulary * self.width) + attention


def pretrain_config(
    depth: int,
    vocabulary: int,
    *,
    tokens: float | None = None,
    processes: int = 1,
    **chosen: Any,
) -> PretrainConfig:
    """The settings that follow from the depth.

    Args:
        depth: layers.
        vocabulary: of the tokenizer.
        tokens: to train on; by default 20 for each parameter.
        processes: that share the work: the batch is a multiple of this.
        chosen: values of `PretrainConfig` that are set; None counts as not set.

    Raises:
        TrainingError: a value is out of range, or two contradict each other; says which.
    """
    chosen = {name: value for name, value in chosen.items() if value is not None}
    known = {field.name for field in fields(PretrainConfig)}
    if unknown := chosen.keys() - known:
        raise TrainingError(f"There is no setting called {', '.join(sorted(unknown))}.")
    values: dict[str, Any] = {"depth": depth, "vocabulary": vocabulary}

    def setting(name: str, default: Any) -> Any:
        values[name] = chosen.get(name, default)
        return values[name]

    width = setting("width", WIDTH_PER_LAYER * depth)
    head_dim = setting("head_dim", HEAD_DIM if width >= 4 * HEAD_DIM else max(2, width // 4))
    heads = setting("heads", max(1, width // head_dim))
    setting("kv_heads", heads)
    # Three matrices of 8/3 of the width cost as much as the classical two of 4 widths (Shazeer
    # 2020); rounded to what divides into blocks of every storage format.
    setting("ffn_width", math.ceil(8 * width / 3 / 64) * 64)
    setting("qk_norm", True)
    context = setting("context", min(2048, max(64, 1 << math.ceil(math.log2(max(1, width))))))

    shape = {name: values[name] for name in values}
    if tokens is not None and not 0 < tokens < math.inf:
        raise TrainingError(f"tokens is {tokens}, and must be above 0.")
    trained = TOKENS_PER_PARAMETER * _parameters(shape) if tokens is None else tokens
    batch = setting("batch", _batch_rows(trained, context, processes))
    steps = setting("steps", max(1, round(trained / (batch * context))))
    setting("micro_batch", min(math.ceil(batch / processes), max(1, (1 << 15) // context)))
    setting("warmup", min(100, steps // 20))
    setting("decay", round(0.4 * steps))
    setting("final_rate", 0.0)

    setting("matrix_rate", 0.02)
    # Rows of the embedding are added to a stream of `width` features: the wider, the smaller.
    setting("embedding_rate", 0.01 * math.sqrt(256 / width))
    setting("vector_rate", 0.01)
    setting("matrix_decay", 0.01)
    setting("clip", 1.0)

    every = max(1, steps // 20)
    setting("evaluate_every", every)
    setting("evaluation_rows", max(8, (1 << 17) // context))
    setting("dream_every", 2 * every)
    setting("dream_tokens", min(128, context))
    setting("checkpoint_every", min(every, 500))
    setting("seed", 1)
    setting("precision", "float32")
    setting("compile", False)

    config = PretrainConfig(**values)
    _check(config, processes)
    return config


def _parameters(shape: dict[str, Any]) -> int:
    """Parameters of a network whose run is not settled yet."""
    rest = {field.name: 0 for field in fields(PretrainConfig)}
    return PretrainConfig(**(rest | shape)).parameters


def _batch_rows(tokens: float, context: int, processes: int) -> int:
    """A power of two of rows, and a multiple of the processes."""
    wanted = min(_SMALL_BATCH * (tokens / _SMALL_RUN) ** _BATCH_EXPONENT, _LARGEST_BATCH)
    rows = 1 << max(0, round(math.log2(wanted / context)))
    return math.ceil(rows / processes) * processes


# fmt: off
_POSITIVE = (
    "depth", "width", "heads", "kv_heads", "head_dim", "ffn_width", "vocabulary", "context",
    "steps", "batch", "micro_batch", "matrix_rate", "embedding_rate", "vector_rate", "clip",
    "evaluate_every", "evaluation_rows", "dream_every", "checkpoint_every",
)
# fmt: on
_NOT_NEGATIVE = ("warmup", "decay", "final_rate", "matrix_decay", "dream_tokens", "seed")


def _check(config: PretrainConfig, processes: int) -> None:
    for name in _POSITIVE:
        if not 0 < getattr(config, name) < math.inf:
            raise TrainingError(f"{name} is {getattr(config, name)}, and must be above 0.")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(config, name) < math.inf:
            raise TrainingError(f"{name} is {getattr(config, name)}, and must not be negative.")
    if config.heads % config.kv_heads:
        raise TrainingError(
            f"{config.heads} query heads cannot share {config.kv_heads} key/value heads evenly."
        )
    if config.head_dim % 2:
        raise TrainingError(f"head_dim is {config.head_dim}, and must be even: RoPE turns pairs.")
    if config.warmup + config.decay > config.steps:
        raise TrainingError(
            f"{config.warmup} steps of warm-up and {config.decay} of decay do not fit into "
            f"{config.steps} steps."
        )
    if config.batch % processes:
        raise TrainingError(
            f"A batch of {config.batch} rows cannot be shared evenly by {processes} processes."
        )
    if config.precision not in PRECISIONS:
        raise TrainingError(f"precision is {config.precision!r}: choose {' or '.join(PRECISIONS)}.")
