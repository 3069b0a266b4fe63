"""Token shards: a corpus as memory-mapped token ids, and batches drawn from it.

A folder of shards holds `manifest.json` and, for each split, numbered pairs of files: `.bin`, the
token ids one after the other, and `.index`, where each document starts in it. A split is read as
one long stream, cut into windows of `context` tokens; batches are windows in a random order that
follows from (seed, epoch) alone. So the batch of a step is a function of the step's number, and
training resumes at any step without a state of the data to restore.

Document boundaries are kept: each token comes with the number of its document, so that attention
never crosses from one to another, and no token has to predict the first one of the next document.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneiros.errors import ModelFileError, TrainingError
from oneiros.model.json_text import read_object
from oneiros.training.documents import Source

MANIFEST = "manifest.json"
VERSION = 1
SPLITS = ("train", "validation")

IGNORED = -100
"""A target that is no target: the value that PyTorch's cross entropy leaves out by default."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One pair of files, `NAME.bin` and `NAME.index`."""

    name: str
    tokens: int
    documents: int
    bytes: int  # of text (UTF-8) that the tokens stand for
    sha256: str  # of the .bin


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of shards holds, and what it was made from."""

    dtype: str  # of token ids: "uint16" or "uint32", little-endian
    vocabulary: int
    tokenizer_sha256: str
    sources: tuple[Source, ...]
    splits: dict[str, tuple[Shard, ...]]

    @property
    def fingerprint(self) -> str:
        """Identifies the training and validation tokens: SHA-256 over the shards' own."""
        hashes = {
            split: [shard.sha256 for shard in shards] for split, shards in self.splits.items()
        }
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps({"version": VERSION} | asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(values: dict[str, Any], where: str) -> Manifest:
        """The manifest that manifest.json holds.

        Raises:
            TrainingError: it is malformed, or of another version.
        """
        if values.get("version") != VERSION:
            raise TrainingError(f"{where}: is not version {VERSION} of the format of shards.")
        try:
            return Manifest(
                dtype=values["dtype"],
                vocabulary=values["vocabulary"],
                tokenizer_sha256=values["tokenizer_sha256"],
                sources=tuple(Source(**source) for source in values["sources"]),
                splits={
                    split: tuple(Shard(**shard) for shard in values["splits"][split])
                    for split in SPLITS
                },
            )
        except (KeyError, TypeError) as error:
            raise TrainingError(f"{where}: is damaged ({error}).") from error


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens, what follows each of them, and which document they belong to.

    All are int64 of shape (rows, context). Documents are numbered from 0 in each row; a target is
    IGNORED where the next token belongs to another document.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]


class TokenStream:
    """One split: the tokens of all its shards in a row.

    Attributes:
        tokens: how many there are.
        documents: how many documents.
        bytes: of text that they stand for.
    """

    def __init__(self, folder: Path, shards: tuple[Shard, ...], dtype: str) -> None:
        """Map the files of a split.

        Raises:
            TrainingError: a file is missing, or has not the size that the manifest says.
        """
        element = np.dtype(dtype).newbyteorder("<")
        self._parts = [
            _mapped(folder / f"{shard.name}.bin", element, shard.tokens) for shard in shards
        ]
        self._begins = [0]
        starts = []
        for shard in shards:
            index = _mapped(folder / f"{shard.name}.index", np.dtype("<u8"), shard.documents)
            starts.append(index.astype(np.int64) + self._begins[-1])
            self._begins.append(self._begins[-1] + shard.tokens)
        self._starts = np.concatenate([*starts, np.zeros(0, np.int64)])  # (documents,), rising
        self.tokens = self._begins[-1]
        self.documents = len(self._starts)
        self.bytes = sum(shard.bytes for shard in shards)

    def read(self, begin: int, count: int) -> NDArray[np.int64]:
        """The tokens at begin .. begin + count of the stream, (count,)."""
        pieces = []
        part = bisect.bisect_right(self._begins, begin) - 1
        while count > 0:
            offset = begin - self._begins[part]
            piece = self._parts[part][offset : offset + count]
            pieces.append(piece)
            begin, count, part = begin + len(piece), count - len(piece), part + 1
        return np.concatenate(pieces).astype(np.int64)

    def windows(self, begins: NDArray[np.int64], context: int) -> Batch:
        """Windows of `context` tokens that start at the given places, one row each."""
        shape = (len(begins), context)
        tokens, targets = np.empty(shape, np.int64), np.empty(shape, np.int64)
        documents = np.zeros(shape, np.int64)
        for row, begin in enumerate(begins.tolist()):
            window = self.read(begin, context + 1)
            tokens[row], targets[row] = window[:-1], window[1:]
            # Places in the window, from its second token on, at which a document starts.
            first = np.searchsorted(self._starts, begin, side="right")
            last = np.searchsorted(self._starts, begin + context, side="right")
            starts = self._starts[first:last] - begin
            targets[row, starts - 1] = IGNORED
            documents[row, starts[starts < context]] = 1
        return Batch(tokens, targets, np.cumsum(documents, axis=1))


