"""Units of measurement, from pint's definitions, with exact factors.

Only single names go to pint, never an expression: its parser would compute whatever it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from oneiros.kernel.tools import ToolError

if TYPE_CHECKING:
    import pint

Powers = tuple[tuple[str, Fraction], ...]  # names, and the powers they are raised to

# Longer fractions are pint's roundings of what no fraction is: a degree is π/180.
_LARGEST_EXACT: Final = 10**45


@dataclass(frozen=True, slots=True)
class Definition:
    """What a unit is."""

    factor: Fraction  # in root units
    exact: bool  # whether the factor is the unit's, or a fraction near it
    roots: Powers
    offset: Fraction = Fraction(0)  # of the zero, in root units: degrees Celsius have one
    symbol: str = ""


@lru_cache(maxsize=512)
def named(name: str) -> str | None:
    """The full name of a unit, with its prefix; None: there is no such unit."""
    import pint

    if name == "°":
        return "degree"
    try:
        return str(_registry().get_name(name)) or None
    except pint.errors.UndefinedUnitError:
        return None


@lru_cache(maxsize=512)
def definition(name: str) -> Definition:
    """What a unit is, by its full name.

    Raises:
        ToolError: its scale is logarithmic, as decibels are.
    """
    from pint.util import to_units_container

    registry = _registry()
    factor, roots = registry.get_root_units(name)
    try:
        zero = registry.Quantity(Fraction(0), name).to_root_units().magnitude
    except TypeError as error:  # of NumPy's logarithm, which knows no fractions
        raise ToolError(f"{name}: units of a logarithmic scale are not calculated with.") from error
    scale = Fraction(cast(Fraction, factor))  # pint leaves open what numbers are
    powers = cast("dict[str, Fraction]", dict(to_units_container(roots)))
    return Definition(
        factor=scale,
        exact=isinstance(factor, int | Fraction)
        and max(scale.numerator, scale.denominator) < _LARGEST_EXACT,
        roots=_sorted({root: Fraction(power) for root, power in powers.items()}),
        offset=zero,
        symbol=str(registry.get_symbol(name)),
    )


def combined(a: Powers, b: Powers, times: int = 1) -> Powers:
    """The unit of a product, or with times = -1 of a quotient."""
    powers = dict(a)
    for name, exponent in b:
        powers[name] = powers.get(name, Fraction(0)) + times * exponent
    return _sorted(powers)


def raised(unit: Powers, exponent: Fraction) -> Powers:
    """The unit of a power."""
    return _sorted({name: power * exponent for name, power in unit})


def reduced(unit: Powers) -> tuple[Powers, Fraction, bool]:
    """The unit with one name for each dimension: km·min/h is km.

    Returns:
        the unit, the factor that the number takes, and whether that is exact.
    """
    factor, exact = Fraction(1), True
    kept: dict[str, Fraction] = {}
    for name, exponent in unit:
        defined = definition(name)
        same = next((k for k in kept if definition(k).roots == defined.roots), None)
        if not defined.roots and exponent.denominator == 1:  # percent, dozens: plain numbers
            factor *= defined.factor ** int(exponent)
        elif same is not None and exponent.denominator == 1:
            kept[same] += exponent
            factor *= (defined.factor / definition(same).factor) ** int(exponent)
            exact = exact and defined.exact and definition(same).exact
        else:
            kept[name] = exponent
    return _sorted(kept), factor, exact


def root_form(unit: Powers) -> tuple[Powers, Fraction, bool]:
    """The unit in root units, the number of these that it is, and whether that is exact.

    Raises:
        ToolError: it is a broken power of a unit that is no root unit.
    """
    roots: Powers = ()
    factor, exact = Fraction(1), True
    for name, exponent in unit:
        defined = definition(name)
        roots = combined(roots, raised(defined.roots, exponent))
        if defined.factor != 1:
            if exponent.denominator != 1:
                raise ToolError(f"{text(unit)}: such a power of {name} cannot be converted.")
            factor *= defined.factor ** int(exponent)
        exact = exact and defined.exact
    return roots, factor, exact


def converted(amount: Fraction, source: Powers, target: Powers) -> tuple[Fraction, bool]:
    """An amount in another unit, and whether that is exact.

    Raises:
        ToolError: the units measure different things.
    """
    from_roots, from_factor, from_exact = root_form(source)
    to_roots, to_factor, to_exact = root_form(target)
    angle: Powers = (("radian", Fraction(1)),)
    if from_roots != to_roots and {from_roots, to_roots} != {(), angle}:
        raise ToolError(
            f"{text(source) or 'a plain number'} cannot be converted to "
            f"{text(target) or 'a plain number'}: they measure different things "
            f"({text(from_roots) or 'none'}, {text(to_roots) or 'none'}).{_advice(source + target)}"
        )
    value = (amount * from_factor + _offset(source) - _offset(target)) / to_factor
    return value, source == target or (from_exact and to_exact)


def text(unit: Powers) -> str:
    """A unit as it is written: "km/h", "m^2"."""
    above = [_power(name, exponent) for name, exponent in unit if exponent > 0]
    below = [_power(name, -exponent) for name, exponent in unit if exponent < 0]
    if not below:
        return "*".join(above)
    return f"{'*'.join(above) or '1'}/{'/'.join(below)}"


def has_offset(unit: Powers) -> bool:
    """Whether zero of it is not zero: such amounts can be converted, but not multiplied."""
    return any(definition(name).offset for name, _ in unit)


def _advice(unit: Powers) -> str:
    mistaken = {"farad", "coulomb"} & {name for name, _ in unit}
    return " Temperatures are in degC, degF or kelvin." if mistaken else ""


def _offset(unit: Powers) -> Fraction:
    return definition(unit[0][0]).offset if len(unit) == 1 and unit[0][1] == 1 else Fraction(0)


def _power(name: str, exponent: Fraction) -> str:
    shown = definition(name).symbol
    return shown if exponent == 1 else f"{shown}^{exponent}"


def _sorted(powers: dict[str, Fraction]) -> Powers:
    """Without those of power zero; in the order they came, except for the sake of equality."""
    return tuple(sorted((name, power) for name, power in powers.items() if power))


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry[Fraction]:
    import pint

    return pint.UnitRegistry(non_int_type=Fraction)
