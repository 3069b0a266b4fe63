"""Numbers of the calculator: exact fractions, or fractions that stand for a rounded number.

Everything is bounded, so that no expression takes long: a number has a largest size, and a
calculation a largest sum of work. `9**9**9` is refused before any digit of it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import (
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    Underflow,
)
from fractions import Fraction
from typing import Final

from oneiros.kernel.tools import ToolError

MOST_BITS: Final = 1 << 18  # of a numerator or denominator: 78,913 digits
MOST_WORK: Final = 300_000_000  # products of machine words, about a second
DIGITS: Final = 20  # significant ones that are shown of a rounded number
LONGEST_FORM: Final = 45  # characters of an exact fraction that are worth showing

_LARGEST_DEGREE: Final = 64  # of roots that may come out exactly
_PRECISION: Final = 60  # digits that rounded numbers are computed with
_DECIMAL: Final = Context(
    prec=_PRECISION,
    Emax=100_000,
    Emin=-100_000,
    traps=[InvalidOperation, DivisionByZero, Overflow, Underflow],
)


@dataclass(frozen=True, slots=True)
class Number:
    """A fraction, and whether it is the number meant or one near it."""

    value: Fraction
    exact: bool = True

    @property
    def whole(self) -> bool:
        """Whether it is an integer for certain."""
        return self.exact and self.value.denominator == 1


class Work:
    """What a calculation has done so far."""

    def __init__(self) -> None:
        self._left = MOST_WORK

    def number(self, value: Fraction, exact: bool) -> Number:
        """A result: rounded if it is not exact, counted, and refused if it is too large.

        Raises:
            ToolError: it is, or the calculation is too long.
        """
        if not exact:
            value = _rounded(value)
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        self.spend(bits)
        return Number(value, exact)

    def spend(self, bits: float, times: int = 1) -> None:
        """Count a product of numbers of so many bits; inf: of far too many.

        Raises:
            ToolError: they are too large, or there are too many.
        """
        if bits > MOST_BITS:
            raise ToolError(
                f"A number in this calculation has {_digits(bits)} digits; more than "
                f"78,913 are not computed. Ask for its logarithm, or round earlier."
            )
        self._left -= (1 + (int(bits) // 64) ** 2) * times
        if self._left < 0:
            raise ToolError("This calculation is too long. Make it in several smaller ones.")


def add(work: Work, a: Number, b: Number) -> Number:
    """a + b."""
    return work.number(a.value + b.value, a.exact and b.exact)


def subtract(work: Work, a: Number, b: Number) -> Number:
    """a - b."""
    return work.number(a.value - b.value, a.exact and b.exact)


def multiply(work: Work, a: Number, b: Number) -> Number:
    """a · b."""
    return work.number(a.value * b.value, a.exact and b.exact)


def divide(work: Work, a: Number, b: Number) -> Number:
    """a / b. Raises ToolError for b = 0."""
    if b.value == 0:
        raise ToolError("There is a division by zero.")
    return work.number(a.value / b.value, a.exact and b.exact)


def modulo(work: Work, a: Number, b: Number) -> Number:
    """What is left of a after whole multiples of b; it has b's sign."""
    if b.value == 0:
        raise ToolError("There is a division by zero.")
    return work.number(a.value % b.value, a.exact and b.exact)


def power(work: Work, base: Number, exponent: Number) -> Number:
    """base ^ exponent: exact where it is a fraction that is not too large.

    Raises:
        ToolError: it is not a real number, or too large.
    """
    if base.value == 0 and exponent.value < 0:
        raise ToolError("There is a division by zero: 0 to a negative power.")
    if exponent.value.denominator == 1:
        return _whole_power(work, base, exponent)
    if base.value < 0:
        raise ToolError("A negative number to a power that is no integer is no real number.")
    if base.exact and exponent.exact and exponent.value.denominator <= _LARGEST_DEGREE:
        work.spend(base.value.numerator.bit_length(), times=10)
        root = _exact_root(base.value, exponent.value.denominator)
        if root is not None:
            top = Number(Fraction(exponent.value.numerator))
            return _whole_power(work, Number(root), top)
    return approximate(work, _DECIMAL.power, base, exponent)


def root(work: Work, a: Number, degree: int) -> Number:
    """The real root of a degree of at least 1. Raises ToolError where there is none."""
    if degree < 1:
        raise ToolError(f"There is no root of degree {degree}: it is 1 or more.")
    if a.value < 0:
        if degree % 2 == 0:
            raise ToolError("The square root of a negative number is no real number.")
        return negative(root(work, negative(a), degree))
    return power(work, a, Number(Fraction(1, degree)))


