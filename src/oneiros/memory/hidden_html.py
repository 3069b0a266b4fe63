"""What of an HTML page people do not see: its elements replaced by marks (`hidden_text.py`).

A page is not rendered here. Its own style sheets and `style` attributes are read as far as they
hide text: by not displaying it, with no size, beyond the edge, clipped away, transparent, or in the
colour of what is behind it. Sheets of other files and what scripts do are not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from oneiros.memory.css import Colour, Sheet, colour, length
from oneiros.memory.hidden_text import hidden_mark, marked

if TYPE_CHECKING:
    from lxml.html import HtmlElement

MOST: Final = 30  # marks on one page
_NOT_XML: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_BLACK, _WHITE = (0, 0, 0, 1.0), (255, 255, 255, 1.0)
_SMALLEST: Final = 4.0  # pixels of a letter that can be read
_LEAST_CONTRAST: Final = 1.2  # as WCAG computes it; 1: none
_FAINTEST: Final = 0.1  # opacity
_BEYOND: Final = 300.0  # pixels to the left of a page or above it
_FAR: Final = 5_000.0  # pixels to its right
# Not seen, and not read either: a browser with scripts shows none of it.
_APART: Final = ("template", "noscript")
_SILENT: Final = frozenset({"head", "script", "style", "svg", "iframe", "object", "math"})
# Names that style sheets of other files give to what is for screen readers only.
_FOR_READERS: Final = frozenset(
    {"sr-only", "screen-reader-text", "visually-hidden", "visuallyhidden", "screenreader-only"}
)


@dataclass(frozen=True, slots=True)
class _Look:
    """How text looks, as far as children inherit it."""

    font: float = 16.0  # pixels
    colour: Colour | None = _BLACK  # None: not known
    background: Colour | None = _WHITE
    visible: bool = True

    @property
    def is_seen(self) -> bool:
        if not self.visible or self.font < _SMALLEST:
            return False
        if self.colour is None:
            return True
        if self.colour[3] < _FAINTEST:
            return False
        return self.background is None or _contrast(self.colour, self.background) > _LEAST_CONTRAST


def mark_hidden(root: HtmlElement) -> str:
    """Replace what of a page is hidden by marks.

    Args:
        root: the page; it is changed.

    Returns:
        A note on what is hidden, for the end of the page's text: "": nothing is.
    """
    page = _Page(Sheet("".join(style.text or "" for style in root.iter("style"))))
    page.look_at(root, page.style(root), _Look())
    return page.note()


class _Page:
    """A page on which hidden text is looked for."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._count = 0  # hidden texts
        self._characters = 0  # of them
        self._apart: list[str] = []  # hidden where no text is shown: in comments

    def style(self, element: HtmlElement) -> Mapping[str, str]:
        """What is declared for an element."""
        return self._sheet.style(element)

    def look_at(self, element: HtmlElement, style: Mapping[str, str], inherited: _Look) -> None:
        """Mark what is hidden in an element that is itself displayed."""
        look = _look(element, style, inherited)
        if (shown := self._shown(element.text, look)) != element.text:
            element.text = shown
        for child in list(element):
            if (shown := self._shown(child.tail, look)) != child.tail:
                child.tail = shown
            if not isinstance(child.tag, str):
                self._note_apart("comment", str(child.text or ""))
                _remove(child, "")
            elif child.tag in _APART:
                self._note_apart(child.tag, child.text_content())
                _remove(child, "")
            elif child.tag in _SILENT:
                continue
            elif _is_hidden(child, child_style := self.style(child), look.font):
                _remove(child, self._mark(_content(child)))
            else:
                self.look_at(child, child_style, look)

    def note(self) -> str:
        """What is hidden, in a sentence."""
        if self._sheet.exhausted:
            self._apart.append("There may be more: its style sheets are too large.")
        elif not self._count:
            return ""
        noun = "text" if self._count == 1 else "texts"
        note = f"Not seen by people: {self._count:,} hidden {noun} of {self._characters:,} "
        return f"[{note}characters. {' '.join(self._apart)}".rstrip() + "]"

    def _shown(self, text: str | None, look: _Look) -> str | None:
        if not text or text.isspace():
            return text
        return _for_xml(marked(text) if look.is_seen else self._mark(text))

    def _mark(self, text: str) -> str:
        mark = hidden_mark(text)
        if mark:
            self._add(text)
        return f" {mark} " if mark and self._count <= MOST else " "

    def _note_apart(self, kind: str, text: str) -> None:
        # Comments of one or two words, and those for old browsers, are on every page.
        if len(text.split()) > 2 and not re.match(r"\s*(\[if |<!\[endif|/?wp:)", text):
            self._add(text)
            if self._count <= MOST:
                self._apart.append(hidden_mark(f"{kind}: {re.sub('<[^<>]*>', ' ', text)}"))

    def _add(self, text: str) -> None:
        self._count += 1
        self._characters += len(" ".join(text.split()))


