"""Rate limits: a token bucket refills steadily and is drained by what is used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TokenBucket:
    """So many units per minute, that many at once after a quiet minute.

    What is used may exceed what is left, because the length of a reply is known at its end: the
    level goes below zero, and whoever owns the bucket waits until it is refilled.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._at = clock()

    @property
    def level(self) -> float:
        now = self._clock()
        refilled = self._level + (now - self._at) * self.capacity / 60
        self._level, self._at = min(refilled, float(self.capacity)), now
        return self._level

    def take(self, amount: int) -> None:
        self._level = self.level - amount

    def seconds_until(self, level: float) -> float:
        """How long until there is so much (at most the capacity); 0 where there is already."""
        missing = min(level, self.capacity) - self.level
        return max(0.0, missing * 60 / self.capacity)


class RateLimits:
    """The buckets of one principal; a limit of None is none."""

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buckets = {
            name: TokenBucket(per_minute, clock)
            for name, per_minute in (("requests", requests), ("tokens", tokens))
            if per_minute is not None
        }

    def admit(self) -> tuple[str, float] | None:
        """Take one request; or the name of the exhausted limit and the seconds to wait."""
        waits = {name: bucket.seconds_until(1.0) for name, bucket in self._buckets.items()}
        worst = max(waits, key=waits.__getitem__, default=None)
        if worst is not None and waits[worst] > 0:
            return worst, waits[worst]
        if "requests" in self._buckets:
            self._buckets["requests"].take(1)
        return None

    def spend(self, tokens: int) -> None:
        """Count tokens of a prompt or a reply."""
        if "tokens" in self._buckets:
            self._buckets["tokens"].take(tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit headers."""
        found = {}
        for name, bucket in self._buckets.items():
            found[f"x-ratelimit-limit-{name}"] = str(bucket.capacity)
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.level)))
            full = bucket.seconds_until(bucket.capacity)
            found[f"x-ratelimit-reset-{name}"] = f"{full:.3f}s"
        return found
