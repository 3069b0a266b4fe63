"""As much of CSS as is needed to see what a page hides: rules, lengths and colours.

Selectors are names of elements, classes and ids, and such inside each other (`ul.menu > li a`). The
others (states, attributes, siblings) are left out, and so are sheets for print and small screens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lxml.html import HtmlElement

Colour = tuple[int, int, int, float]  # red, green, blue to 255, opacity to 1

LONGEST: Final = 1_000_000  # characters of a sheet that are read
MOST_STEPS: Final = 1_000_000  # comparisons of elements with parts of selectors
_PROPERTIES: Final = frozenset(
    {
        *("background", "background-color", "background-image", "clip", "clip-path", "color"),
        *("content-visibility", "display", "font-size", "height", "left", "margin-left"),
        *("margin-top", "max-height", "max-width", "opacity", "overflow", "position", "right"),
        *("text-indent", "top", "transform", "visibility", "width", "-webkit-text-fill-color"),
    }
)
_COMPOUND: Final = re.compile(r"([a-z][\w-]*|\*)?((?:[.#][\w-]+)*)", re.IGNORECASE)
_OTHER_MEDIA: Final = re.compile(r"print|speech|max-width|max-height|prefers|orientation|container")
_UNITS: Final = {
    "": 1.0,
    "px": 1.0,
    "pt": 4 / 3,
    "pc": 16.0,
    "in": 96.0,
    "cm": 37.8,
    "mm": 3.78,
    "rem": 16.0,
    "vw": 12.8,
    "vh": 9.0,
    "vmin": 9.0,
    "vmax": 12.8,
}
_NAMES: Final = {
    "white": "ffffff",
    "snow": "fffafa",
    "ivory": "fffff0",
    "whitesmoke": "f5f5f5",
    "ghostwhite": "f8f8ff",
    "floralwhite": "fffaf0",
    "azure": "f0ffff",
    "mintcream": "f5fffa",
    "black": "000000",
    "silver": "c0c0c0",
    "gray": "808080",
    "grey": "808080",
    "red": "ff0000",
    "maroon": "800000",
    "yellow": "ffff00",
    "olive": "808000",
    "lime": "00ff00",
    "green": "008000",
    "aqua": "00ffff",
    "cyan": "00ffff",
    "teal": "008080",
    "blue": "0000ff",
    "navy": "000080",
    "fuchsia": "ff00ff",
    "magenta": "ff00ff",
    "purple": "800080",
    "orange": "ffa500",
    "transparent": "00000000",
}


@dataclass(frozen=True, slots=True)
class _Compound:
    tag: str  # "": any
    ids: frozenset[str]
    classes: frozenset[str]
    child: bool  # whether it is the very parent of the next one

    def fits(self, element: HtmlElement) -> bool:
        return (
            self.tag in ("", element.tag)
            and (not self.ids or self.ids == {element.get("id")})
            and self.classes <= set((element.get("class") or "").split())
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    selector: tuple[_Compound, ...]  # the element's own first, then those around it
    order: tuple[int, int, int, int]  # specificity, and the place in the sheet
    body: str  # its declarations


class Sheet:
    """The rules of a page's style sheets.

    Attributes:
        exhausted: whether there were more of them than are looked at.
    """

    def __init__(self, css: str) -> None:
        """Read them; what is malformed is left out."""
        self.exhausted = len(css) > LONGEST
        self._steps = 0
        self._rules: dict[str, list[_Rule]] = {}  # by what the selector asks of the element
        css = re.sub(r"(?s)/\*.*?\*/", " ", css[:LONGEST])
        for place, (selectors, body) in enumerate(_blocks(css)):
            for text in selectors.split(",") if declarations(body) else ():
                if (selector := _selector(text)) is not None:
                    rule = _Rule(selector, (*_specificity(selector), place), body)
                    self._rules.setdefault(_key(selector[0]), []).append(rule)

    def style(self, element: HtmlElement) -> dict[str, str]:
        """What the rules and its own attribute say of an element; the strongest counts."""
        own = element.get("style") or ""
        if not self._rules or self._steps > MOST_STEPS:
            return declarations(own)
        keys = ["", str(element.tag), f"#{element.get('id')}"]
        keys += (f".{name}" for name in (element.get("class") or "").split())
        fitting = [
            rule for key in keys for rule in self._rules.get(key, ()) if self._fits(rule, element)
        ]
        if not fitting:
            return declarations(own)
        bodies = [rule.body for rule in sorted(fitting, key=lambda rule: rule.order)]
        style: dict[str, str] = {}
        for important in (False, True):
            for body in (*bodies, own):
                style |= declarations(body, important=important)
        return style

    def _fits(self, rule: _Rule, element: HtmlElement) -> bool:
        self._steps += 1
        if self._steps > MOST_STEPS:
            self.exhausted = True
            return False
        if not rule.selector[0].fits(element):
            return False
        at: HtmlElement | None = element
        for inner, outer in zip(rule.selector, rule.selector[1:], strict=False):
            at = None if at is None else at.getparent()
            while at is not None and not inner.child and not outer.fits(at):
                at = at.getparent()
                self._steps += 1
            if at is None or not outer.fits(at):
                return False
        return True


def declarations(text: str, *, important: bool | None = None) -> dict[str, str]:
    """The declarations that may hide text, in lower case.

    Args:
        text: such as "color: red; display: none !important".
        important: only those that are marked as that, or only the others; None: all.
    """
    declared: dict[str, str] = {}
    if not text:
        return declared
    for part in text.lower().split(";"):
        name, _, value = part.partition(":")
        value, mark, _ = value.partition("!")
        if name.strip() in _PROPERTIES and important in (None, bool(mark)):
            declared[name.strip()] = value.strip()
    return declared


def length(text: str, font: float, whole: float = 1_000.0) -> float | None:
    """A length in pixels; None: it is none.

    Args:
        text: such as "-9999px", "0", "2em".
        font: what an "em" is.
        whole: what 100 % are.
    """
    found = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+))([a-z]*|%)", text.strip())
    if found is None:
        return None
    unit = {"em": font, "ex": font / 2, "ch": font / 2, "%": whole / 100} | _UNITS
    return float(found[1]) * unit[found[2]] if found[2] in unit else None


def colour(text: str) -> Colour | None:
    """A colour, or the one among other values; None: it is not known."""
    if re.search(r"url\(|gradient\(|var\(", text):
        return None
    numbers = re.search(r"rgba?\(([^)]*)\)", text)
    if numbers:
        parts = re.findall(r"[\d.]+%?", numbers[1])
        if len(parts) not in (3, 4) or any(part.strip("%").count(".") > 1 for part in parts):
            return None
        red, green, blue = (min(255, int(_share(part, 255))) for part in parts[:3])
        return red, green, blue, _share(parts[3], 1) if len(parts) == 4 else 1.0
    for word in text.split():
        digits = _NAMES.get(word) or (word[1:] if re.fullmatch("#[0-9a-f]{3,8}", word) else "")
        if len(digits) in (3, 4):
            digits = "".join(2 * digit for digit in digits)
        if len(digits) in (6, 8):
            values = bytes.fromhex(digits)
            return values[0], values[1], values[2], values[3] / 255 if len(values) == 4 else 1.0
    return None


def _share(text: str, whole: float) -> float:
    number = float(text.strip("%.") or 0)
    return number * whole / 100 if text.endswith("%") else number


def _blocks(css: str) -> Iterator[tuple[str, str]]:
    """Selectors and declarations, of the rules that count on a screen."""
    around: list[str] = []
    begin = 0
    for found in re.finditer("[{}]", css):
        part = css[begin : found.start()]
        begin = found.end()
        if found[0] == "{":
            around.append(part.rpartition(";")[2].strip())
        elif around:
            prelude = around.pop()
            media = " ".join(around).lower()
            if not prelude.startswith("@") and not _OTHER_MEDIA.search(media):
                yield prelude, part


def _selector(text: str) -> tuple[_Compound, ...] | None:
    """None: it is of a kind that is left out."""
    compounds = []
    child = False
    for word in re.sub(r"\s*>\s*", " > ", text.strip()).split():
        if word == ">":
            child = True
            continue
        found = _COMPOUND.fullmatch(word)
        if found is None:
            return None
        names = re.findall(r"[.#][\w-]+", found[2])
        ids = frozenset(name[1:] for name in names if name[0] == "#")
        classes = frozenset(name[1:] for name in names if name[0] == ".")
        tag = "" if found[1] in (None, "*") else found[1].lower()
        compounds.append(_Compound(tag, ids, classes, child))
        child = False
    return tuple(reversed(compounds)) or None


def _specificity(selector: tuple[_Compound, ...]) -> tuple[int, int, int]:
    return (
        sum(len(one.ids) for one in selector),
        sum(len(one.classes) for one in selector),
        sum(bool(one.tag) for one in selector),
    )


def _key(own: _Compound) -> str:
    if own.ids:
        return f"#{min(own.ids)}"
    return f".{min(own.classes)}" if own.classes else own.tag
