from __future__ import annotations

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.compression.arithmetic import MAX_TOTAL, ArithmeticDecoder, ArithmeticEncoder
from oneiros.errors import CompressedFileError


@st.composite
def symbols(draw: st.DrawFn) -> tuple[int, int, int]:
    """An interval of a distribution, from even to extremely lopsided ones."""
    total = draw(st.integers(1, MAX_TOTAL) | st.integers(1, 300))
    size = draw(st.integers(1, total) | st.just(1) | st.just(max(1, total - 1)))
    start = draw(st.integers(0, total - size) | st.just(0) | st.just(total - size))
    return start, size, total


bits = st.tuples(st.integers(0, 1), st.integers(1, (1 << 16) - 1))


@given(st.lists(symbols() | bits, max_size=200))
def test_what_was_written_is_read_back(series: list[tuple[int, ...]]) -> None:
    encoder = ArithmeticEncoder()
    for symbol in series:
        if len(symbol) == 2:
            encoder.encode_bit(*symbol)
        else:
            encoder.encode(*symbol)
    decoder = ArithmeticDecoder(encoder.finish())
    for symbol in series:
        if len(symbol) == 2:
            assert decoder.decode_bit(symbol[1]) == symbol[0]
        else:
            start, size, total = symbol
            assert start <= decoder.target(total) < start + size
            decoder.consume(start, size)


@given(st.lists(symbols(), max_size=200))
def test_the_length_is_within_two_bytes_of_the_information(
    series: list[tuple[int, int, int]],
) -> None:
    encoder = ArithmeticEncoder()
    for symbol in series:
        encoder.encode(*symbol)
    # A range of 2^56 .. 2^64 divided by a total of up to 2^48 rounds by at most 2^-8.
    information = sum(log2(total / size) + total / 2**56 * 1.45 for _, size, total in series)
    assert len(encoder.finish()) * 8 <= information + 16


def test_a_carry_runs_through_bytes_that_are_all_ones() -> None:
    total = 1 << 40
    encoder = ArithmeticEncoder()
    # The interval's lower end is 0xFF 0xFF ..., and the last symbol lifts it over.
    for _ in range(8):
        encoder.encode(total - 1, 1, total)
    for _ in range(8):
        encoder.encode(total - 2, 2, total)
    decoder = ArithmeticDecoder(encoder.finish())
    for _ in range(8):
        assert decoder.target(total) == total - 1
        decoder.consume(total - 1, 1)
    for _ in range(8):
        assert decoder.target(total) >= total - 2
        decoder.consume(total - 2, 2)


@pytest.mark.parametrize(
    ("start", "size", "total"),
    [(0, 0, 10), (-1, 2, 10), (9, 2, 10), (0, 1, MAX_TOTAL + 1)],
)
def test_impossible_symbols_are_refused(start: int, size: int, total: int) -> None:
    with pytest.raises(ValueError, match="no symbol"):
        ArithmeticEncoder().encode(start, size, total)


def test_reading_past_the_end_is_an_error() -> None:
    encoder = ArithmeticEncoder()
    encoder.encode(3, 1, 1000)
    decoder = ArithmeticDecoder(encoder.finish())
    with pytest.raises(CompressedFileError, match="end too early"):
        for _ in range(100):
            decoder.decode_bit(1 << 15)
