"""Numbers with units: what the calculator's operators and functions do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

from oneiros.devices import numbers, units
from oneiros.devices.numbers import MOST_BITS, Number, Work
from oneiros.devices.units import Powers
from oneiros.kernel.tools import ToolError

_DECIMAL: Final = Context(prec=80)
_PI: Final = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534"
)
_LARGEST_ANGLE: Final = Fraction(10**20)  # more, and the digits of π do not suffice
_SMALL: Final = Decimal("1e-40")  # sines below are those of zero, or those of their own angles


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of some unit; of none, a plain number."""

    number: Number
    unit: Powers = ()


Function = Callable[[Work, Sequence[Quantity]], Quantity]

CONSTANTS: Final = {
    "pi": Number(Fraction(_PI), exact=False),
    "π": Number(Fraction(_PI), exact=False),
    "tau": Number(Fraction(2 * _PI), exact=False),
    "e": Number(Fraction(_DECIMAL.exp(Decimal(1))), exact=False),
    "phi": Number(Fraction((1 + _DECIMAL.sqrt(Decimal(5))) / 2), exact=False),
    "dozen": Number(Fraction(12)),
    "thousand": Number(Fraction(10**3)),
    "million": Number(Fraction(10**6)),
    "billion": Number(Fraction(10**9)),
    "trillion": Number(Fraction(10**12)),
}


def plain(value: int | Fraction) -> Quantity:
    """An exact number without a unit."""
    return Quantity(Number(Fraction(value)))


def convert(work: Work, a: Quantity, unit: Powers) -> Quantity:
    """The same amount in another unit. Raises ToolError where there is none."""
    value, exact = units.converted(a.number.value, a.unit, unit)
    return Quantity(work.number(value, a.number.exact and exact), unit)


def add(work: Work, a: Quantity, b: Quantity, sign: int = 1) -> Quantity:
    """a + b, or with sign = -1 a - b, in a's unit."""
    if units.has_offset(a.unit) or units.has_offset(b.unit):
        raise ToolError(
            "Temperatures in degrees Celsius or Fahrenheit are converted, not added: convert "
            "them to kelvin first, or leave the unit out."
        )
    number = (b if a.unit == b.unit else convert(work, b, a.unit)).number
    operation = numbers.add if sign > 0 else numbers.subtract
    return Quantity(operation(work, a.number, number), a.unit)


def multiply(work: Work, a: Quantity, b: Quantity) -> Quantity:
    """a · b."""
    return _reduced(work, numbers.multiply(work, a.number, b.number), a.unit, b.unit)


def divide(work: Work, a: Quantity, b: Quantity) -> Quantity:
    """a / b. Raises ToolError for b = 0."""
    return _reduced(work, numbers.divide(work, a.number, b.number), a.unit, b.unit, -1)


def modulo(work: Work, a: Quantity, b: Quantity) -> Quantity:
    """What is left of a after whole multiples of b."""
    number = (b if a.unit == b.unit else convert(work, b, a.unit)).number
    return Quantity(numbers.modulo(work, a.number, number), a.unit)


def power(work: Work, a: Quantity, exponent: Quantity) -> Quantity:
    """a ^ exponent, which is a plain number."""
    if exponent.unit:
        raise ToolError(f"An exponent has no unit, and this one is in {units.text(exponent.unit)}.")
    if a.unit and (not exponent.number.exact or abs(exponent.number.value) > 100):
        raise ToolError("A power of a unit has a small exact exponent.")
    number = numbers.power(work, a.number, exponent.number)
    return Quantity(number, units.raised(a.unit, exponent.number.value) if a.unit else ())


def negative(a: Quantity) -> Quantity:
    """-a."""
    return Quantity(numbers.negative(a.number), a.unit)


def factorial(work: Work, a: Quantity) -> Quantity:
    """a!"""
    n = _integer(a, "factorial")
    if n < 0:
        raise ToolError("There is no factorial of a negative number.")
    # n! has at most n log2(n) bits, which bounds the work too.
    work.spend(n * math.log2(max(n, 2)) if n < MOST_BITS else math.inf)
    return plain(math.factorial(n))


def _reduced(work: Work, number: Number, a: Powers, b: Powers, sign: int = 1) -> Quantity:
    if not a and not b:
        return Quantity(number)
    if units.has_offset(a) or units.has_offset(b):
        raise ToolError(
            "Temperatures in degrees Celsius or Fahrenheit are converted, not multiplied: "
            "convert them to kelvin first."
        )
    unit, factor, exact = units.reduced(units.combined(a, b, sign))
    if factor == 1:
        return Quantity(number, unit)
    return Quantity(work.number(number.value * factor, number.exact and exact), unit)


