"""Tiny corpora, tokenizers, networks and runs, made in a moment."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

from oneiros.model.tokenizer import Tokenizer
from oneiros.model.vocabulary import TokenKind, Vocabulary
from oneiros.training.config import PretrainConfig, pretrain_config
from oneiros.training.events import Event, Stepped
from oneiros.training.pretrain import Outcome, pretrain
from oneiros.training.processes import Processes
from oneiros.training.run_folder import RunFolder
from oneiros.training.shard_writer import write_shards
from oneiros.training.shards import Corpus, open_shards

CPU = Processes(torch.device("cpu"))
WORDS = [
    "the",
    "cat",
    "dog",
    "sees",
    "a",
    "red",
    "house",
    "runs",
    "to",
    "home",
    "and",
    "then",
    "sleeps",
    ".",
    ",",
]


def byte_tokenizer() -> Tokenizer:
    """One token for each byte, and one that begins and ends documents."""
    pieces = [*sorted(ByteLevel.alphabet()), "<|end|>"]
    kinds = [*[TokenKind.NORMAL] * 256, TokenKind.CONTROL]
    to_alphabet = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    to_alphabet["trim_offsets"] = False
    return Tokenizer(
        Vocabulary(pieces, kinds, [], True, to_alphabet, bos_id=256, eos_id=256, add_bos=True), 257
    )


def sentences(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    """Texts of random words: there is something to learn, and they are all different."""
    source = random.Random(seed)
    return [
        " ".join(source.choices(WORDS, k=source.randint(2, longest))) + f" {number}"
        for number in range(count)
    ]


def write_jsonl(path: Path, texts: Iterable[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def small_corpus(folder: Path, documents: int = 300) -> Corpus:
    """Shards of short documents, so that most windows hold several."""
    source = write_jsonl(folder / "source.jsonl", sentences(documents))
    write_shards([source], byte_tokenizer(), folder / "shards", validation=0.1)
    return open_shards(folder / "shards")


# Settings of a network that is computed in tiles, where the processor has them.
IN_TILES: dict[str, Any] = {
    "width": 64,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 32,
    "ffn_width": 96,
    "precision": "bfloat16",
}


def small_config(**chosen: Any) -> PretrainConfig:
    values = {
        "width": 32,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "ffn_width": 48,
        "context": 32,
        "batch": 8,
        "micro_batch": 8,
        "steps": 12,
        "warmup": 2,
        "decay": 4,
        "evaluate_every": 5,
        "evaluation_rows": 8,
        "dream_every": 6,
        "dream_tokens": 8,
        "checkpoint_every": 4,
    }
    return pretrain_config(2, 257, **values | chosen)


def train(
    folder: Path, corpus: Corpus, config: PretrainConfig, processes: Processes = CPU
) -> tuple[Outcome, list[Event]]:
    """Run to the end; gives all that was reported."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    events: list[Event] = []
    outcome = pretrain(
        config, corpus, byte_tokenizer(), RunFolder(folder), processes, report=events.append
    )
    return outcome, events


def losses_of(events: Iterable[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Stepped)]
