"""What happens in a training run, as records: for the run folder, for whoever looks on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Stepped:
    """An update was made, or refused because its numbers were not finite."""

    step: int
    loss: float  # nats per token, before the update
    gradient_norm: float  # before clipping
    rate: float  # fraction of the peak learning rates
    epoch: float  # how often all of the data has been seen
    tokens_per_second: float
    mfu: float  # fraction of the device's peak, 0 to 1
    applied: bool = True


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Validation text was predicted."""

    step: int
    bits_per_byte: float
    loss: float  # nats per token


@dataclass(frozen=True, slots=True)
class Dreamed:
    """The network wrote something of its own."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint was written."""

    step: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that whoever looks on should know."""

    step: int
    text: str


Event = Stepped | Evaluated | Dreamed | Saved | Noted

_KINDS: dict[str, type[Event]] = {
    "step": Stepped,
    "evaluation": Evaluated,
    "dream": Dreamed,
    "checkpoint": Saved,
    "note": Noted,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_record(event: Event) -> dict[str, Any]:
    """The event as a line of metrics.jsonl."""
    return {"kind": _NAMES[type(event)]} | asdict(event)


def from_record(record: dict[str, Any]) -> Event:
    """The event of a line of metrics.jsonl.

    Raises:
        KeyError, TypeError: it is none.
    """
    values = dict(record)
    return _KINDS[values.pop("kind")](**values)