def _integer(a: Quantity, named: str) -> int:
    if a.unit or not a.number.whole:
        raise ToolError(f"{named} takes integers without units.")
    return int(a.number.value)


def _number(a: Quantity, named: str) -> Number:
    if a.unit:
        raise ToolError(f"{named} takes a number without a unit, not {units.text(a.unit)}.")
    return a.number


def _radians(work: Work, a: Quantity) -> Number:
    angle = convert(work, a, ()).number if a.unit else a.number
    if abs(angle.value) > _LARGEST_ANGLE:
        raise ToolError("That angle is too large: take whole turns off it first.")
    return angle


def _sqrt(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    return _root(work, (arguments[0], plain(2)))


def _root(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    a, degree = arguments[0], _integer(arguments[1], "root")
    number = numbers.root(work, a.number, degree)
    return Quantity(number, units.raised(a.unit, Fraction(1, degree)))


def _log(base: int | None) -> Function:
    def log(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        a = _number(arguments[0], "log")
        given = Number(Fraction(base)) if base else CONSTANTS["e"]
        if len(arguments) > 1:
            given = _number(arguments[1], "log")
        if a.value <= 0 or given.value <= 0 or given.value == 1:
            raise ToolError("Logarithms are of positive numbers, to a positive base other than 1.")
        if a.exact and a.value == 1:
            return plain(0)
        top = numbers.approximate(work, _ln, a)
        found = numbers.divide(work, top, numbers.approximate(work, _ln, given))
        near = round(found.value)
        if a.exact and given.exact and abs(near) * 64 < MOST_BITS:
            # log10(1000) is 3, and not a number near it.
            exact = numbers.power(work, given, Number(Fraction(near)))
            if exact == a:
                return plain(near)
        return Quantity(found)

    return log


def _ln(value: Decimal) -> Decimal:
    return value.ln(_DECIMAL)


def _exp(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    a = _number(arguments[0], "exp")
    if a.exact and a.value == 0:
        return plain(1)
    return Quantity(numbers.power(work, CONSTANTS["e"], Number(a.value, exact=False)))


def _trigonometric(function: Callable[[Decimal], Decimal]) -> Function:
    def of_angle(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        angle = _radians(work, arguments[0])
        if angle.exact and angle.value == 0:
            return plain(int(function(Decimal(0))))
        return Quantity(numbers.approximate(work, function, angle))

    return of_angle


def _inverse(named: str, function: Callable[[Decimal], Decimal], largest: int | None) -> Function:
    def angle(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        a = _number(arguments[0], named)
        if largest is not None and abs(a.value) > largest:
            raise ToolError(f"{named} takes numbers from -1 to 1.")
        return Quantity(numbers.approximate(work, function, a))

    return angle


def _sin(x: Decimal) -> Decimal:
    """Sine by its series, of the angle brought to a quarter of a turn."""
    if abs(x) < _SMALL:
        return x
    turns = _DECIMAL.divide(x, _PI).to_integral_value()
    x = _DECIMAL.subtract(x, _DECIMAL.multiply(turns, _PI))
    total = term = x
    square = _DECIMAL.multiply(x, x)
    n = 1
    while term and abs(term) > Decimal("1e-80"):
        n += 2
        term = _DECIMAL.divide(-_DECIMAL.multiply(term, square), Decimal(n * (n - 1)))
        total = _DECIMAL.add(total, term)
    # What is left of rounding the angle: sin(pi) is zero.
    total = Decimal(0) if abs(total) < _SMALL else total
    return -total if int(turns) % 2 else total


def _cos(x: Decimal) -> Decimal:
    return _sin(_DECIMAL.add(x, _DECIMAL.divide(_PI, Decimal(2))))


def _tan(x: Decimal) -> Decimal:
    below = _cos(x)
    if not below:
        raise ToolError("The tangent is not defined at a quarter of a turn.")
    return _DECIMAL.divide(_sin(x), below)


def _atan(x: Decimal) -> Decimal:
    """Arctangent by its series, of an angle halved until the series is short."""
    halvings = 6
    for _ in range(halvings):
        hypotenuse = _DECIMAL.sqrt(_DECIMAL.add(1, _DECIMAL.multiply(x, x)))
        x = _DECIMAL.divide(x, _DECIMAL.add(1, hypotenuse))
    square, power, total, n = _DECIMAL.multiply(x, x), x, x, 1
    while power and abs(power) > Decimal("1e-80"):
        n += 2
        power = -_DECIMAL.multiply(power, square)
        total = _DECIMAL.add(total, _DECIMAL.divide(power, Decimal(n)))
    return _DECIMAL.multiply(total, Decimal(1 << halvings))


def _asin(x: Decimal) -> Decimal:
    if abs(x) == 1:
        return _DECIMAL.divide(_PI * x, Decimal(2))
    rest = _DECIMAL.sqrt(_DECIMAL.subtract(1, _DECIMAL.multiply(x, x)))
    return _atan(_DECIMAL.divide(x, rest))


def _acos(x: Decimal) -> Decimal:
    return _DECIMAL.subtract(_DECIMAL.divide(_PI, Decimal(2)), _asin(x))


def _rounding(function: Callable[[Fraction], int]) -> Function:
    def rounded(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        a = arguments[0]
        places = _integer(arguments[1], "round") if len(arguments) > 1 else 0
        if abs(places) > 1000:
            raise ToolError("Numbers are rounded to at most 1,000 places.")
        scale = Fraction(10) ** places
        value = Fraction(function(a.number.value * scale)) / scale
        return Quantity(work.number(value, a.number.exact), a.unit)

    return rounded


def _half_away(value: Fraction) -> int:
    """The nearest integer; halves go away from zero, as is taught in schools."""
    away = math.floor(abs(value) + Fraction(1, 2))
    return -away if value < 0 else away


def _absolute(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    a = arguments[0]
    return negative(a) if a.number.value < 0 else a


def _integers(named: str, function: Callable[..., int]) -> Function:
    def of_integers(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        values = [_integer(a, named) for a in arguments]
        work.spend(sum(value.bit_length() for value in values))
        return plain(function(*values))

    return of_integers


def _choices(named: str, function: Callable[[int, int], int]) -> Function:
    def count(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        n, k = (_integer(a, named) for a in arguments)
        if n < 0 or k < 0:
            raise ToolError(f"{named} takes integers that are not negative.")
        few = min(k, n - k) if named == "comb" else k
        if few > 0:
            work.spend(few * n.bit_length() if few < MOST_BITS else math.inf, times=10)
        return plain(function(n, k) if k <= n else 0)

    return count


def _sum(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    total = arguments[0]
    for other in arguments[1:]:
        total = add(work, total, other)
    return total


def _mean(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    return divide(work, _sum(work, arguments), plain(len(arguments)))


def _median(work: Work, arguments: Sequence[Quantity]) -> Quantity:
    ordered = sorted(_same_unit(work, arguments), key=lambda a: a.number.value)
    middle = len(ordered) // 2
    return _mean(work, ordered[middle - 1 + len(ordered) % 2 : middle + 1])


def _extreme(choose: Callable[..., Quantity]) -> Function:
    def extreme(work: Work, arguments: Sequence[Quantity]) -> Quantity:
        return choose(_same_unit(work, arguments), key=lambda a: a.number.value)

    return extreme


def _same_unit(work: Work, arguments: Sequence[Quantity]) -> list[Quantity]:
    unit = arguments[0].unit
    return [a if a.unit == unit else convert(work, a, unit) for a in arguments]


_ANY: Final = 500  # arguments

# Name: the function, and how many arguments it takes.
FUNCTIONS: Final[dict[str, tuple[Function, int, int]]] = {
    "sqrt": (_sqrt, 1, 1),
    "cbrt": (lambda work, arguments: _root(work, (arguments[0], plain(3))), 1, 1),
    "root": (_root, 2, 2),
    "ln": (_log(None), 1, 1),
    "log": (_log(None), 1, 2),
    "log10": (_log(10), 1, 1),
    "log2": (_log(2), 1, 1),
    "exp": (_exp, 1, 1),
    "sin": (_trigonometric(_sin), 1, 1),
    "cos": (_trigonometric(_cos), 1, 1),
    "tan": (_trigonometric(_tan), 1, 1),
    "asin": (_inverse("asin", _asin, 1), 1, 1),
    "acos": (_inverse("acos", _acos, 1), 1, 1),
    "atan": (_inverse("atan", _atan, None), 1, 1),
    "abs": (_absolute, 1, 1),
    "round": (_rounding(_half_away), 1, 2),
    "floor": (_rounding(math.floor), 1, 1),
    "ceil": (_rounding(math.ceil), 1, 1),
    "factorial": (lambda work, arguments: factorial(work, arguments[0]), 1, 1),
    "comb": (_choices("comb", math.comb), 2, 2),
    "perm": (_choices("perm", math.perm), 2, 2),
    "gcd": (_integers("gcd", math.gcd), 1, _ANY),
    "lcm": (_integers("lcm", math.lcm), 1, _ANY),
    "mod": (lambda work, arguments: modulo(work, arguments[0], arguments[1]), 2, 2),
    "min": (_extreme(min), 1, _ANY),
    "max": (_extreme(max), 1, _ANY),
    "sum": (_sum, 1, _ANY),
    "mean": (_mean, 1, _ANY),
    "median": (_median, 1, _ANY),
}
