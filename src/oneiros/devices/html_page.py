"""Pages as text that a model reads: Markdown, with links as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from oneiros.kernel.tools import ToolError
from oneiros.memory.hidden_html import mark_hidden
from oneiros.memory.hidden_text import from_markdown, marked

if TYPE_CHECKING:
    from lxml.html import HtmlElement

# Shorter pages are shown whole: what is no main text in them costs little, and may be wanted.
SHORT: Final = 3_000  # characters
# Longer ones too: looking for the main text of a book takes longer than anybody waits.
LONG: Final = 200_000  # characters
_LONGEST_ALT: Final = 200  # characters of what stands for a picture
_PREFIXES: Final = {"li": "- ", "td": " | ", "th": " | "}
_MARK: Final = "https://link.invalid/"  # links are numbered before the main text is looked for
_MARKED: Final = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(https://link\.invalid/(\d+)\)")
_SKIPPED: Final = frozenset({"script", "style", "noscript", "template", "head", "svg", "iframe"})
_BLOCKS: Final = frozenset(
    {
        *("address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details"),
        *("div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2"),
        *("h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre"),
        *("section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
    }
)


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a page."""

    address: str
    text: str  # what it stands on


@dataclass(frozen=True, slots=True)
class Readable:
    """A page's text."""

    title: str
    text: str  # Markdown; "[3]" stands after the text of link 3
    links: tuple[Link, ...]  # link n is at n - 1
    main: bool  # whether it is the main text only, and not the whole page


def readable(html: str, url: str, *, whole: bool = False) -> Readable:
    """A page as text. What people do not see of it is marked (`memory/hidden_html.py`).

    Args:
        html: the page.
        url: its address, which its links may be relative to.
        whole: with menus and footers, where they would be left out.

    Raises:
        ToolError: there is nothing in it.
    """
    import lxml.html
    from lxml import etree

    try:
        # lxml refuses text that declares an encoding of its own.
        root = lxml.html.document_fromstring(re.sub(r"^\s*<\?xml[^>]*>", "", html))
    except (etree.LxmlError, ValueError) as error:
        raise ToolError(f"{url}: the page is empty.") from error
    title = marked(_line(root.findtext(".//title") or "")).strip()
    hidden = mark_hidden(root)
    links = _number_links(root, url)
    pieces: list[str] = []
    _add_text(pieces, root)
    everything = marked(_tidy("".join(pieces)))
    if whole or not SHORT < len(everything) <= LONG:
        return Readable(title, _noted(everything, hidden), links, False)
    import trafilatura

    main = trafilatura.extract(
        root, output_format="markdown", include_links=True, include_tables=True, favor_recall=True
    )
    if not main:
        return Readable(title, _noted(everything, hidden), links, False)
    text = marked(from_markdown(_MARKED.sub(r"\1 [\2]", main))).strip()
    return Readable(title, _noted(text, hidden), links, True)


def _noted(text: str, note: str) -> str:
    """A text with a note below it, if there is one."""
    return "\n\n".join(part for part in (text, note) if part)


def _number_links(root: HtmlElement, url: str) -> tuple[Link, ...]:
    """Put numbers in the place of addresses; the same address has one number."""
    base = root.find(".//base[@href]")
    if base is not None:
        url = _address(url, base.get("href") or "") or url
    numbers: dict[str, int] = {}
    links: list[Link] = []
    for link in root.iter("a"):
        address = _address(url, link.get("href") or "")
        if address is None:
            link.attrib.pop("href", None)
            continue
        if address not in numbers:
            numbers[address] = len(numbers) + 1
            links.append(Link(address, marked(_line(link.text_content())[:100])))
        link.set("href", f"{_MARK}{numbers[address]}")
    return tuple(links)


def _address(url: str, href: str) -> str | None:
    """The address of a link to another page; None: it leads to none."""
    href = href.strip()
    try:
        address = urljoin(url, href).partition("#")[0]
        parts = urlsplit(address)
    except ValueError:
        return None
    if not href or href.startswith("#") or parts.scheme not in ("http", "https"):
        return None
    return address if parts.hostname and len(address) <= 2_000 else None


# In pieces of text: a line break, and an empty line. What is preformatted has other characters
# for its own line breaks and spaces, which stay.
_BREAK, _GAP = "\n", "\f"
_FORMATTED: Final = str.maketrans("\n ", "\v\x1f")
_UNFORMATTED: Final = str.maketrans("\v\x1f", "\n ")


def _add_text(pieces: list[str], element: HtmlElement) -> None:
    """Add the text of an element and after it, with breaks around blocks."""
    name = element.tag if isinstance(element.tag, str) else ""
    if name and name not in _SKIPPED and element.get("hidden") is None:
        _add_inside(pieces, element, name)
    pieces.append(_spaced(element.tail))


def _add_inside(pieces: list[str], element: HtmlElement, name: str) -> None:
    heading = re.fullmatch("h[1-6]", name)
    apart = _GAP if heading or name in ("p", "table", "ul", "ol", "pre", "dl") else ""
    around = _BREAK + apart if name in _BLOCKS else ""
    pieces.append(around)
    if name == "pre":
        pieces.append(f"```\n{element.text_content()}\n```".translate(_FORMATTED) + around)
        return
    pieces.append(f"{'#' * int(name[1])} " if heading else _PREFIXES.get(name, ""))
    pieces.append(_spaced(element.text))
    for child in element:
        _add_text(pieces, child)
    if name == "a" and (element.get("href") or "").startswith(_MARK):
        pieces.append(f" [{element.get('href').removeprefix(_MARK)}]")
    elif name == "img" and element.get("alt"):
        pieces.append(f" (image: {_line(element.get('alt'))[:_LONGEST_ALT]}) ")
    elif name == "tr":
        pieces.append(" |")
    pieces.append(around)


def _spaced(text: str | None) -> str:
    """Text with its white space as single spaces."""
    return re.sub(r"\s+", " ", text or "")


def _tidy(text: str) -> str:
    """Breaks as lines: one for any number of line breaks, an empty line where there is a gap."""
    text = re.sub(r"[ \n\f]*[\n\f][ \n\f]*", lambda m: "\n\n" if _GAP in m[0] else "\n", text)
    text = re.sub(r"(?m)^(?:-|#+|\|) ?$", "", re.sub("  +", " ", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip().translate(_UNFORMATTED)


def _line(text: str) -> str:
    return " ".join(text.split())
