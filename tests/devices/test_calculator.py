"""The calculator: exact results, units, and expressions that are meant to hurt."""

import asyncio
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiros.devices.calculator import calculator, evaluate, result_of
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, ToolError, ToolResult

CONTEXT = CallContext(pid=1, call_id="1.1", owner="ann", app="assistant", label=Label())


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4) -> tuple[str, Fraction]:
    """An expression, and its value as Python's fractions have it."""
    kind = draw(st.sampled_from("ndpbs" if depth else "nd"))
    if kind == "n":
        number = draw(st.integers(0, 10**30))
        return str(number), Fraction(number)
    if kind == "d":
        text = f"{draw(st.integers(0, 999))}.{draw(st.integers(0, 9999)):04}"
        return text, Fraction(text)
    left, a = draw(expressions(depth - 1))
    if kind == "p":
        exponent = draw(st.integers(0 if a == 0 else -3, 3))
        return f"({left})^{exponent}", a**exponent
    if kind == "s":
        return f"-({left})", -a
    right, b = draw(expressions(depth - 1))
    sign = draw(st.sampled_from("+-*/" if b else "+-*"))
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else a}[sign]
    return f"({left}) {sign} ({right})", value


@given(expressions())
def test_rational_expressions_have_the_value_of_exact_fractions(
    case: tuple[str, Fraction],
) -> None:
    expression, value = case
    result = evaluate(expression)
    assert result.number.exact
    assert result.number.value == value


@given(st.floats(1e-3, 1e6))
def test_functions_agree_with_floating_point(x: float) -> None:
    def value(expression: str) -> float:
        return float(evaluate(expression).number.value)

    for name in ("sqrt", "sin", "cos", "atan", "log10", "log2"):
        assert value(f"{name}({x:.17g})") == pytest.approx(getattr(math, name)(x), abs=1e-9)
    assert value(f"ln({x:.17g})") == pytest.approx(math.log(x), abs=1e-12)
    assert value(f"asin(1/(1+{x:.17g}))") == pytest.approx(math.asin(1 / (1 + x)), abs=1e-12)


