from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.compression.codec import compress, decompress
from oneiros.compression.container import pack, unpack
from oneiros.errors import CompressedFileError

TEXT = "the king and the fool, ing the end of the thing. " * 8

CONTENTS = {
    "empty": b"",
    "one byte": b"a",
    "text": TEXT.encode(),
    "random": random.Random(5).randbytes(3000),
    "invalid UTF-8": TEXT.encode() + b"\xff\xfe\xc3" + TEXT.encode() + b"\xc3",
    "outside the vocabulary": f"{TEXT}🙂🙂{TEXT}🙂".encode(),
    "CRLF": TEXT.replace(". ", ".\r\n").encode() + b"\r",
    "NULs": b"\x00" * 500 + TEXT.encode() + b"\x00",
    "UTF-16": TEXT.encode("utf-16"),
    "its own magic": b"ONEIROSZ\x01" + TEXT.encode(),
    "text without sense": "".join(random.Random(6).choices("QXZJ%&$~^", k=900)).encode(),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_every_content_comes_back(tiny_model: Any, content: bytes) -> None:
    assert decompress(compress(content, tiny_model), tiny_model) == content


@given(st.lists(st.binary(max_size=60) | st.text(max_size=60).map(str.encode)).map(b"".join))
@settings(max_examples=50, deadline=None)
def test_any_bytes_come_back(tiny_model: Any, content: bytes) -> None:
    assert decompress(compress(content, tiny_model), tiny_model) == content


def test_noise_hardly_grows(tiny_model: Any) -> None:
    content = random.Random(7).randbytes(30_000)
    assert len(compress(content, tiny_model)) < 1.01 * len(content)


def test_text_that_means_nothing_to_the_model_hardly_grows(tiny_model: Any) -> None:
    content = "".join(random.Random(8).choices("".join(map(chr, range(33, 127))), k=20_000))
    assert len(compress(content.encode(), tiny_model)) < 1.01 * len(content)


def test_progress_reaches_the_end(tiny_model: Any) -> None:
    seen: list[int] = []
    data = compress(CONTENTS["NULs"], tiny_model, lambda p: seen.append(p.content_bytes))
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENTS["NULs"])
    seen.clear()
    decompress(data, tiny_model, lambda p: seen.append(p.content_bytes))
    assert seen[-1] == len(CONTENTS["NULs"])


def test_every_flipped_bit_is_refused(tiny_model: Any) -> None:
    data = compress(b"the thing", tiny_model)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(CompressedFileError):
                decompress(bytes(damaged), tiny_model)


def test_every_truncation_and_any_appendix_is_refused(tiny_model: Any) -> None:
    data = compress(b"the thing", tiny_model)
    for length in range(len(data)):
        with pytest.raises(CompressedFileError):
            decompress(data[:length], tiny_model)
    with pytest.raises(CompressedFileError, match="appended"):
        decompress(data + b"\x00", tiny_model)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_hostile_bodies_end_in_an_error(tiny_model: Any, body: bytes) -> None:
    """Checksums keep out accidents; a body made on purpose must be harmless too."""
    header, _ = unpack(compress(CONTENTS["text"], tiny_model))
    for length in (1, 10_000, 1 << 62):
        with pytest.raises(CompressedFileError):
            decompress(pack(replace(header, content_bytes=length), body), tiny_model)


@pytest.mark.parametrize(
    ("window", "overlap"), [(0, 0), (1, 0), (2, 2), (10, 10), (10, 11), (10, 0), (1 << 31, 5)]
)
def test_hostile_windows_are_refused(tiny_model: Any, window: int, overlap: int) -> None:
    header, body = unpack(compress(CONTENTS["text"], tiny_model))
    data = pack(replace(header, window=window, overlap=overlap), body)
    with pytest.raises(CompressedFileError):
        decompress(data, tiny_model)


def test_another_model_is_refused_by_name(tiny_models: Any) -> None:
    data = compress(b"the thing", tiny_models(seed=1))
    with pytest.raises(CompressedFileError, match=r"tiny-1 .*--model"):
        decompress(data, tiny_models(seed=2))


def test_another_kernel_is_refused(tiny_models: Any) -> None:
    data = compress(b"the thing", tiny_models())
    with pytest.raises(CompressedFileError, match=r"version 1 .* version 2"):
        decompress(data, tiny_models(kernel_version=2))


def test_another_instruction_path_is_refused(tiny_models: Any) -> None:
    data = compress(b"the thing", tiny_models())
    with pytest.raises(CompressedFileError, match=r"'test' .* runs 'avx9' with 'other'"):
        decompress(data, tiny_models(instruction_path="avx9", arithmetic="other"))


def test_a_file_from_a_longer_context_is_refused(tiny_models: Any) -> None:
    data = compress(b"the thing", tiny_models(context=128))
    with pytest.raises(CompressedFileError, match="128 tokens"):
        decompress(data, tiny_models(context=64))


def test_long_names_are_cut_and_not_refused(tiny_models: Any) -> None:
    model = tiny_models()
    model.name = "é" * 300
    assert decompress(compress(b"x", model), model) == b"x"
