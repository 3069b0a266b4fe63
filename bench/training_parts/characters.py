"""A corpus of characters: every token is a byte of tinyshakespeare, the last tenth set aside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oneiros.model.tokenizer import Tokenizer
from oneiros.training.shard_writer import write_shards
from oneiros.training.shards import Batch, Corpus, open_shards
from oneiros.training.tokenizer import SMALLEST, TokenizerConfig, train_tokenizer

DATA = Path(os.environ.get("ONEIROS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
VOCABULARY = -(-SMALLEST // 64) * 64  # rows of the embedding
VALIDATION = 0.1  # nanoGPT's split


@dataclass(frozen=True, slots=True)
class Characters:
    corpus: Corpus
    tokenizer: Tokenizer

    def validation(self, context: int) -> Batch:
        """All of the text that is set aside, in windows that do not know of each other."""
        stream = self.corpus.validation
        return stream.windows(np.arange((stream.tokens - 1) // context) * context, context)


def characters(folder: Path, limit: int | None = None) -> Characters:
    """The text, or its first `limit` characters, as shards in a new folder."""
    text = (DATA / "text" / "tinyshakespeare.txt").read_text("utf-8")[:limit]
    path = folder / "text.txt"
    path.write_text(text, "utf-8")
    tokenizer = train_tokenizer([text], TokenizerConfig(SMALLEST))
    write_shards([path], tokenizer, folder / "shards", validation=VALIDATION)
    return Characters(open_shards(folder / "shards"), tokenizer)
