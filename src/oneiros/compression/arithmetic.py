"""Arithmetic coding in integers: symbols of known frequency in, close to -log2(p) bits each out.

The range coder of Martin (1979), "Range encoding: an algorithm for removing redundancy from a
digitised message", with carries propagated into the bytes already written. Everything is exact
integer arithmetic, so encoder and decoder agree wherever they run.
"""

from __future__ import annotations

from oneiros.errors import CompressedFileError

STATE_BITS = 64
_LOOKAHEAD = STATE_BITS // 8  # bytes that the decoder reads before the first symbol
_BYTE_SHIFT = STATE_BITS - 8
_FULL = 1 << STATE_BITS
_SMALLEST_RANGE = 1 << _BYTE_SHIFT

MAX_TOTAL = 1 << 48
"""Largest sum of frequencies: a range of at least 2^56 then still has 2^8 steps per unit."""

BIT_PRECISION = 16
"""Probabilities of single bits are given in units of 2^-16."""


class ArithmeticEncoder:
    def __init__(self) -> None:
        self._low = 0
        self._range = _FULL - 1
        self._bytes = bytearray()

    def encode(self, start: int, size: int, total: int) -> None:
        """Write the symbol that owns [start, start + size) of [0, total)."""
        if not (size > 0 and 0 <= start <= total - size and total <= MAX_TOTAL):
            raise ValueError(f"no symbol: start {start}, size {size}, total {total}")
        unit = self._range // total
        self._low += unit * start
        self._range = unit * size
        self._shift_out()

    def encode_bit(self, bit: int, probability_of_one: int) -> None:
        """Write one bit; the probability is in units of 2^-16, strictly between 0 and 1."""
        ones = (self._range >> BIT_PRECISION) * probability_of_one
        if bit:
            self._range = ones
        else:
            self._low += ones
            self._range -= ones
        self._shift_out()

    def finish(self) -> bytes:
        """The coded bytes. The encoder is used up."""
        # The range spans at least one multiple of 2^56, so a single further byte is enough.
        self._low = -(-self._low // _SMALLEST_RANGE) * _SMALLEST_RANGE
        self._shift_byte()
        return bytes(self._bytes)

    @property
    def bytes_written(self) -> int:
        return len(self._bytes)

    def _shift_out(self) -> None:
        while self._range < _SMALLEST_RANGE:
            self._shift_byte()
            self._range <<= 8

    def _shift_byte(self) -> None:
        self._carry()
        self._bytes.append(self._low >> _BYTE_SHIFT)
        self._low = (self._low << 8) & (_FULL - 1)

    def _carry(self) -> None:
        if self._low < _FULL:
            return
        self._low -= _FULL
        position = len(self._bytes) - 1
        while self._bytes[position] == 0xFF:
            self._bytes[position] = 0
            position -= 1
        self._bytes[position] += 1


class ArithmeticDecoder:
    """Reads what `ArithmeticEncoder` wrote, given the same frequencies in the same order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = _LOOKAHEAD
        self._code = int.from_bytes(data[:_LOOKAHEAD].ljust(_LOOKAHEAD, b"\x00"), "big")
        self._range = _FULL - 1
        self._unit = 0

    def target(self, total: int) -> int:
        """A number in [0, total): it lies inside the interval of the symbol to be read.

        Follow with `consume` of that symbol. Raises CompressedFileError for bytes that no encoder
        writes.
        """
        self._unit = self._range // total
        target = self._code // self._unit
        if target >= total:
            raise CompressedFileError("The compressed data are damaged: impossible code value.")
        return target

    def consume(self, start: int, size: int) -> None:
        self._code -= self._unit * start
        self._range = self._unit * size
        self._shift_in()

    def decode_bit(self, probability_of_one: int) -> int:
        ones = (self._range >> BIT_PRECISION) * probability_of_one
        if self._code < ones:
            self._range = ones
            bit = 1
        else:
            self._code -= ones
            self._range -= ones
            bit = 0
        self._shift_in()
        return bit

    def _shift_in(self) -> None:
        while self._range < _SMALLEST_RANGE:
            if self._position < len(self._data):
                byte = self._data[self._position]
            elif self._position < len(self._data) + _LOOKAHEAD - 1:
                byte = 0  # the encoder leaves out what cannot matter
            else:
                raise CompressedFileError("The compressed data are damaged: they end too early.")
            self._position += 1
            self._code = (self._code << 8) | byte
            self._range <<= 8