def _content(element: HtmlElement) -> str:
    """The text in an element, without scripts and comments."""
    parts = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and child.tag not in _SILENT:
            parts.append(_content(child))
        parts.append(child.tail or "")
    return " ".join(parts)


def _remove(element: HtmlElement, mark: str) -> None:
    """Put a text in an element's place."""
    parent, before = element.getparent(), element.getprevious()
    text = _for_xml(mark + (element.tail or ""))
    if before is not None:
        before.tail = (before.tail or "") + text
    else:
        parent.text = (parent.text or "") + text
    parent.remove(element)


def _for_xml(text: str) -> str:
    """Without what a page may have, and its tree does not take back."""
    return _NOT_XML.sub("", text)


def _is_hidden(element: HtmlElement, style: Mapping[str, str], font: float) -> bool:
    """Whether an element is not seen, with all that is in it."""
    if element.get("hidden") is not None or not _FOR_READERS.isdisjoint(
        (element.get("class") or "").lower().split()
    ):
        return True
    if element.tag == "dialog" and element.get("open") is None:
        return True
    if not style:
        return False
    if style.get("display") == "none" or style.get("content-visibility") == "hidden":
        return True
    if (_number(style.get("opacity")) or 0.0 if "opacity" in style else 1.0) < _FAINTEST:
        return True
    return (
        _is_beyond(style, font)
        or _is_clipped(style, font)
        or bool(re.search(r"scale(3d|x|y)?\(\s*0?\.?0*\s*[,)]", style.get("transform", "")))
    )


def _is_beyond(style: Mapping[str, str], font: float) -> bool:
    def pixels(name: str) -> float:
        return length(style.get(name, ""), font) or 0.0

    if style.get("position") in ("absolute", "fixed", "relative") and (
        min(pixels("left"), pixels("top"), pixels("right")) <= -_BEYOND
        or max(pixels("left"), pixels("right")) >= _FAR
    ):
        return True
    moves = re.findall(r"-[\d.]+\w+", style.get("transform", ""))
    moves += [style.get(name, "") for name in ("text-indent", "margin-left", "margin-top")]
    return min(length(move, font) or 0.0 for move in moves) <= -_BEYOND


def _is_clipped(style: Mapping[str, str], font: float) -> bool:
    edges = re.findall(r"[\d.]+", style.get("clip", ""))
    if edges and max(map(_number_of, edges)) <= 1:
        return True
    path = style.get("clip-path", "")
    if re.match(r"inset\(\s*(5\d|[6-9]\d|100)(\.\d+)?%|circle\(\s*0|polygon\(\s*0[^1-9]*\)", path):
        return True
    if "hidden" not in style.get("overflow", "") and "clip" not in style.get("overflow", ""):
        return False
    sizes = (length(style.get(name, ""), font) for name in _SIZES)
    return any(size is not None and size <= 1 for size in sizes)


_SIZES: Final = ("width", "height", "max-width", "max-height")


def _look(element: HtmlElement, style: Mapping[str, str], inherited: _Look) -> _Look:
    if not style and not element.attrib:
        return inherited
    look = inherited
    if "visibility" in style:
        look = replace(look, visible=style["visibility"] not in ("hidden", "collapse"))
    if "font-size" in style:
        size = length(style["font-size"], inherited.font, whole=inherited.font)
        look = look if size is None else replace(look, font=size)
    written = (
        style.get("-webkit-text-fill-color")
        or style.get("color")
        or _attribute(element, "color", "text")
    )
    if written and written not in ("inherit", "currentcolor"):
        look = replace(look, colour=colour(written))
    behind = (
        style.get("background-color") or style.get("background") or _attribute(element, "bgcolor")
    )
    if "url(" in style.get("background-image", "") or "gradient(" in style.get(
        "background-image", ""
    ):
        look = replace(look, background=None)
    elif behind and behind not in ("none", "inherit", "transparent"):
        painted = colour(behind)
        if painted is None or painted[3] > 0.9:
            look = replace(look, background=painted)
        elif painted[3] > _FAINTEST:
            look = replace(look, background=None)
    return look


def _attribute(element: HtmlElement, *names: str) -> str:
    values: Iterable[str | None] = (element.get(name) for name in names)
    return next((value.strip().lower() for value in values if value), "")


@lru_cache(maxsize=1024)
def _contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of WCAG 2.1."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(of: Colour) -> float:
    red, green, blue = (
        part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4
        for part in of[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _number(text: str | None) -> float | None:
    found = re.fullmatch(r"([\d.]+)(%?)", text or "")
    if found is None:
        return None
    return _number_of(found[1]) / (100 if found[2] else 1)


def _number_of(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
