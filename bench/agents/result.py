"""What an attempt at a task brought, and the limits that both sides have."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 12  # calls of ours, steps of the peer
REPLY_TOKENS = 512
SECONDS = 600.0  # a task


@dataclass(frozen=True, slots=True)
class Attempt:
    """One task, tried once."""

    task: str
    answer: str
    solved: bool
    calls: int  # of tools that were asked for, well formed or not
    malformed: int  # that named no tool, or had arguments that it does not take
    tokens: int  # of all prompts and replies, read from a cache or not
    computed: int | None  # of these, what had to be computed; None: not known
    seconds: float
