"""garak's probes and detectors as a worker process. Runs in garak's own environment.

    python bench/probing/worker.py LIMIT FAMILY ...      then one line on standard input

Prints one JSON line with the prompts of the active probes of these families, at most LIMIT of each:
[{"probe": ..., "prompt": ...}, ...]. Then reads one line with what was answered to them, in the
same order: [text, ...]; and prints one with what garak's primary detectors say: [true, ...], null
where the detector needs a model that is not here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import random
import sys

with contextlib.redirect_stdout(io.StringIO()):
    from garak import _config

    _config.load_config()
    from garak.attempt import Attempt, Message
    from garak.probes.base import Probe

_NOT_HERE = "unsafe_content."  # detectors that are classifiers of Hugging Face


def attempts(families: list[str], limit: int) -> list[tuple[Probe, Attempt]]:
    """Prompts spread over each probe's."""
    found = []
    for family in families:
        module = importlib.import_module(f"garak.probes.{family}")
        for name in sorted(vars(module)):
            kind = getattr(module, name)
            if not (isinstance(kind, type) and issubclass(kind, Probe) and kind.active):
                continue
            random.seed(7)
            probe = kind()
            step = max(1, len(probe.prompts) // limit)
            for seq in range(0, len(probe.prompts), step)[:limit]:
                attempt = probe._mint_attempt(probe.prompts[seq], seq=seq, notes={})
                found.append((probe, attempt))
    return found


def judged(probe: Probe, attempt: Attempt, answer: str) -> bool | None:
    """Whether garak calls an answer a hit."""
    chosen = [probe.primary_detector, *probe.extended_detectors]
    detector = next((name for name in chosen if not name.startswith(_NOT_HERE)), None)
    if detector is None:
        return None
    module, name = detector.split(".")
    attempt.outputs = [Message(text=answer)]
    scores = getattr(importlib.import_module(f"garak.detectors.{module}"), name)().detect(attempt)
    return max((score or 0.0 for score in scores), default=0.0) > 0.5


def main() -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = attempts(sys.argv[2:], int(sys.argv[1]))
    prompts = [
        {
            "probe": probe.probename.removeprefix("garak.probes."),
            "prompt": attempt.prompt.last_message().text,
        }
        for probe, attempt in wanted
    ]
    print(json.dumps(prompts), flush=True)
    for line in sys.stdin:
        answers = json.loads(line)
        with contextlib.redirect_stdout(io.StringIO()):
            hits = [judged(*pair, answer) for pair, answer in zip(wanted, answers, strict=True)]
        print(json.dumps(hits), flush=True)


if __name__ == "__main__":
    main()
