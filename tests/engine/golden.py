"""Golden logits: what transformers computed in float32 (see make_golden_logits.py).

Also the small random networks that cover what the real models lack: scaled rotary positions, heads
of a size of their own, normalised heads, untied outputs. Their weights come from a seed, so that
only the logits are stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneiros.model.architecture import Architecture, RopeScaling
from tests.model.builders import tiny_architecture

NETWORK_TOKENS = 48
NETWORK_POSITIONS = 16  # the last ones, whose logits are stored

NETWORKS: dict[str, Architecture] = {
    "llama-all-heads": tiny_architecture("llama", kv_heads=4),
    "llama3-scaled-positions": tiny_architecture(
        "llama",
        head_dim=32,
        rope_base=500.0,
        rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 64),
    ),
    "qwen2-linear-positions": tiny_architecture("qwen2", rope_scaling=RopeScaling("linear", 4.0)),
    "qwen3-wide-heads": tiny_architecture("qwen3", width=96, head_dim=64, kv_heads=1, tied=True),
}


@dataclass(frozen=True, slots=True)
class Golden:
    """A model's logits over real text, of the most probable tokens of each position."""

    ids: NDArray[np.int32]  # (tokens,) the text
    top_ids: NDArray[np.int64]  # (tokens, kept) the most probable first
    top_logits: NDArray[np.float32]  # (tokens, kept)
    log_sum_exp: NDArray[np.float64]  # (tokens,) over the whole vocabulary


def golden_path(name: str) -> Path:
    """Where the golden logits of a model lie."""
    return Path(__file__).parents[1] / "data" / f"golden-logits-{name}.npz"


def load_golden(name: str) -> Golden:
    """The golden logits of a catalog model."""
    with np.load(golden_path(name)) as stored:
        return Golden(
            stored["ids"],
            stored["top_ids"].astype(np.int64),
            stored["top_logits"],
            stored["log_sum_exp"],
        )


def load_network_logits(name: str) -> NDArray[np.float32]:
    """Float32 (NETWORK_POSITIONS, vocabulary): the logits of a small network's last positions."""
    with np.load(golden_path("networks")) as stored:
        logits: NDArray[np.float32] = stored[name]
    return logits


def network_ids(name: str) -> NDArray[np.int32]:
    """The (NETWORK_TOKENS,) token ids that a small network reads."""
    steps = np.arange(NETWORK_TOKENS)
    return ((7 * steps * steps + 3 * steps) % NETWORKS[name].vocabulary).astype(np.int32)