@given(st.integers(0, 10**200), st.integers(2, 9))
def test_roots_of_perfect_powers_are_exact(base: int, degree: int) -> None:
    result = evaluate(f"root({base}^{degree}, {degree})")
    assert (result.number.value, result.number.exact) == (base, True)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("2^100", "= 1267650600228229401496703205376"),
        ("1/3 + 1/6", "= 0.5"),
        ("0.1 + 0.2", "= 0.3"),
        ("22/7", "= 22/7 ≈ 3.1428571428571428571"),
        ("1,234,567 × 2", "= 2469134"),
        ("max(1,200)", "= 200"),
        ("-2^2", "= -4"),
        ("2 ** 3 ** 2", "= 512"),
        ("7 // 2", "= 3"),
        ("-7 mod 3", "= 2"),
        ("17 % 5", "= 2"),
        ("12% of 80", "= 9.6"),
        ("80 + 10%", "= 88"),
        ("200 - 25%", "= 150"),
        ("25!/23!", "= 600"),
        ("comb(52, 5)", "= 2598960"),
        ("sqrt(16/9)", "= 4/3 ≈ 1.3333333333333333333"),
        ("√2", "≈ 1.4142135623730950488"),
        ("cbrt(-8)", "= -2"),
        ("log10(1000)", "= 3"),
        ("log(8, 2)", "= 3"),
        ("ln(e)", "≈ 1"),
        ("sin(30 deg)", "≈ 0.5"),
        ("sin(pi)", "≈ 0"),
        ("round(2.5)", "= 3"),
        ("round(pi, 2)", "≈ 3.14"),
        ("mean(1, 2, 4)", "= 7/3 ≈ 2.3333333333333333333"),
        ("median(4, 1, 3, 2)", "= 2.5"),
        ("e^-300", "≈ 5.1482002224120137812e-131"),
        ("0xff + 0b11", "= 258"),
        ("3 million / 4", "= 750000"),
        ("2+2=", "= 4"),
        ("5 mi/h to m/s", "= 2.2352 m/s"),
        ("100 km / 2 h", "= 50 km/h"),
        ("1/2 hour to min", "= 30 min"),
        ("10 km/h * 30 min", "= 5 km"),
        ("5 in in cm", "= 12.7 cm"),
        ("5 ft in in", "= 60 in"),
        ("5 km + 300 m", "= 5.3 km"),
        ("sqrt(4 m^2)", "= 2 m"),
        ("20 °C to °F", "= 68 °F"),
        ("98.6 degrees Fahrenheit in degrees Celsius", "= 37 °C"),
        ("20 Celsius to kelvin", "= 293.15 K"),
        ("70 kg * 9.81 m/s² to N", "= 686.7 N"),
        ("10 MB to MiB", "= 9.5367431640625 MiB"),
        ("pi/2 to deg", "≈ 90 deg"),
        ("0.25 to %", "= 25 %"),
    ],
)
def test_what_the_calculator_says(expression: str, said: str) -> None:
    text = result_of(expression).text
    assert text[text.index(said[0], len(expression.rstrip("="))) :] == said


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("1/0", "division by zero"),
        ("0^-1", "division by zero"),
        ("sqrt(-1)", "no real number"),
        ("(-8)^(1/3)", "no real number"),
        ("log(0)", "positive numbers"),
        ("asin(2)", "from -1 to 1"),
        ("tan(90 deg)", "not defined"),
        ("2 +", "its end at character 4, where a number belongs"),
        ("2 (3)", "'(' at character 3, where an operator belongs"),
        ("(1", "closing bracket"),
        ("$5", "Leave currencies out"),
        ("frobnicate(2)", '"frobnicate" is no unit'),
        ("sqrt", "write sqrt(…)"),
        ("sqrt(1, 2)", "takes 1 arguments, and got 2"),
        ("5 km + 3 s", "measure different things"),
        ("5 to 3", "where an operator belongs"),
        ("5 km to 3 m", "where an operator belongs"),
        ("98.6 F to C", "degC, degF"),
        ("20 degC * 2 degC", "convert them to kelvin"),
        ("2^(1 m)", "exponent has no unit"),
        ("10 dB", "logarithmic"),
        ("gcd(1.5, 2)", "takes integers"),
        ("__import__('os')", "character 12"),
        ("().__class__", "character 3"),
    ],
)
def test_errors_say_what_is_wrong_and_where(expression: str, said: str) -> None:
    with pytest.raises(ToolError) as caught:
        evaluate(expression)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "9^9^9^9^9",
        "2^262144",
        "(10^70000)^(10^70000)",
        "100000!",
        "(10^9)!",
        "comb(10^9, 5*10^8)",
        "perm(10^20, 10^5)",
        "1e999999999",
        "e^(10^9)",
        "2.5^-10^9",
        "sin(10^30)",
        "lcm(" + ",".join(f"3^{n}+1" for n in range(20_000, 20_100)) + ")",
        "*".join(["3^1000"] * 600),
        "+".join(f"1/(3^{200 * n}+2)" for n in range(150)),
        "(" * 500 + "1" + ")" * 500,
        "2^" * 500 + "2",
        "1" * 5_000,
        "cbrt(2^262140)" + "+cbrt(2^262140)" * 9,
    ],
)
def test_expressions_that_are_too_large_are_refused(expression: str) -> None:
    with pytest.raises(ToolError):
        evaluate(expression)


@given(st.text(alphabet="0123456789.+-*/^%!(), emkinto√°²", max_size=60))
def test_any_text_gives_a_result_or_an_error_for_the_caller(text: str) -> None:
    try:
        assert result_of(text).text
    except ToolError as error:
        assert str(error)


def test_numbers_of_any_size_are_shown_whole() -> None:
    result = result_of("3^20000")
    data = result.data
    assert isinstance(data, dict)
    assert data["exact"] == _digits(3**20000)
    assert data["approximate"].endswith("e9542")


def _digits(value: int) -> str:
    parts = []
    while value:
        value, part = divmod(value, 10**1000)
        parts.append(f"{part:01000}")
    return "".join(reversed(parts)).lstrip("0")


def test_the_tool_gives_text_and_data() -> None:
    tool = calculator()
    assert not tool.contract.effects
    result = asyncio.run(tool.run({"expression": "1/3 m"}, CONTEXT))
    assert result == ToolResult(
        "1/3 m = 1/3 m ≈ 0.33333333333333333333 m",
        {"exact": "1/3", "approximate": "0.33333333333333333333", "unit": "m"},
    )
