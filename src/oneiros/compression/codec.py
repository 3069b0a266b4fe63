"""Lossless compression with a language model: its predictions drive an arithmetic coder.

Shannon (1951) measured English by how well people guess the next letter; here the model guesses
the next token, and what it guesses well costs few bits (Delétang et al. 2023, "Language Modeling
Is Compression", arXiv 2309.10668). Bytes that the vocabulary cannot express go through an adaptive
byte model instead. A bit before each token or raw run says which it is, and adapts.

The encoder evaluates many tokens at once and the decoder one at a time. Both see the same logits,
because the engine's logits do not depend on how a sequence is cut (see engine/), and the same
integer frequencies, because those depend on the bits of the logits alone (see frequencies.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oneiros.compression.arithmetic import ArithmeticDecoder, ArithmeticEncoder
from oneiros.compression.byte_model import (
    AdaptiveBit,
    AdaptiveNumber,
    BitCoder,
    ByteModel,
    reading,
    writing,
)
from oneiros.compression.container import Header, pack, unpack
from oneiros.compression.frequencies import TokenFrequencies
from oneiros.compression.segments import Segmenter
from oneiros.engine.library import INSTRUCTION_PATHS, PATH_VARIABLE, arithmetic_of
from oneiros.errors import CompressedFileError

if TYPE_CHECKING:
    from oneiros.engine.language_model import LanguageModel
    from oneiros.model.tokenizer import Tokenizer

WINDOW = 2048  # tokens of context; longer ones predict little better and are slower to read
OVERLAP = 1024  # tokens carried into the next window
CHUNK = 128  # tokens that the encoder evaluates at once

DEAREST_TEXT = 8.0
"""Bits per byte beyond which a chunk of text is coded as raw bytes instead, so that text which
means nothing to the model cannot grow."""

_HISTORY = 3  # bytes of context that the byte model looks at
_RAW_REPORT = 4096  # raw bytes between two calls of the progress callback


@dataclass(frozen=True, slots=True)
class Progress:
    content_bytes: int  # coded or restored so far
    compressed_bytes: int  # written so far; 0 when decompressing
    tokens: int


ProgressCallback = Callable[[Progress], None]


def compress(data: bytes, model: LanguageModel, progress: ProgressCallback | None = None) -> bytes:
    """The bytes of a compressed file from which `decompress` restores `data` exactly."""
    window = min(WINDOW, model.context)
    header = Header(
        model_sha256=model.engine.model_sha256,
        content_sha256=hashlib.sha256(data).hexdigest(),
        content_bytes=len(data),
        window=window,
        overlap=min(OVERLAP, window // 2),
        model_name=Path(model.name).name,  # of a path, no more than the file's name
        kernel_version=str(model.engine.kernel_version),
        arithmetic=model.engine.arithmetic,
    )
    return pack(header, _Encoder(model, header).encode(data, progress) if data else b"")


def decompress(
    data: bytes, model: LanguageModel, progress: ProgressCallback | None = None
) -> bytes:
    """What `compress` was given, verified by its SHA-256.

    Raises:
        CompressedFileError: the file is damaged, or was made with another model, kernel version
            or instruction path; the message says which.
    """
    header, body = unpack(data)
    check_model(header, model)
    content = _Decoder(model, header, body).decode(progress) if header.content_bytes else b""
    if hashlib.sha256(content).hexdigest() != header.content_sha256:
        raise CompressedFileError(
            "The restored content differs from what was compressed (its SHA-256 does not match). "
            "Nothing was written. The compressed data are intact, so the model computed other "
            "numbers here than where the file was made."
        )
    return content


def check_model(header: Header, model: LanguageModel) -> None:
    """Raise CompressedFileError where this model, in this process, cannot read such a file."""
    digest = model.engine.model_sha256
    if digest != header.model_sha256:
        raise CompressedFileError(
            f"The file was compressed with the model {header.model_name} "
            f"(SHA-256 {header.model_sha256}), and {model.name} has SHA-256 {digest}. "
            "Name the right one with --model."
        )
    kernel_version = str(model.engine.kernel_version)
    if kernel_version != header.kernel_version:
        raise CompressedFileError(
            f"The file was compressed with version {header.kernel_version} of the kernels, and "
            f"this is version {kernel_version}: their probabilities differ in the last bits. "
            "Decompress it with the Oneiros that made it."
        )
    arithmetic = model.engine.arithmetic
    if arithmetic != header.arithmetic:
        paths = [path for path in INSTRUCTION_PATHS if arithmetic_of(path) == header.arithmetic]
        raise CompressedFileError(
            f"The file was compressed on an instruction path with {header.arithmetic!r} "
            f"arithmetic, and this process runs {model.engine.instruction_path!r} with "
            f"{arithmetic!r}: their probabilities differ in the last bits. "
            f"Set {PATH_VARIABLE} to {' or '.join(paths) or 'one that has it'}."
        )
    if not 2 <= header.window <= model.context or not 0 < header.overlap < header.window:
        raise CompressedFileError(
            f"The file needs a context of {header.window:,} tokens with {header.overlap:,} carried "
            f"over; {model.name} was loaded with {model.context:,}."
        )


class _Context:
    """The latest tokens, as many as the window holds, and what they predict."""

    def __init__(self, model: LanguageModel, header: Header) -> None:
        self._window = header.window
        self._overlap = header.overlap
        self._start = _start_ids(model.tokenizer)
        self._sequence = model.engine.sequence()
        self._logits: NDArray[np.float32] = self._begin(self._start)

    @property
    def logits(self) -> NDArray[np.float32]:
        """(vocabulary,) of the next token. Afterwards there is room for at least one."""
        if self.room == 0:
            tokens = self._sequence.tokens
            latest = tokens[len(tokens) - max(0, self._overlap - len(self._start)) :]
            self._sequence.truncate(0)
            self._logits = self._begin([*self._start, *latest])
        return self._logits

    @property
    def room(self) -> int:
        return self._window - len(self._sequence.tokens)

    def push(self, token_ids: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Append at most `room` tokens; gives the logits that predicted each of them."""
        before = self.logits
        after = self._extend(token_ids)
        self._logits = after[-1].copy()
        return chain((before,), after[:-1])

    def undo(self, count: int, logits: NDArray[np.float32]) -> None:
        """Take back a push of `count` tokens, before which the prediction was `logits`."""
        self._sequence.truncate(len(self._sequence.tokens) - count)
        self._logits = logits

    def close(self) -> None:
        self._sequence.close()

    def _begin(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        if len(token_ids) > 1:
            self._sequence.extend(token_ids[:-1], "none")
        last: NDArray[np.float32] = self._extend(token_ids[-1:])[0]
        return last

    def _extend(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """(tokens, vocabulary): the logits after each token."""
        logits = self._sequence.extend(token_ids, "all")
        assert logits is not None  # "all" was asked for
        return logits


class _State:
    """What the encoder and the decoder keep alike; `coder` writes or reads single bits."""

    def __init__(self, model: LanguageModel, header: Header, coder: BitCoder) -> None:
        self.context = _Context(model, header)
        tokenizer = model.tokenizer
        self.frequencies = TokenFrequencies(
            token_id
            for token_id in range(tokenizer.vocabulary_size)
            if tokenizer.is_added(token_id) or not tokenizer.token_bytes(token_id)
        )
        self.raw_bytes: ByteModel | None = None  # made when first needed
        self._coder = coder
        self._raw_follows = {False: AdaptiveBit(), True: AdaptiveBit()}  # after text, after raw
        self._raw_length = AdaptiveNumber()
        self._was_raw = False

    def is_raw(self, raw: bool = False) -> bool:
        """Code whether raw bytes follow, or a token."""
        self._was_raw = bool(self._raw_follows[self._was_raw].code(self._coder, raw))
        return self._was_raw

    def raw_length(self, length: int = 1) -> int:
        return self._raw_length.code(self._coder, length)

    def raw_byte(self, history: bytes, byte: int = 0) -> int:
        if self.raw_bytes is None:
            self.raw_bytes = ByteModel()
        return self.raw_bytes.code(self._coder, history, byte)


class _Encoder:
    def __init__(self, model: LanguageModel, header: Header) -> None:
        self._model = model
        self._output = ArithmeticEncoder()
        self._state = _State(model, header, writing(self._output))
        self._done = 0  # bytes of content
        self._tokens = 0

    def encode(self, data: bytes, progress: ProgressCallback | None) -> bytes:
        for segment in Segmenter(self._model.tokenizer).split(data):
            if segment.token_ids is None:
                pieces = self._raw(data, len(segment.data))
            else:
                pieces = self._text(data, segment.token_ids)
            for _ in pieces:
                if progress:
                    progress(Progress(self._done, self._output.bytes_written, self._tokens))
        self._state.context.close()
        return self._output.finish()

    def _raw(self, data: bytes, length: int) -> Iterator[None]:
        """Code the next `length` bytes raw; yields now and then."""
        self._state.is_raw(True)
        self._state.raw_length(length)
        for position in range(self._done, self._done + length):
            history = data[max(0, position - _HISTORY) : position]
            self._state.raw_byte(history, data[position])
            self._done += 1
            if position % _RAW_REPORT == 0:
                yield
        yield

    def _text(self, data: bytes, token_ids: Sequence[int]) -> Iterator[None]:
        """Code the next bytes as these tokens; yields after each chunk."""
        context = self._state.context
        position = 0
        while position < len(token_ids):
            before = context.logits
            chunk = token_ids[position : position + min(CHUNK, context.room)]
            length = sum(len(self._model.tokenizer.token_bytes(i)) for i in chunk)
            intervals = [
                self._interval(logits, token_id)
                for logits, token_id in zip(context.push(chunk), chunk, strict=True)
            ]
            if sum(log2(total / size) for _, size, total in intervals) > DEAREST_TEXT * length:
                context.undo(len(chunk), before)
                yield from self._raw(data, length)
            else:
                for interval in intervals:
                    self._state.is_raw(False)
                    self._output.encode(*interval)
                self._done += length
                self._tokens += len(chunk)
            position += len(chunk)
            yield

    def _interval(self, logits: NDArray[np.float32], token_id: int) -> tuple[int, int, int]:
        """Start, size and total of the token's frequency interval."""
        frequencies = self._state.frequencies.of(logits)
        below = int(frequencies[:token_id].sum())
        size = int(frequencies[token_id])
        return below, size, below + size + int(frequencies[token_id + 1 :].sum())


class _Decoder:
    def __init__(self, model: LanguageModel, header: Header, body: bytes) -> None:
        self._tokenizer = model.tokenizer
        self._length = header.content_bytes
        self._input = ArithmeticDecoder(body)
        self._state = _State(model, header, reading(self._input))
        self._content = bytearray()
        self._tokens = 0

    def decode(self, progress: ProgressCallback | None) -> bytes:
        while len(self._content) < self._length:
            if self._state.is_raw():
                self._raw()
            else:
                self._token()
            if progress:
                progress(Progress(len(self._content), 0, self._tokens))
        self._state.context.close()
        if len(self._content) > self._length:
            raise CompressedFileError("The compressed data are damaged: the last token is longer.")
        return bytes(self._content)

    def _raw(self) -> None:
        length = self._state.raw_length()
        if length > self._length - len(self._content):
            raise CompressedFileError("The compressed data are damaged: a run is too long.")
        for _ in range(length):
            history = bytes(self._content[-_HISTORY:])
            self._content.append(self._state.raw_byte(history))

    def _token(self) -> None:
        frequencies = self._state.frequencies.of(self._state.context.logits)
        ends = np.cumsum(frequencies)
        token_id = int(np.searchsorted(ends, self._input.target(int(ends[-1])), side="right"))
        size = int(frequencies[token_id])
        self._input.consume(int(ends[token_id]) - size, size)
        self._content += self._tokenizer.token_bytes(token_id)
        self._tokens += 1
        self._state.context.push([token_id])


def _start_ids(tokenizer: Tokenizer) -> list[int]:
    """What a text starts behind: the model needs some token to predict the first one from."""
    start = tokenizer.prompt_ids("")
    if start:
        return start
    return [next((i for i in (tokenizer.bos_id, tokenizer.eos_id) if i is not None), 0)]
