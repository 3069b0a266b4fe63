"""Writing token shards from documents.

A document becomes its opening token (the tokenizer's bos, or eos where it has no bos), the tokens
of its text, and eos: the model learns how texts begin and where they end, and the same opening
makes it dream later. Text is encoded without the added vocabulary, so that no document, whatever
it says, holds a control token.

About `validation` of the text is set aside. Of a corpus of many documents these are whole
documents, chosen by the hash of their content: the choice does not depend on the order of files,
and two copies of a text always land on the same side. Of a few long documents it is the end of
each.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BufferedRandom
from pathlib import Path

import numpy as np

from oneiros.errors import TrainingError
from oneiros.model.replacement import replacing_folder
from oneiros.model.tokenizer import Tokenizer
from oneiros.training.documents import find_files, read_documents, source_of
from oneiros.training.shards import MANIFEST, Manifest, Shard
from oneiros.training.tokenizer import fast_encoder

SHARD_TOKENS = 100_000_000

# A corpus of fewer documents than this gives the ends of its documents for validation.
_MANY_DOCUMENTS = 100

_GROUP = 1 << 20


def write_shards(
    inputs: Sequence[Path],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    validation: float = 0.05,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Tokenise text and JSON Lines files into a folder of shards, which appears when it is whole.

    The same inputs give the same files, byte for byte.

    Args:
        inputs: files, and folders of them; see `find_files`.
        tokenizer: of the model that will be trained; needs an eos token.
        folder: where to; must not exist, or be empty.
        validation: the fraction of the text that is set aside, 0 <= validation < 1.
        shard_tokens: a shard ends with the document that reaches this many tokens.
        progress: called now and then with the bytes of text done so far.

    Raises:
        TrainingError: an input cannot be read or is malformed (with its line), there is no text
            for one of the splits, or the tokenizer has no eos token.
        TokenizationError: the vocabulary cannot express a character.
        ModelFileError: the folder cannot be written.
    """
    files = find_files(inputs)
    documents = itertools.chain.from_iterable(map(read_documents, files))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as temporary:
        dtype = "uint16" if tokenizer.vocabulary_size <= 1 << 16 else "uint32"
        writers = {
            split: _SplitWriter(temporary, split, dtype, shard_tokens)
            for split in ("train", "validation")
        }
        opening, closing = _boundary_tokens(tokenizer)
        encode = fast_encoder(tokenizer)
        done = 0
        for group in _grouped(_split(documents, validation)):
            texts = [text for _, text in group]
            for (split, text), ids in zip(group, encode(texts), strict=True):
                size = len(text.encode())
                writers[split].add([*opening, *ids, closing], size)
                done += size
            if progress is not None:
                progress(done)
        manifest = Manifest(
            dtype=dtype,
            vocabulary=tokenizer.vocabulary_size,
            tokenizer_sha256=tokenizer.sha256,
            sources=tuple(map(source_of, files)),
            splits={split: writer.close() for split, writer in writers.items()},
        )
        if not manifest.splits["train"]:
            raise TrainingError(f"{', '.join(map(str, inputs))}: there is no text to train on.")
        if validation and not manifest.splits["validation"]:
            raise TrainingError(
                f"{', '.join(map(str, inputs))}: too little text to set {validation:.1%} aside "
                "for validation."
            )
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def opening_ids(tokenizer: Tokenizer) -> list[int]:
    """What a document starts with: the bos token, or eos where there is no bos.

    Raises:
        TrainingError: the tokenizer has neither.
    """
    return _boundary_tokens(tokenizer)[0]


def _boundary_tokens(tokenizer: Tokenizer) -> tuple[list[int], int]:
    if tokenizer.eos_id is None:
        raise TrainingError(
            "The tokenizer has no eos token, which marks the end of a document: give it one in "
            "tokenizer_config.json."
        )
    opening = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return [opening], tokenizer.eos_id


def _split(documents: Iterable[str], validation: float) -> Iterator[tuple[str, str]]:
    """(split, text) of every document, or of its two parts."""
    documents = iter(documents)
    first = list(itertools.islice(documents, _MANY_DOCUMENTS))
    if len(first) < _MANY_DOCUMENTS:
        for text in first:
            cut = _cut(text, validation)
            yield "train", text[:cut]
            if cut < len(text):
                yield "validation", text[cut:]
        return
    for text in itertools.chain(first, documents):
        digest = hashlib.sha256(text.encode()).digest()
        share = int.from_bytes(digest[:8], "big") / (1 << 64)
        yield ("validation" if share < validation else "train"), text


def _grouped(parts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents in groups of about `_GROUP` characters, which are encoded together."""
    group, size = [], 0
    for split, text in parts:
        group.append((split, text))
        size += len(text)
        if size >= _GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _cut(text: str, validation: float) -> int:
    """Where the end that is set aside begins: after a line's end where one is near."""
    wanted = round(len(text) * (1 - validation))
    line = text.find("\n", wanted, wanted + 1000) + 1
    return line if 0 < line < len(text) else wanted


class _SplitWriter:
    """Appends documents to the shards of one split."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int) -> None:
        self._folder, self._split, self._limit = folder, split, shard_tokens
        self._element = np.dtype(dtype).newbyteorder("<")
        self._shards: list[Shard] = []
        self._file: BufferedRandom | None = None
        self._starts: list[int] = []
        self._tokens = self._bytes = 0

    def add(self, tokens: list[int], size: int) -> None:
        """Append a document's tokens, which stand for `size` bytes of text."""
        if self._file is None:
            self._file = (self._folder / f"{self._name}.bin").open("w+b")
            self._starts, self._tokens, self._bytes = [], 0, 0
        self._starts.append(self._tokens)
        self._file.write(np.array(tokens, self._element).tobytes())
        self._tokens += len(tokens)
        self._bytes += size
        if self._tokens >= self._limit:
            self._finish(self._file)

    def close(self) -> tuple[Shard, ...]:
        """All shards of the split."""
        if self._file is not None:
            self._finish(self._file)
        return tuple(self._shards)

    @property
    def _name(self) -> str:
        return f"{self._split}-{len(self._shards):05d}"

    def _finish(self, file: BufferedRandom) -> None:
        with file:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        np.array(self._starts, "<u8").tofile(self._folder / f"{self._name}.index")
        self._shards.append(Shard(self._name, self._tokens, len(self._starts), self._bytes, digest))
        self._file = None
