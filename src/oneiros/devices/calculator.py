"""The calculator: exact arithmetic with units, read by a parser of its own.

conversion = sum [("to" | "in" | "as") unit]
sum        = product {("+" | "-") product}          x + 10 % adds ten percent of x
product    = signed {("*" | "/" | "of" | "per" | "%" | "mod") signed}
signed     = {"+" | "-"} power
power      = postfix ["^" signed]
postfix    = primary {"!" | "%"}
primary    = number {unit} | name | name "(" conversion {"," conversion} ")" | "(" conversion ")"
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final, NoReturn

from pydantic import Field

from oneiros.devices import numbers, quantities, units
from oneiros.devices.define import device
from oneiros.devices.numbers import Number, Work
from oneiros.devices.quantities import CONSTANTS, FUNCTIONS, Quantity, plain
from oneiros.devices.units import Powers
from oneiros.kernel.contract import Contract
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult

LONGEST: Final = 4_000  # characters of an expression
DEEPEST: Final = 100  # brackets within brackets

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<based>0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+)"
    r"|(?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>°[CF]?|[^\W\d]\w*)"
    r"|(?P<sign>\*\*|//|[-+*/^%!(),√]))"
)
_GROUPED: Final = re.compile(r"\s*(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?)")
_SPELLINGS: Final = str.maketrans(
    {"×": "*", "·": "*", "⋅": "*", "÷": "/", "−": "-", "–": "-", "²": "^2", "³": "^3", "½": "0.5"}
)
_TEMPERATURES: Final = re.compile(r"\b(?:degrees? )?(celsius|fahrenheit|kelvin)\b", re.IGNORECASE)
_WORDS: Final = frozenset({"to", "in", "as", "of", "per", "mod"})
_CONVERSIONS: Final = ("to", "in", "as")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression."""

    kind: str  # "number", "based", "name", "sign"; "end" after the last one
    text: str
    place: int


def calculator() -> Tool:
    """The tool."""
    return calculate


def evaluate(expression: str) -> Quantity:
    """The value of an expression.

    Raises:
        ToolError: it is none, too large, or not defined; the message says where and why.
    """
    if len(expression) > LONGEST:
        raise ToolError(
            f"The expression has {len(expression):,} characters; {LONGEST:,} are the most. "
            "Calculate its parts."
        )
    spelled = expression.translate(_SPELLINGS).rstrip("= ")
    spelled = _TEMPERATURES.sub(lambda scale: scale[1].lower(), spelled)
    return _Parser(_tokens(spelled)).result()


def result_of(expression: str) -> ToolResult:
    """What the calculator says of an expression. Raises ToolError, as `evaluate`."""
    value = evaluate(expression)
    exact, rounded = numbers.shown(value.number)
    unit = units.text(value.unit)
    forms = [
        f"{sign} {form} {unit}".rstrip() for sign, form in (("=", exact), ("≈", rounded)) if form
    ]
    said = expression.strip().rstrip("= ") if len(expression) <= 200 else ""
    return ToolResult(
        f"{said} {' '.join(forms)}".strip(),
        {"exact": exact or None, "approximate": rounded or None, "unit": unit or None},
    )


@device(contract=Contract(trusted_fields=("exact", "approximate"), idempotent=True, deadline=10.0))
async def calculate(
    context: CallContext,
    expression: Annotated[
        str,
        Field(
            description='With units: "70 °F to °C", "1 week + 3 h to min", "9 km / 4 h", "2% of 8"'
        ),
    ],
) -> ToolResult:
    """Calculate exactly: + - * / ^ ! %, brackets, fractions, units and conversions ("to"), pi,
    sqrt, ln, log10, sin (radians, or "30 deg"), round(x, places), comb, gcd, sum, mean and others.
    """
    # Numbers are bounded, but a calculation may take a second.
    return await asyncio.to_thread(result_of, expression)


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    calls: list[bool] = []  # of the open brackets: whether they hold arguments
    at = 0
    while text[at:].strip():
        # 1,234 is one number, but two arguments.
        found = None if any(calls[-1:]) else _GROUPED.match(text, at)
        found = found or _TOKEN.match(text, at)
        if found is None:
            _refuse(f"what {text[at:].strip()[:20]!r} means is not known", text, at)
        kind = found.lastgroup or ""
        token = Token(kind, found[kind], found.start(kind))
        if token.text == "(":
            calls.append(bool(tokens) and tokens[-1].text in FUNCTIONS)
        elif token.text == ")" and calls:
            calls.pop()
        tokens.append(token)
        at = found.end()
    return [*tokens, Token("end", "", len(text))]


