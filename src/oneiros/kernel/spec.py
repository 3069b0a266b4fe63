"""What a process is started with."""

from __future__ import annotations

from dataclasses import dataclass, field

from oneiros.engine.sampling import SamplingOptions
from oneiros.kernel.events import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process to start."""

    owner: str  # principal
    program: str = "agent"
    app: str = "assistant"
    model: str | None = None  # None: the kernel's own
    text: str | None = None  # the first message
    title: str = ""
    priority: int = 0
    budget: Budget = field(default_factory=Budget)
    capabilities: frozenset[str] = frozenset({"*"})
    parent: int | None = None
    system: str | None = None  # None: the app's own
    sampling: SamplingOptions | None = None  # None: the model's way
