"""Generating for the commands: showing a reply while it comes, and what it took."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from oneiros.cli import options, output

if TYPE_CHECKING:
    from oneiros.engine.language_model import Generation, LanguageModel


def show(generation: Generation) -> None:
    """Write a reply piece by piece as it comes, and end its last line."""
    last = ""
    pieces = output.Pieces()
    for piece in generation:
        pieces.write(piece)
        last = piece or last
    pieces.end()
    if not last.endswith("\n"):
        output.write("\n")


def warn_if_cut(generation: Generation) -> None:
    """Say on standard error that a reply is not whole, unless that is what was asked for."""
    if generation.context_full:
        output.warn("oneiros: the reply was cut: the context is full (--context).")
    elif len(generation.token_ids) == options.MAX_TOKENS:
        output.warn(f"oneiros: the reply was cut at {options.MAX_TOKENS:,} tokens (--max-tokens).")


def consume(generation: Generation) -> None:
    """Generate without showing anything."""
    for _ in generation:
        pass


@contextmanager
def ctrl_c(stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block the first Ctrl-C calls `stop`; a second one interrupts the hard way.

    A KeyboardInterrupt in the middle of the engine would leave a sequence and its tokens at odds,
    and the conversation is to go on.
    """
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        stop()

    previous = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def as_json(model: LanguageModel, generation: Generation) -> dict[str, Any]:
    """A finished generation, for --json."""
    statistics = generation.statistics
    return {
        "model": model.name,
        "text": generation.text,
        "finish_reason": generation.finish_reason,
        "usage": {
            "prompt_tokens": statistics.prompt_tokens,
            "cached_tokens": statistics.cached_tokens,
            "generated_tokens": statistics.generated_tokens,
        },
        "speed": {
            "prefill_seconds": statistics.prefill_seconds,
            "prefill_tokens_per_second": _rate(
                statistics.prompt_tokens - statistics.cached_tokens, statistics.prefill_seconds
            ),
            "decode_seconds": statistics.decode_seconds,
            "decode_tokens_per_second": _rate(
                statistics.generated_tokens, statistics.decode_seconds
            ),
        },
    }


def statistics_line(generation: Generation) -> str:
    """What a reply took, in a line for people."""
    statistics = generation.statistics
    parts = [f"{statistics.generated_tokens} tokens"]
    speed = _rate(statistics.generated_tokens, statistics.decode_seconds)
    if speed:
        parts.append(f"{speed:,.0f} tokens/s")
    prompt = f"prompt {statistics.prompt_tokens:,} tokens"
    if statistics.cached_tokens:
        prompt += f", {statistics.cached_tokens:,} of them cached"
    parts.append(f"{prompt}, {statistics.prefill_seconds:.2f} s")
    return " · ".join(parts)


def _rate(count: int, seconds: float) -> float | None:
    return count / seconds if count > 0 and seconds > 0 else None
