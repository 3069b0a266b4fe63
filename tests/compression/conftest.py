"""A model small enough to compress thousands of bytes in a test: a table instead of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oneiros.errors import TokenizationError

MISSING_BYTES = frozenset({0xF0, 0x00, 0x0B})
WORDS = (b" the", b" and", b"the", b"ing", b"\r\n", b"\n\n", "é".encode(), b" of", b"er")


class TinyTokenizer:
    """Single bytes, some of them missing, a few words, and one added token."""

    def __init__(self) -> None:
        singles = [bytes((byte,)) for byte in range(256) if byte not in MISSING_BYTES]
        self.pieces = [b"<|end|>", *singles, *WORDS]
        self.vocabulary_size = len(self.pieces)
        self.bos_id = None
        self.eos_id = 0
        self._ids = {piece: i for i, piece in enumerate(self.pieces) if i}
        self._longest = max(map(len, self._ids))

    def encode(self, text: str) -> list[int]:
        data = text.encode("utf-8")
        ids = []
        position = 0
        while position < len(data):
            for length in range(self._longest, 0, -1):
                piece = data[position : position + length]
                if piece in self._ids:
                    ids.append(self._ids[piece])
                    position += len(piece)
                    break
            else:
                raise TokenizationError(f"byte {position} cannot be expressed")
        return ids

    def prompt_ids(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        return self.pieces[token_id]

    def is_added(self, token_id: int) -> bool:
        return token_id == 0


@dataclass
class TinySequence:
    """Logits that depend on the two latest tokens and on the first one of the window."""

    table: NDArray[np.float32]
    tokens: list[int] = field(default_factory=list)
    limit: int = 0

    def extend(self, ids: Sequence[int], logits: str = "last") -> NDArray[np.float32] | None:
        rows = []
        for token_id in ids:
            self.tokens.append(token_id)
            assert len(self.tokens) <= self.limit
            before = self.tokens[-2] if len(self.tokens) > 1 else 0
            rows.append(self.table[token_id] + np.float32(0.5) * self.table[before])
        if logits == "none":
            return None
        return np.array(rows if logits == "all" else rows[-1], dtype=np.float32)

    def truncate(self, length: int) -> None:
        del self.tokens[length:]

    def close(self) -> None:
        self.tokens.clear()


def make_tiny_model(context: int = 64, seed: int = 0, **engine: Any) -> Any:
    tokenizer = TinyTokenizer()
    size = tokenizer.vocabulary_size
    generator = np.random.default_rng(seed)
    table = generator.normal(0, 1, (size, size)).astype(np.float32)
    # Letters and words are likelier than the rest, as they are to a language model.
    table += [4.0 if piece.isascii() and piece.isalpha() else 0.0 for piece in tokenizer.pieces]
    versions = {"kernel_version": 1, "instruction_path": "test", "arithmetic": "test"} | engine
    return SimpleNamespace(
        name=f"tiny-{seed}",
        tokenizer=tokenizer,
        context=context,
        engine=SimpleNamespace(
            model_sha256=hashlib.sha256(table.tobytes()).hexdigest(),
            sequence=lambda: TinySequence(table, limit=context),
            **versions,
        ),
    )


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    return make_tiny_model()


@pytest.fixture(scope="session")
def tiny_models() -> Any:
    """The function that makes them, for tests that need two which differ."""
    return make_tiny_model
