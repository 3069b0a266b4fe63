"""Our engine as a worker process: one side of bench/engine.py.

    python bench/workers/ours.py FILE THREADS         then commands on standard input

Commands and answers are JSON lines:

    {"do": "prefill", "tokens": [...]}               -> {"seconds": ...}   a prompt, from empty
    {"do": "decode", "tokens": [...], "count": 128}  -> {"seconds": ...}   greedy tokens after it
    {"do": "peak"}                                   -> {"peak_bytes": ...} beyond the interpreter's
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from oneiros.engine.engine import Engine
from oneiros.engine.language_model import load
from oneiros.engine.sampling import Sampler, SamplingOptions
from oneiros.engine.sequence import Sequence


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()  # ru_maxrss would include the parent's
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def decode(sequence: Sequence, tokens: list[int], count: int) -> float:
    """Greedy tokens after `tokens`, whose cache is kept if the last call had the same."""
    if sequence.tokens[: len(tokens)] != tokens:
        sequence.close()
        sequence.extend([*tokens[:-1]] or tokens)
    sequence.truncate(len(tokens) - 1)
    logits = sequence.extend(tokens[-1:])
    sampler = Sampler(SamplingOptions(temperature=0.0))
    assert logits is not None
    token = sampler.sample(logits)
    started = time.perf_counter()
    for _ in range(count):
        logits = sequence.extend([token])
        assert logits is not None
        token = sampler.sample(logits)
    return time.perf_counter() - started


def prefill(engine: Engine, tokens: list[int]) -> float:
    sequence = engine.sequence()
    started = time.perf_counter()
    sequence.extend(tokens)
    return time.perf_counter() - started


def main() -> None:
    baseline = peak_bytes()
    started = time.perf_counter()
    path = Path(sys.argv[1])
    engine = load(path, path.name, threads=int(sys.argv[2]), context=2560).engine
    print(json.dumps({"load_seconds": time.perf_counter() - started}), flush=True)
    held = engine.sequence()
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "prefill":
            answer = {"seconds": prefill(engine, command["tokens"])}
        elif command["do"] == "decode":
            answer = {"seconds": decode(held, command["tokens"], command["count"])}
        else:
            answer = {"peak_bytes": peak_bytes() - baseline}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