class Batches:
    """The batches of a training run: a function of the step's number.

    In every epoch each window comes once, in an order of its own; and the windows' cuts lie
    elsewhere, so that the model sees the same text with other beginnings.
    """

    def __init__(self, stream: TokenStream, context: int, rows: int, seed: int) -> None:
        """Batches of `rows` windows of `context` tokens.

        Raises:
            TrainingError: the stream is shorter than a window and the token after it.
        """
        if stream.tokens < context + 1:
            raise TrainingError(
                f"The data has {stream.tokens:,} tokens for training, and a context of {context:,} "
                f"needs at least {context + 1:,}: add text, or lower the context."
            )
        self._stream, self._context, self._rows, self._seed = stream, context, rows, seed
        # One window less than there is room for, where there is: what is left moves the cuts.
        self.windows_per_epoch = max(1, (stream.tokens - 1) // context - 1)
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """The batch of a step, or some of its rows."""
        return self._stream.windows(self.begins(step)[rows], self._context)

    def begins(self, step: int) -> NDArray[np.int64]:
        """Where in the stream the windows of a step begin, (rows,)."""
        numbers = np.arange(step * self._rows, (step + 1) * self._rows)
        epochs, places = np.divmod(numbers, self.windows_per_epoch)
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        return np.array([self._order(epoch)[place] for epoch, place in pairs], np.int64)

    def epoch(self, step: int) -> float:
        """How often all of the data has been seen before this step."""
        return step * self._rows / self.windows_per_epoch

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Where the windows of an epoch begin, in the order in which they come."""
        if epoch not in self._epochs:
            random = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            slack = self._stream.tokens - 1 - self.windows_per_epoch * self._context
            offset = random.integers(min(slack, self._context - 1) + 1)
            order = random.permutation(self.windows_per_epoch) * self._context + offset
            # A batch lies in one epoch, or in two that follow each other.
            self._epochs = {epoch: order} | {
                other: kept for other, kept in self._epochs.items() if abs(other - epoch) == 1
            }
        return self._epochs[epoch]


@dataclass(frozen=True, slots=True)
class Corpus:
    """An open folder of shards."""

    manifest: Manifest
    train: TokenStream
    validation: TokenStream


def open_shards(folder: Path) -> Corpus:
    """Open a folder of shards; the tokens are mapped, not read.

    Raises:
        TrainingError: it is none, or damaged: a file is missing, cut short or too long.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise TrainingError(f"{folder}: is no folder of token shards (there is no {MANIFEST}).")
    try:
        manifest = Manifest.from_json(read_object(path), str(path))
    except ModelFileError as error:
        raise TrainingError(f"{folder}: {error}") from error
    streams = (TokenStream(folder, manifest.splits[name], manifest.dtype) for name in SPLITS)
    return Corpus(manifest, *streams)


def verify_shards(folder: Path) -> None:
    """Read every token and compare with the hashes of the manifest.

    Raises:
        TrainingError: a shard's content is not what was written.
    """
    for shards in open_shards(folder).manifest.splits.values():
        for shard in shards:
            path = folder / f"{shard.name}.bin"
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    raise TrainingError(
                        f"{path}: its content has changed since it was written: "
                        "make the shards again."
                    )


def _mapped(path: Path, element: np.dtype[Any], count: int) -> NDArray[Any]:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}).") from error
    if size != count * element.itemsize:
        raise TrainingError(
            f"{path}: has {size:,} bytes, and {count:,} elements of {element.name} take "
            f"{count * element.itemsize:,}. Make the shards again."
        )
    if count == 0:
        return np.zeros(0, element)  # an empty file cannot be mapped
    return np.memmap(path, element, "r")
