"""What test and maker of lm-eval's goldens share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

FILE = Path("tests/data/lm-eval-scores.json")


def prompt_sha256(prompts: Iterable[tuple[str, str]]) -> str:
    """Names the prompts and continuations of an item."""
    return hashlib.sha256(json.dumps([list(p) for p in prompts]).encode()).hexdigest()
