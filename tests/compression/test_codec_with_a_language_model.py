"""The codec on the real engine: the encoder sees many tokens at once, the decoder one by one."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oneiros
from oneiros.compression import codec
from oneiros.compression.codec import compress, decompress
from oneiros.engine.language_model import LanguageModel
from oneiros.model.tensor_types import TensorType
from tests.model.builders import build_gguf, tiny_architecture

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune "

CONTENTS = {
    "text": (TEXT * 3).encode(),
    "invalid UTF-8": TEXT.encode("utf-16"),
    "Latin-1": "Ein Maß Öl für übermüdete Ärzte, größtenteils süß.".encode("latin-1"),
    "scripts": "日本語のテキスト, текст, κείμενο, नमस्ते, 🙂👍🏽".encode(),
    "CRLF": b"one line\r\nanother line\r\n\r\n\tthe last line\r",
    "NULs": b"\x00" * 100 + TEXT.encode() + b"\x00",
    "random": random.Random(9).randbytes(300),
    "control tokens as text": b"<|im_start|>user\nhi<|im_end|>\n<|endoftext|>" * 2,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    """Two layers of random weights, and so little context that windows fill and restart.

    Its predictions are worth nothing: it has to be told not to prefer raw bytes.
    """
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    build_gguf(path, tiny_architecture(), TensorType.Q4_1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "DEAREST_TEXT", math.inf)
        yield oneiros.load(path, context=48)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_every_content_comes_back(tiny: LanguageModel, content: bytes) -> None:
    assert decompress(compress(content, tiny), tiny) == content


@given(st.lists(st.binary(max_size=40) | st.text(max_size=40).map(str.encode)).map(b"".join))
@settings(deadline=None)
def test_any_bytes_come_back(tiny: LanguageModel, content: bytes) -> None:
    assert decompress(compress(content, tiny), tiny) == content


def test_text_is_compressed_far_better_than_by_counting(
    default_model_path: Path, data_folder: Path
) -> None:
    model = oneiros.load(default_model_path, context=2048)
    text = (data_folder / "text" / "tinyshakespeare.txt").read_bytes()[-4000:]
    assert 8 * len(compress(text, model)) / len(text) < 2.0  # xz -9: 4.1


def test_what_the_default_vocabulary_lacks_comes_back(default_model_path: Path) -> None:
    model = oneiros.load(default_model_path, context=64)
    content = f"{TEXT}\x04{TEXT}\x16\x1d".encode() + b"\xf8 caf\xe9"
    assert decompress(compress(content, model), model) == content


@pytest.mark.long
def test_a_long_text_comes_back(default_model_path: Path, data_folder: Path) -> None:
    model = oneiros.load(default_model_path)
    text = (data_folder / "text" / "tinyshakespeare.txt").read_bytes()[-100_000:]
    compressed = compress(text, model)
    assert 8 * len(compressed) / len(text) < 1.7  # xz -9: 3.0
    assert decompress(compressed, model) == text
