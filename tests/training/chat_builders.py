"""A tiny model that could chat, and conversations to teach it, made in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oneiros.model.chat_format import ChatFormat, load_chat_format
from oneiros.model.parameters import open_parameters
from oneiros.model.tokenizer import Tokenizer, load_tokenizer
from oneiros.training.conversations import Example, example_of, read_conversations
from oneiros.training.network import Network, NetworkConfig
from oneiros.training.tokenizer import TokenizerConfig, save_tokenizer, train_tokenizer
from oneiros.training.weights import save_folder
from tests.training.builders import sentences

CONTEXT = 128


@dataclass(frozen=True)
class TinyChat:
    """A folder with a network of random weights, and how it writes conversations."""

    path: Path
    tokenizer: Tokenizer
    chat_format: ChatFormat


def tiny_chat(folder: Path, **shape: Any) -> TinyChat:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(sentences(50), TokenizerConfig(300))
    save_tokenizer(tokenizer, folder / "tokenizer")
    numbers = {
        "vocabulary": 320,
        "layers": 2,
        "width": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "ffn_width": 128,
        "context": CONTEXT,
    }
    network = Network(NetworkConfig(**numbers | shape))
    network.initialise(seed=1)
    path = folder / "base"
    save_folder(network, path, tokenizer=folder / "tokenizer")
    parameters = open_parameters(path)
    tokenizer = load_tokenizer(parameters)
    chat_format = load_chat_format(parameters, tokenizer)
    assert chat_format is not None
    return TinyChat(path, tokenizer, chat_format)


def talks(count: int) -> list[dict[str, str]]:
    """Questions whose answers can be learnt: the same words in capitals."""
    return [{"prompt": text, "response": text.upper()} for text in sentences(count, longest=6)]


def write_lines(path: Path, values: Iterable[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def examples(chat: TinyChat, folder: Path, values: Iterable[Mapping[str, object]]) -> list[Example]:
    """The values as a file, and its conversations as they are learnt."""
    path = write_lines(folder / "examples.jsonl", values)
    return [example_of(talk, chat.chat_format) for talk in read_conversations([path])]
