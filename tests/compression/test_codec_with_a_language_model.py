"""The codec on the real engine: the encoder sees many tokens at once, the decoder one by one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oneiros
from oneiros.compression.codec import compress, decompress
from oneiros.engine.language_model import LanguageModel

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune "

CONTENTS = {
    "text": (TEXT * 2).encode(),
    "outside the vocabulary": f"{TEXT}\x04{TEXT}\x16\x1d".encode(),
    "invalid UTF-8": TEXT.encode("utf-16"),
    "Latin-1": "Ein Maß Öl für übermüdete Ärzte, größtenteils süß.".encode("latin-1"),
    "scripts": "日本語のテキスト, текст, κείμενο, नमस्ते, 🙂👍🏽".encode(),
    "CRLF": b"one line\r\nanother line\r\n\r\n\tthe last line\r",
    "NULs": b"\x00" * 100 + TEXT.encode() + b"\x00",
    "random": random.Random(9).randbytes(300),
    "control tokens as text": b"<|im_start|>user\nhi<|im_end|>\n<|endoftext|>" * 2,
}


@pytest.fixture(scope="module")
def small_window(default_model_path: Path) -> LanguageModel:
    """The default model with so little context that windows fill and restart all the time."""
    return oneiros.load(default_model_path, context=48)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_every_content_comes_back(small_window: LanguageModel, content: bytes) -> None:
    assert decompress(compress(content, small_window), small_window) == content


@given(st.lists(st.binary(max_size=20) | st.text(max_size=20).map(str.encode)).map(b"".join))
@settings(max_examples=10, deadline=None)
def test_any_bytes_come_back(small_window: LanguageModel, content: bytes) -> None:
    assert decompress(compress(content, small_window), small_window) == content


def test_text_is_compressed_far_better_than_by_counting(
    default_model_path: Path, data_folder: Path
) -> None:
    model = oneiros.load(default_model_path, context=2048)
    text = (data_folder / "text" / "tinyshakespeare.txt").read_bytes()[-4000:]
    assert 8 * len(compress(text, model)) / len(text) < 2.2  # xz -9: 3.9


@pytest.mark.long
def test_a_long_text_comes_back(default_model_path: Path, data_folder: Path) -> None:
    model = oneiros.load(default_model_path)
    text = (data_folder / "text" / "tinyshakespeare.txt").read_bytes()[-100_000:]
    compressed = compress(text, model)
    assert len(compressed) < 0.21 * len(text)
    assert decompress(compressed, model) == text
