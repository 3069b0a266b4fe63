"""An adaptive model of raw bytes, for what a vocabulary cannot express.

Each byte is eight binary decisions. Contexts of the last 0 .. 3 bytes each predict the next bit
from counts, and a small gated network mixes their opinions (logistic mixing: Mahoney 2005,
"Adaptive weighing of context models for lossless data compression"). In integers throughout, so
that both ends agree; and on noise the mixer soon trusts no context, so that incompressible data
hardly grow.
"""

from __future__ import annotations

from array import array
from decimal import Context, Decimal
from functools import cache
from typing import Protocol

from oneiros.compression.arithmetic import (
    BIT_PRECISION,
    ArithmeticDecoder,
    ArithmeticEncoder,
)

ORDERS = 4  # contexts of 0, 1, 2 and 3 preceding bytes
_TABLE_BITS = 20  # slots per hashed context table
_MAX_COUNT = 255  # a slot's adaptation rate falls to 1 / 256
_ONE = 1 << BIT_PRECISION
_FINE_BITS = 32  # so that a decision that always falls the same way becomes nearly free
_LOGIT_BITS = 8  # logits are in units of 2^-8 nats
_LOGIT_LIMIT = 2047  # 8 nats: probabilities from 1 / 2981
_WEIGHT_BITS = 16
_LEARNING_SHIFT = 14


@cache
def _sigmoid() -> list[int]:
    """Probability in units of 2^-16 of each logit from -_LOGIT_LIMIT to _LOGIT_LIMIT."""
    exact = Context(prec=20)  # correctly rounded, so the table is the same everywhere
    logits = range(-_LOGIT_LIMIT, _LOGIT_LIMIT + 1)
    return [int(_ONE / (1 + exact.exp(Decimal(-logit) / (1 << _LOGIT_BITS)))) for logit in logits]


@cache
def _logit() -> list[int]:
    """The inverse of `_sigmoid`, indexed by the upper 12 bits of a probability."""
    sigmoid = _sigmoid()
    table = []
    logit = -_LOGIT_LIMIT
    for step in range(1 << 12):
        probability = (step << 4) + 8
        while logit < _LOGIT_LIMIT and sigmoid[logit + _LOGIT_LIMIT] < probability:
            logit += 1
        table.append(logit)
    return table


class BitCoder(Protocol):
    """Codes one bit of known probability: writes the given one, or ignores it and reads one."""

    def __call__(self, bit: int, probability_of_one: int) -> int: ...


def writing(encoder: ArithmeticEncoder) -> BitCoder:
    def code(bit: int, probability_of_one: int) -> int:
        encoder.encode_bit(bit, probability_of_one)
        return bit

    return code


def reading(decoder: ArithmeticDecoder) -> BitCoder:
    def code(bit: int, probability_of_one: int) -> int:
        return decoder.decode_bit(probability_of_one)

    return code


class AdaptiveBit:
    """One binary decision whose probability follows its history."""

    def __init__(self) -> None:
        self._probability = 1 << _FINE_BITS - 1
        self._count = 0

    def code(self, coder: BitCoder, bit: int = 0) -> int:
        probability = self._probability >> _FINE_BITS - BIT_PRECISION
        bit = coder(bit, min(max(probability, 1), _ONE - 1))
        target = bit << _FINE_BITS
        self._probability += (target - self._probability) // (self._count + 2)
        self._count = min(self._count + 1, _MAX_COUNT)
        return bit


class AdaptiveNumber:
    """Numbers >= 1 in Elias's gamma code, with the length bits adaptive."""

    def __init__(self) -> None:
        self._more_bits = [AdaptiveBit() for _ in range(64)]

    def code(self, coder: BitCoder, number: int = 1) -> int:
        bits = 1
        while bits < 64 and self._more_bits[bits].code(coder, int(number.bit_length() > bits)):
            bits += 1
        value = 1
        for place in range(bits - 2, -1, -1):
            value = value << 1 | coder(number >> place & 1, _ONE >> 1)
        return value


class ByteModel:
    """Codes bytes one at a time, each in the context of those before it."""

    def __init__(self) -> None:
        self._probabilities = [array("H", [_ONE >> 1]) * (1 << _TABLE_BITS) for _ in range(ORDERS)]
        self._counts = [bytearray(1 << _TABLE_BITS) for _ in range(ORDERS)]
        # One weight vector for each level of experience with the two longest contexts.
        self._weights = [[(1 << _WEIGHT_BITS) * 3 // 10] * ORDERS for _ in range(16)]
        self._rates = [_ONE // (count + 2) for count in range(_MAX_COUNT + 1)]
        self._sigmoid = _sigmoid()
        self._logit = _logit()

    def code(self, coder: BitCoder, history: bytes, byte: int = 0) -> int:
        """Write `byte`, or read one, after the bytes of `history` (the last three matter)."""
        mask = (1 << _TABLE_BITS) - 1
        key = int.from_bytes(history[-3:], "big")
        bases = (
            0,
            (key & 0xFF) << 8,
            (key & 0xFFFF) * 0x9E3779B1 & mask,
            (key & 0xFFFFFF) * 0x85EBCA6B + 0x2545F491 & mask,
        )
        node = 1
        for place in range(7, -1, -1):
            # Consecutive slots would collide between hashed contexts; the odd factor spreads them.
            slots = [
                bases[0] + node,
                bases[1] + node,
                bases[2] ^ node * 0x1003F & mask,
                bases[3] ^ node * 0x1003F & mask,
            ]
            node = node << 1 | self._code_bit(coder, slots, byte >> place & 1)
        return node & 0xFF

    def _code_bit(self, coder: BitCoder, slots: list[int], bit: int) -> int:
        tables, counts = self._probabilities, self._counts
        experience = (counts[3][slots[3]], counts[2][slots[2]])
        weights = self._weights[_level(experience[0]) << 2 | _level(experience[1])]
        logits = [self._logit[table[slot] >> 4] for table, slot in zip(tables, slots, strict=True)]
        mixed = sum(w * x for w, x in zip(weights, logits, strict=True)) >> _WEIGHT_BITS
        mixed = min(max(mixed, -_LOGIT_LIMIT), _LOGIT_LIMIT)
        probability = self._sigmoid[mixed + _LOGIT_LIMIT]
        bit = coder(bit, probability)

        error = (bit << BIT_PRECISION) - bit - probability
        for order, slot in enumerate(slots):
            weights[order] += logits[order] * error >> _LEARNING_SHIFT
            old, count = tables[order][slot], counts[order][slot]
            target = _ONE - 1 if bit else 0
            tables[order][slot] = old + ((target - old) * self._rates[count] >> BIT_PRECISION)
            if count < _MAX_COUNT:
                counts[order][slot] = count + 1
        return bit


def _level(count: int) -> int:
    """How much a context has seen, in four steps."""
    return (count > 0) + (count > 3) + (count > 15)
