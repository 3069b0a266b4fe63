"""What a process is started with."""

from __future__ import annotations

from dataclasses import dataclass, field

from oneiros.engine.sampling import SamplingOptions
from oneiros.kernel.events import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRules:
    """What an owner has said about an app, for all its processes."""

    grants: frozenset[str] = frozenset()  # as in `ProcessSpec`
    quarantine: bool = False


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
    # Effects that the app's manifest allows unasked: names of tools, and of readers.
    grants: frozenset[str] = frozenset()
    quarantine: bool = False  # whether what is untrusted of all results stays behind handles
    parent: int | None = None
    system: str | None = None  # None: the app's own
    sampling: SamplingOptions | None = None  # None: the model's way