def negative(a: Number) -> Number:
    """-a."""
    return Number(-a.value, a.exact)


def approximate(work: Work, function: Callable[..., Decimal], *arguments: Number) -> Number:
    """What a function of decimals gives.

    Raises:
        ToolError: it is not defined there, or too large.
    """
    try:
        result = function(*(_decimal(argument.value) for argument in arguments))
    except (Overflow, Underflow) as error:
        raise ToolError("A number in this calculation is too large (or too small).") from error
    except DecimalException as error:
        raise ToolError("A function is not defined for the number it was given.") from error
    return work.number(Fraction(result), exact=False)


def parse(work: Work, text: str) -> Number:
    """The number that digits with a point and an exponent of ten write.

    Raises:
        ToolError: it is too large.
    """
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 80_000 or len(exponent) > 6 or abs(int(exponent or "0")) > 80_000:
        raise ToolError(f"{text[:40]}… is too large a number to calculate with.")
    return work.number(Fraction(Decimal(text)), exact=True)


def shown(number: Number) -> tuple[str, str]:
    """The exact form, and the approximate one; either is "" where it says nothing more."""
    value = number.value
    if not number.exact:
        return "", _significant(value)
    if value.denominator == 1:
        text = _digits_of(value.numerator)
        return text, _significant(value) if len(text) > LONGEST_FORM else ""
    decimal = _finite(value)
    if decimal and len(decimal) <= LONGEST_FORM:
        return decimal, ""
    top, bottom = _digits_of(value.numerator), _digits_of(value.denominator)
    fraction = f"{top}/{bottom}"
    return fraction if len(fraction) <= LONGEST_FORM else "", _significant(value)


def _whole_power(work: Work, base: Number, exponent: Number) -> Number:
    top = int(exponent.value)
    value, exact = base.value, base.exact and exponent.exact
    if abs(value) in (0, 1):
        return work.number(value ** (top % 2 if value else min(abs(top), 1)), exact)
    size = max(abs(value.numerator).bit_length(), value.denominator.bit_length())
    bits = size * abs(top)
    if bits <= MOST_BITS and exact:
        return work.number(value**top, exact)
    if exact and value.denominator == 1 and top > 0:
        work.spend((size - 1) * top if top < 2**60 else math.inf)
        return work.number(value**top, exact)
    return approximate(work, _DECIMAL.power, base, exponent)


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    top, bottom = (
        _integer_root(part, degree) for part in (abs(value.numerator), value.denominator)
    )
    return None if top is None or bottom is None else Fraction(top, bottom)


def _integer_root(value: int, degree: int) -> int | None:
    """The integer whose power is the value; None: there is none."""
    if degree == 2:
        found = math.isqrt(value)
        return found if found * found == value else None
    if value < 2:
        return value
    # Newton's method from above: it falls until it is at the root, rounded down.
    found, better = value, 1 << (-(-value.bit_length() // degree))
    while better < found:
        found = better
        better = ((degree - 1) * found + value // found ** (degree - 1)) // degree
    return found if found**degree == value else None


def _decimal(value: Fraction) -> Decimal:
    return _DECIMAL.divide(Decimal(value.numerator), Decimal(value.denominator))


def _rounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) <= 4 * _PRECISION:
        return value
    try:
        return Fraction(_decimal(value))
    except (Overflow, Underflow) as error:
        raise ToolError("A number in this calculation is too large (or too small).") from error


def _significant(value: Fraction) -> str:
    """A number to DIGITS significant digits."""
    rounded = Context(prec=DIGITS, Emax=10**9, Emin=-(10**9)).plus(_decimal(value))
    if -7 <= rounded.adjusted() < DIGITS:
        text = f"{rounded:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{rounded:e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def _finite(value: Fraction) -> str:
    """A fraction as a finite decimal; "" where it has none, or a very long one."""
    places, rest = 0, value.denominator
    for prime in (2, 5):
        count = 0
        while rest % prime == 0 and count <= LONGEST_FORM:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1 or places > LONGEST_FORM:
        return ""
    digits = _digits_of(abs(value.numerator) * (10**places // value.denominator)).zfill(places + 1)
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _digits_of(value: int) -> str:
    """An integer of any size: `str` refuses long ones, since it takes quadratic time."""
    return f"{Decimal(value):f}"


def _digits(bits: float) -> str:
    return f"{int(bits * math.log10(2)):,} or more" if bits < 2**60 else "far too many"
