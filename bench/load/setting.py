"""What all cases share: how much is measured, texts, model files, and an eye on the machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.client import Reply, closed_loop
from bench.load.prompts import passage
from bench.load.servers import machine_seconds
from bench.load.sides import CHAT, Side
from oneiros.engine.machine import usable_cores
from oneiros.model import catalog
from oneiros.model.convert import convert
from oneiros.model.folders import cache_folder
from oneiros.model.tensor_types import TensorType
from oneiros.model.tokenizer import Tokenizer

SMOLLM, QWEN = "smollm2-135m", "qwen2.5-coder-0.5b"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    system: int  # tokens that all requests begin with
    own: int  # of each request
    out: int
    requests: dict[int, int]  # of each client, by the number of clients
    long: int  # of the long prompt and of the conversation that is resumed
    forks: tuple[int, int]  # tokens of the sequence, and forks of it
    decoded: int  # with and without speculation


FULL = Size(3, 500, 50, 100, {1: 8, 4: 4, 16: 2}, 4000, (2000, 32), 200)
QUICK = Size(1, 64, 16, 8, {1: 1, 4: 1, 16: 1}, 256, (100, 4), 16)


@dataclass
class Bench:
    """What all cases need."""

    size: Size
    with_peer: bool
    home: Path  # where our server keeps keys and values
    threads: int = field(default_factory=usable_cores)
    seeds: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def text(self, tokenizer: Tokenizer, tokens: int) -> str:
        """A text that no server has seen."""
        return passage(tokenizer, tokens, next(self.seeds))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def model_file(model: str, tensor_type: TensorType | None = None) -> Path:
    """The catalog's file, or a conversion of it that is made once."""
    path = catalog.resolve(model)
    if tensor_type is None:
        return path
    converted = cache_folder() / "bench" / f"{model}-{tensor_type.name.lower()}.gguf"
    if not converted.exists():
        converted.parent.mkdir(parents=True, exist_ok=True)
        convert(path, converted, tensor_type=tensor_type)
    return converted


@contextmanager
def undisturbed(busy: Side, idle: Side | None) -> Iterator[None]:
    """Say so if anything but the side under load took processor time."""
    time.sleep(0.2)  # llama.cpp's threads spin for a while after they have finished
    idle_before = idle.server.processor_seconds() if idle else 0.0
    used = busy.server.processor_seconds() + time.process_time()
    machine, begun = machine_seconds(), time.perf_counter()
    yield
    seconds = time.perf_counter() - begun
    used = busy.server.processor_seconds() + time.process_time() - used
    others = (machine_seconds() - machine - used) / seconds
    if idle and (share := (idle.server.processor_seconds() - idle_before) / seconds) > 0.02:
        say(f"  {idle.server.name} took {share:.0%} of a core while it had nothing to do")
    if others > 0.1:
        say(f"  disturbed: other programs took {others:.0%} of a core from {busy.server.name}")


def one_reply(
    side: Side, messages: Sequence[Mapping[str, str]], tokens: int, tokenizer: Tokenizer
) -> Reply:
    """Ask for one reply, with nothing else going on."""
    body = side.chat(messages, tokens, tokenizer.end_ids)
    return closed_loop(side.server.port, CHAT, [[body]]).replies[0]