class _Parser:
    """Reads tokens and computes at once; every method leaves the place after what it read."""

    def __init__(self, tokens: list[Token]) -> None:
        self._all = tokens
        self._at = 0
        self._depth = 0
        self._work = Work()

    def result(self) -> Quantity:
        value = self._conversion()
        if self._now.kind != "end":
            self._unexpected("an operator")
        return value

    @property
    def _now(self) -> Token:
        return self._all[self._at]

    @property
    def _next(self) -> Token:
        return self._all[min(self._at + 1, len(self._all) - 1)]

    def _takes(self, *texts: str) -> str:
        """The current token if it is one of these, and then it is read; else ""."""
        text = self._now.text
        if self._now.kind in ("sign", "name") and text in texts:
            self._at += 1
            return text
        return ""

    def _conversion(self) -> Quantity:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ToolError(f"The expression has brackets deeper than {DEEPEST}.")
        value = self._sum()
        # An inch is "in" too.
        while self._now.text in _CONVERSIONS and (
            self._next.kind == "name" or self._next.text == "%"
        ):
            self._at += 1
            value = quantities.convert(self._work, value, self._target())
        self._depth -= 1
        return value

    def _target(self) -> Powers:
        """The unit that is converted to."""
        if self._takes("%"):
            return (("percent", Fraction(1)),)
        first = self._now
        unit = self._product()
        if not unit.unit or unit.number != Number(Fraction(1)):
            self._unexpected("a unit", first)
        return unit.unit

    def _sum(self) -> Quantity:
        value = self._product()
        while sign := self._takes("+", "-"):
            first = self._at
            other = self._product()
            if self._is_percentage(first) and not value.unit:
                other = quantities.multiply(self._work, value, other)
            value = quantities.add(self._work, value, other, 1 if sign == "+" else -1)
        return value

    def _is_percentage(self, first: int) -> bool:
        """Whether what was read is a number and "%", which then is of the number before it."""
        read = self._all[first : self._at]
        return [token.kind for token in read] == ["number", "sign"] and read[1].text == "%"

    def _product(self) -> Quantity:
        value = self._signed()
        while sign := self._takes("*", "/", "//", "of", "per", "mod", "%"):
            other = self._signed()
            if sign in ("mod", "%"):
                value = quantities.modulo(self._work, value, other)
            elif sign in ("*", "of"):
                value = quantities.multiply(self._work, value, other)
            else:
                value = quantities.divide(self._work, value, other)
            if sign == "//":
                value = FUNCTIONS["floor"][0](self._work, [value])
        return value

    def _signed(self) -> Quantity:
        minus = False
        while sign := self._takes("+", "-"):
            minus ^= sign == "-"
        value = self._power()
        return quantities.negative(value) if minus else value

    def _power(self) -> Quantity:
        value = self._postfix()
        if self._takes("^", "**"):
            self._depth += 1
            if self._depth > DEEPEST:
                raise ToolError(f"The expression has more than {DEEPEST} powers of powers.")
            value = quantities.power(self._work, value, self._signed())
            self._depth -= 1
        return value

    def _postfix(self) -> Quantity:
        value = self._primary()
        while True:
            if self._takes("!"):
                value = quantities.factorial(self._work, value)
            elif self._now.text == "%" and not self._operand_follows():
                self._at += 1
                value = quantities.divide(self._work, value, plain(100))
            else:
                return value

    def _operand_follows(self) -> bool:
        """Whether a "%" is the operator that stands between two numbers."""
        following = self._next
        name = following.kind == "name" and following.text not in _WORDS
        return name or following.kind in ("number", "based") or following.text == "("

    def _primary(self) -> Quantity:
        token = self._now
        if token.kind in ("number", "based"):
            return self._number()
        if token.kind == "name":
            return self._name()
        if self._takes("√"):
            return FUNCTIONS["sqrt"][0](self._work, [self._power()])
        if not self._takes("("):
            self._unexpected("a number")
        value = self._conversion()
        self._close()
        return value

    def _number(self) -> Quantity:
        value = Quantity(self._literal())
        # 1/2 hour is half of one.
        if (
            self._now.text == "/"
            and self._next.kind == "number"
            and self._is_unit(self._at + 2, True)
        ):
            self._at += 1
            value = quantities.divide(self._work, value, Quantity(self._literal()))
        first = True
        while self._is_unit(self._at, first):
            first = False
            factor = self._name()
            if self._takes("^", "**"):
                factor = quantities.power(self._work, factor, self._signed())
            if not value.unit and factor.number == Number(Fraction(1)):
                value = Quantity(value.number, factor.unit)  # 20 °C is no product
            else:
                value = quantities.multiply(self._work, value, factor)
        return value

    def _literal(self) -> Number:
        token = self._now
        self._at += 1
        if token.kind == "based":
            return self._work.number(Fraction(int(token.text, 0)), exact=True)
        return numbers.parse(self._work, token.text.replace(",", "").replace("_", ""))

    def _is_unit(self, at: int, first: bool) -> bool:
        """Whether the token there multiplies the number before it, as units and constants do.

        "in" is an inch right after the number, unless a unit follows: "5 in to cm".
        """
        token, following = self._all[at], self._all[min(at + 1, len(self._all) - 1)]
        if token.kind != "name" or (token.text in FUNCTIONS and following.text == "("):
            return False
        if token.text not in _WORDS:
            return True
        other = following.kind == "name" and following.text not in _WORDS
        return token.text == "in" and first and not other and following.text != "%"

    def _name(self) -> Quantity:
        token = self._now
        self._at += 1
        if token.text in FUNCTIONS and self._now.text == "(":
            return self._call(token)
        if token.text in CONSTANTS:
            return Quantity(CONSTANTS[token.text])
        unit = units.named(token.text)
        if unit is None and token.text in FUNCTIONS:
            raise ToolError(f"{token.text} is a function: write {token.text}(…).")
        if unit is None:
            raise ToolError(
                f'"{token.text[:40]}" is no unit, constant or function that is known. '
                f"Functions: {', '.join(FUNCTIONS)}."
            )
        units.definition(unit)
        return Quantity(Number(Fraction(1)), ((unit, Fraction(1)),))

    def _call(self, token: Token) -> Quantity:
        self._at += 1
        arguments: list[Quantity] = []
        if self._now.text != ")":
            arguments.append(self._conversion())
            while self._takes(","):
                arguments.append(self._conversion())
        self._close()
        function, least, most = FUNCTIONS[token.text]
        if not least <= len(arguments) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ToolError(f"{token.text} takes {wanted} arguments, and got {len(arguments)}.")
        return function(self._work, arguments)

    def _close(self) -> None:
        if not self._takes(")"):
            self._unexpected('a closing bracket ")"')

    def _unexpected(self, wanted: str, token: Token | None = None) -> NoReturn:
        token = token or self._now
        found = f"{token.text[:20]!r}" if token.kind != "end" else "its end"
        raise ToolError(
            f"The expression has {found} at character {token.place + 1}, where {wanted} belongs."
        )


def _refuse(what: str, text: str, at: int) -> NoReturn:
    place = at + len(text[at:]) - len(text[at:].lstrip())
    advice = " Leave currencies out." if text[place] in "$€£¥" else ""
    raise ToolError(f"At character {place + 1} of the expression, {what}.{advice}")
