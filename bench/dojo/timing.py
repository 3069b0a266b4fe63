"""How long decisions take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from oneiros.kernel import syscalls


@contextmanager
def timed_decisions() -> Iterator[list[float]]:
    """Milliseconds of each decision that is made meanwhile."""
    spent: list[float] = []
    decide = syscalls.decide

    def timed(*arguments: Any, **more: Any) -> Any:
        began = time.perf_counter()
        decided = decide(*arguments, **more)
        spent.append((time.perf_counter() - began) * 1000)
        return decided

    with patch.object(syscalls, "decide", timed):
        yield spent
