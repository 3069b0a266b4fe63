"""How long decisions take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from oneiros.kernel import decisions
from oneiros.kernel.verdict import Decision, PolicyContext, ToolCall


@contextmanager
def timed_decisions() -> Iterator[list[float]]:
    """Milliseconds of the decision about each call that is made meanwhile."""
    spent: list[float] = []
    decide_all = decisions.decide_all

    def timed(calls: Sequence[ToolCall], context: PolicyContext) -> list[Decision]:
        began = time.perf_counter()
        decided = decide_all(calls, context)
        passed = (time.perf_counter() - began) * 1000
        spent.extend(passed / len(calls) for _ in calls)
        return decided

    with patch.object(decisions, "decide_all", timed):
        yield spent
