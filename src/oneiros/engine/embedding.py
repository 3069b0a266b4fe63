"""Sentence embeddings: texts to vectors whose cosines say how near the meanings are.

The vector of a text is the mean of its tokens' vectors (Reimers & Gurevych 2019, section 3), scaled
to unit length. It does not depend on the texts that are computed with it, beyond the rounding of
float32.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from numpy.typing import NDArray

from oneiros.engine.bert import Bert, read_bert
from oneiros.engine.machine import usable_cores
from oneiros.errors import ContextLengthError, ModelFileError, UnsupportedModelError
from oneiros.model import catalog
from oneiros.model.hyperparameters import Hyperparameters
from oneiros.model.json_text import read_object
from oneiros.model.wordpiece import WordPieceTokenizer, load_wordpiece

# Tokens that are computed together: enough for matrix products at full speed, few enough for their
# intermediate values to stay in the cache.
_BATCH_TOKENS = 1024

# The number of threads of NumPy's BLAS belongs to the whole process, so one call at a time sets it.
_computing = threading.Lock()


class Embedder:
    """An encoder that turns texts into vectors.

    Attributes:
        tokenizer: texts to the ids that `embed_ids` takes.
        dimensions: numbers in a vector.
        longest: tokens that a text may have, those before and after it included.
        threads: that one call computes with.
    """

    def __init__(
        self, bert: Bert, tokenizer: WordPieceTokenizer, longest: int, threads: int
    ) -> None:
        self.tokenizer = tokenizer
        self.dimensions = bert.shape.width
        self.longest = longest
        self.threads = threads
        self._bert = bert
        self._libraries = threadpoolctl.ThreadpoolController()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, to be compared with `longest`."""
        return [len(self.tokenizer.encode(text)) for text in texts]

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        """Vectors of unit length, float32 (texts, dimensions); also for empty texts.

        Args:
            texts: in any order and number; calls of several threads wait for each other.
            truncate: read only the beginning of texts that are too long, as sentence-transformers
                does, instead of refusing them.

        Raises:
            ContextLengthError: a text has more than `longest` tokens.
        """
        ids = [self.tokenizer.encode(text) for text in texts]
        if truncate:
            ids = [self._truncated(text) for text in ids]
        return self.embed_ids(ids)

    def embed_ids(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The same for texts that `tokenizer` has encoded.

        Raises:
            ContextLengthError: a text has more than `longest` tokens.
            ValueError: a text has no tokens, or an id is not in the vocabulary.
        """
        for number, text in enumerate(texts):
            if len(text) > self.longest:
                raise ContextLengthError(
                    f"Text {number + 1} of {len(texts)} has {len(text):,} tokens and the model "
                    f"reads {self.longest:,}. Cut it into parts, or ask for its beginning only."
                )
            if not text or min(text) < 0 or max(text) >= self._bert.shape.vocabulary:
                raise ValueError(f"text {number + 1}: no tokens, or ids outside the vocabulary")
        vectors = np.empty((len(texts), self.dimensions), np.float32)

        def fill(batch: NDArray[np.int64]) -> None:
            vectors[batch] = self._vectors([texts[index] for index in batch])

        # Threads of our own, each with BLAS on one: NumPy computes everything but matrix products
        # on one thread, and BLAS's threads spin where somebody else needs the cores.
        with (
            _computing,
            self._libraries.limit(limits=1, user_api="blas"),
            ThreadPoolExecutor(self.threads) as pool,
        ):
            for _ in pool.map(fill, _batches([len(text) for text in texts])):
                pass
        return vectors

    def _truncated(self, ids: list[int]) -> list[int]:
        if len(ids) <= self.longest:
            return ids
        end = self.tokenizer.end_ids
        return ids[: self.longest - len(end)] + end

    def _vectors(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(texts, dimensions) of texts in the order of their lengths."""
        lengths = np.array([len(text) for text in texts])
        starts = np.cumsum(lengths) - lengths
        hidden = self._bert.encode(np.concatenate(texts), lengths)  # (width, tokens)
        sums = np.add.reduceat(hidden, starts, axis=1).T
        means = sums / lengths[:, None].astype(np.float32)
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        result: NDArray[np.float32] = means / np.maximum(norms, np.float32(1e-12))
        return result


def _batches(lengths: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """Indices of texts that are computed together, by ascending length."""
    order = np.argsort(np.array(lengths, np.int64), kind="stable")
    start = tokens = 0
    for place, index in enumerate(order):
        if tokens and tokens + lengths[index] > _BATCH_TOKENS:
            yield order[start:place]
            start, tokens = place, 0
        tokens += lengths[index]
    if start < len(order):
        yield order[start:]


def load_embedder(
    model: str | Path = "all-minilm-l6-v2", *, threads: int | None = None
) -> Embedder:
    """Load an embedding model.

    Args:
        model: a name that `oneiros models` lists, or the folder of a sentence-transformers model
            that is a BERT encoder with mean pooling: config.json, model.safetensors and
            tokenizer.json.
        threads: default: the cores that this process may use.

    Raises:
        ModelNotFoundError: there is no such folder, or the model was not pulled yet.
        ModelFileError: a file is missing, damaged or inconsistent.
        UnsupportedModelError: it is another kind of model.
    """
    folder = catalog.resolve(model)
    if not folder.is_dir():
        raise UnsupportedModelError(
            f"{folder.name} is no embedding model: a folder with the config.json of a BERT encoder "
            "is expected, such as that of all-minilm-l6-v2."
        )
    _check_pooling(folder)
    bert = read_bert(folder)
    tokenizer = load_wordpiece(folder / "tokenizer.json")
    if tokenizer.vocabulary_size > bert.shape.vocabulary:
        raise ModelFileError(
            f"{folder.name}: the tokenizer has {tokenizer.vocabulary_size:,} tokens and the model "
            f"{bert.shape.vocabulary:,}."
        )
    settings = _settings(folder, "sentence_bert_config.json")
    longest = settings.integer("max_seq_length", bert.shape.positions)
    return Embedder(
        bert,
        tokenizer,
        min(longest, bert.shape.positions),
        usable_cores() if threads is None else threads,
    )


def _settings(folder: Path, name: str) -> Hyperparameters:
    """One of the settings files of sentence-transformers; empty where there is none."""
    path = folder / name
    return Hyperparameters(f"{folder.name}/{name}", read_object(path) if path.exists() else {})


def _check_pooling(folder: Path) -> None:
    """Refuse what sentence-transformers would compute otherwise."""
    found: Mapping[str, object] = _settings(folder, "1_Pooling/config.json").values
    modes = {key for key, value in found.items() if key.startswith("pooling_mode_") and value}
    if modes - {"pooling_mode_mean_tokens"} or found.get("pooling_mode", "mean") != "mean":
        raise UnsupportedModelError(
            f"{folder.name}/1_Pooling/config.json: only the mean of the tokens is supported as a "
            "text's vector."
        )
    for extra in folder.glob("*_Dense"):
        raise UnsupportedModelError(
            f"{folder.name}: the model has a layer after the mean ({extra.name}), which is not "
            "supported."
        )
