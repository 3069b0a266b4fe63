from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from oneiros.compression.arithmetic import ArithmeticDecoder, ArithmeticEncoder
from oneiros.compression.byte_model import (
    AdaptiveBit,
    AdaptiveNumber,
    ByteModel,
    reading,
    writing,
)


def coded(data: bytes) -> bytes:
    encoder, model = ArithmeticEncoder(), ByteModel()
    coder = writing(encoder)
    for position, byte in enumerate(data):
        model.code(coder, data[max(0, position - 3) : position], byte)
    return encoder.finish()


def test_bytes_come_back() -> None:
    data = random.Random(2).randbytes(500) + b"abcabcabc" * 50 + bytes(200)
    coder, model = reading(ArithmeticDecoder(coded(data))), ByteModel()
    restored = bytearray()
    for _ in data:
        restored.append(model.code(coder, bytes(restored[-3:])))
    assert restored == data


def test_noise_grows_by_less_than_one_percent() -> None:
    data = random.Random(3).randbytes(10_000)
    assert len(coded(data)) < 1.01 * len(data)


def test_regularity_is_found() -> None:
    assert len(coded(bytes(5000))) < 50
    records = b"".join(b"%04d;ok\x00" % number for number in range(600))
    assert len(coded(records)) < 0.25 * len(records)


@given(st.lists(st.integers(1, 2**63), max_size=50))
def test_numbers_come_back(numbers: list[int]) -> None:
    encoder, model = ArithmeticEncoder(), AdaptiveNumber()
    for number in numbers:
        model.code(writing(encoder), number)
    decoder, model = ArithmeticDecoder(encoder.finish()), AdaptiveNumber()
    assert [model.code(reading(decoder)) for _ in numbers] == numbers


def test_a_decision_that_never_changes_is_nearly_free() -> None:
    encoder, decision = ArithmeticEncoder(), AdaptiveBit()
    for _ in range(20_000):
        decision.code(writing(encoder), 0)
    assert len(encoder.finish()) < 10
