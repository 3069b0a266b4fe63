"""Where a value comes from, in words for a person who is asked about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from oneiros.kernel.readings import Compared, Reading, Scalar, leaves, same

_MOST = 3  # sources that are named


def explained(value: Scalar, readings: Sequence[Reading]) -> str:
    """Which results hold a value, literally; a value that none holds was made up by the model."""
    text = json.dumps(value, ensure_ascii=False).strip('"').casefold()
    found = []
    for reading in readings:
        if same(value) in _values(reading) or text in _text(reading):
            kinds = sorted({origin.partition(":")[0] for origin in reading.origins})
            found.append(reading.tool + (f" ({', '.join(kinds)})" if kinds else ""))
    named = list(dict.fromkeys(found))
    if not named:
        return "it is in nothing that was read"
    more = f" and {len(named) - _MOST} more" if len(named) > _MOST else ""
    return f"it is in what {', '.join(named[:_MOST])}{more} brought"


@lru_cache(maxsize=1024)
def _values(reading: Reading) -> frozenset[Compared]:
    return frozenset(same(value) for _, value in leaves(reading.data))


@lru_cache(maxsize=1024)
def _text(reading: Reading) -> str:
    return json.dumps(reading.data, ensure_ascii=False, default=str).casefold()
