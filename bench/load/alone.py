"""What is measured without a peer: forks of a sequence, and replies with and without drafts."""

from __future__ import annotations

import asyncio
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.prompts import passage
from oneiros.engine.engine import Engine
from oneiros.engine.local_model import LocalModel, start_local_model
from oneiros.engine.requests import Finished, GenerationRequest, Tokens
from oneiros.engine.sampling import SamplingOptions
from oneiros.engine.worker import EngineSettings
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import load_tokenizer

_CODE = '''\
def summarize(values, limit):
    """The mean, the spread and the largest of the values below a limit."""
    kept = [value for value in values if value < limit]
    if not kept:
        raise ValueError("no values below the limit")
    mean = sum(kept) / len(kept)
    spread = sum((value - mean) ** 2 for value in kept) / len(kept)
    largest = max(kept)
    report = {"mean": mean, "spread": spread, "largest": largest}
    for name, value in report.items():
        print(f"{name:>10}: {value:.3f}")
    return report
'''
EDIT = (
    f"A function:\n\n```python\n{_CODE}```\n\nThe same function with `limit` renamed to `bound`, "
    "and nothing else changed:\n\n```python\ndef summarize(values, bound):\n"
)
"""A text whose continuation repeats most of it."""


@dataclass(frozen=True, slots=True)
class Forks:
    seconds: float  # of one fork
    memory: float  # extra bytes of all forks, relative to those of the sequence that was forked


def measure_forks(path: Path, tokens: int, count: int, rounds: int) -> Forks:
    """Fork a sequence of `tokens` tokens `count` times, `rounds` times over."""
    parameters = open_parameters(path)
    engine = Engine(parameters, context=tokens + 1)
    sequence = engine.sequence()
    tokenizer = load_tokenizer(parameters)
    sequence.extend(tokenizer.encode(passage(tokenizer, tokens, 0)))
    page_bytes, pages = engine.pool.page_bytes, engine.pool.used
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        forks = [sequence.fork() for _ in range(count)]
        seconds.append((time.perf_counter() - begun) / count)
        for fork in forks:
            fork.close()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    forks = [sequence.fork() for _ in range(count)]
    extra = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    extra += (engine.pool.used - pages) * page_bytes
    return Forks(statistics.median(seconds), extra / (pages * page_bytes))


@dataclass(frozen=True, slots=True)
class DecodeSpeeds:
    """Tokens a second after the first one."""

    drafted: float
    plain: float


def measure_speculation(
    path: Path, text: str, tokens: int, rounds: int, temperature: float
) -> DecodeSpeeds:
    """Generate with and without drafts, in turn, through the engine's process.

    Raises:
        ValueError: drafts changed what was generated.
        OneirosError: the engine failed.
    """
    return asyncio.run(_speculation(path, text, tokens, rounds, temperature))


async def _speculation(
    path: Path, text: str, tokens: int, rounds: int, temperature: float
) -> DecodeSpeeds:
    model = await start_local_model(EngineSettings(str(path), kv_disk=0))
    try:
        prompt = tuple(model.tokenizer.encode(text))
        speeds: dict[bool, list[float]] = {True: [], False: []}
        for seed in range(rounds + 1):
            options = SamplingOptions(
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                min_p=0.0,
                seed=seed,
                max_tokens=tokens,
                logit_bias=dict.fromkeys(model.end_ids, -100.0),
            )
            replies = []
            for speculate in (True, False) if seed % 2 else (False, True):
                request = GenerationRequest(prompt, options, speculate=speculate)
                ids, speed = await _generate(model, request)
                replies.append(ids)
                if seed:  # the first pair warms up
                    speeds[speculate].append(speed)
            if replies[0] != replies[1]:
                raise ValueError(f"Drafts changed the reply with seed {seed}.")
    finally:
        await model.service.close()
    return DecodeSpeeds(statistics.median(speeds[True]), statistics.median(speeds[False]))


async def _generate(model: LocalModel, request: GenerationRequest) -> tuple[Sequence[int], float]:
    ids: list[int] = []
    async for output in model.service.generate(request):
        if isinstance(output, Tokens):
            ids.extend(output.ids)
        elif isinstance(output, Finished):
            return ids, (len(ids) - 1) / output.usage.decode_seconds
    raise ValueError("The reply has no end.")
