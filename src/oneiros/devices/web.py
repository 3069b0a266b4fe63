"""The browser: pages and other texts of the web, read in parts."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.egress import Egress, Fetched
from oneiros.devices.html_page import Readable, readable
from oneiros.errors import DiskError
from oneiros.kernel.contract import Contract
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.memory.extraction import decode_text, extract_text
from oneiros.memory.hidden_text import marked

PART: Final = 6_000  # characters of a page that are read at a time
MOST_LINKS: Final = 40  # that are listed beside those in the text

_ACCEPTED: Final = (
    *("text/html", "application/xhtml+xml", "text/*", "application/json", "application/xml"),
    *("application/pdf", "application/ld+json", "application/rss+xml", "application/atom+xml"),
)
_ASKED: Final = (
    *("page", "site", "website", "web", "article", "link", "url", "online", "internet"),
    *("read", "open", "visit", "fetch", "browse", "look up", "look at", "summarize"),
)
_KEPT: Final = 64  # pages whose other parts may be asked for
_FRESH: Final = 600.0  # seconds that they are kept
_NUMBER: Final = re.compile(r"\[(\d+)\]")

# Told of each page that was fetched: whose process, its address, its text and label.
Remember = Callable[[str, str, Readable, Label], None]


@dataclass(frozen=True, slots=True)
class _Page:
    read: Readable
    url: str
    host: str
    parts: tuple[str, ...]
    fetched: float


class Browser:
    """Fetches pages, and keeps the last ones for a while, so that their parts fit together."""

    def __init__(
        self,
        egress: Egress,
        remember: Remember | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch through a guard.

        Args:
            egress: the guard.
            remember: told of each new page, in a thread of its own: the index of fetched pages.
            clock: seconds.
        """
        self._egress = egress
        self._remember = remember
        self._clock = clock
        self._pages: OrderedDict[tuple[str, str, str, bool], _Page] = OrderedDict()

    async def page(self, context: CallContext, url: str, whole: bool, again: bool) -> _Page:
        """A page, fetched or kept; `again`: fetched for certain.

        Raises:
            ToolError: it may not be fetched, or cannot be read.
        """
        # What ends a sentence behind an address is hardly ever a part of it.
        url = url.strip().rstrip("?,;:\"'>")
        key = (context.owner, context.app, url, whole)
        kept = self._pages.get(key)
        if kept is not None and not again and self._clock() - kept.fetched < _FRESH:
            return kept
        fetched = await self._egress.get(context.app, url, accept=_ACCEPTED)
        # Large pages take a while.
        read = await asyncio.to_thread(_readable, fetched, whole)
        page = _Page(read, fetched.url, fetched.host, _parts(read.text), self._clock())
        self._pages[key] = page
        self._pages.move_to_end(key)
        while len(self._pages) > _KEPT:
            self._pages.popitem(last=False)
        if self._remember is not None:
            label = Label.of(f"web:{page.host}")
            await asyncio.to_thread(self._remember, context.owner, page.url, read, label)
        return page


def web(browser: Browser) -> Tool:
    """The tool."""

    @device(
        contract=Contract(
            critical=("url",),
            sinks=("web:{url}",),  # an address can carry anything
            origins=("web:{url}",),
            requested_by=_ASKED,
            idempotent=True,
            output_limit=PART + 10_000,  # with its links
        )
    )
    async def fetch_page(
        context: CallContext,
        url: Annotated[str, Field(description="Of a page, text or PDF file.")],
        part: Annotated[int, Field(description="Of a long page.", ge=1)] = 1,
        whole: Annotated[bool, Field(description="With menus and footers.")] = False,
    ) -> ToolResult:
        """Read a web page as text. Links are numbers such as [3], and listed at the end."""
        page = await browser.page(context, url, whole, again=part == 1)
        if part > len(page.parts):
            raise ToolError(f"{page.url} has {len(page.parts)} parts; there is no part {part}.")
        text = page.parts[part - 1]
        links = _linked(page, text)
        return ToolResult(
            _shown(page, part, text, links),
            {
                "title": page.read.title,
                "url": page.url,
                "part": part,
                "parts": len(page.parts),
                "text": text,
                "links": {str(n): page.read.links[n - 1].address for n in links},
            },
            label=Label.of(f"web:{page.host}"),  # of where a redirect led to
        )

    return fetch_page


def _shown(page: _Page, part: int, text: str, links: list[int]) -> str:
    head = [page.read.title] if page.read.title else []
    address = page.url if len(page.parts) == 1 else f"{page.url} (part {part} of {len(page.parts)})"
    pieces = ["\n".join([*head, address]), text or "[The page has no text.]"]
    if links:
        pieces.append("\n".join(["Links:", *(_listed(page, number) for number in links)]))
    if part < len(page.parts):
        pieces.append(f"[Go on with part={part + 1}.]")
    elif page.read.main:
        pieces += _rest(page)
    return "\n\n".join(pieces)


def _rest(page: _Page) -> list[str]:
    """What a page's main text leaves out: links elsewhere on it, and a word about the others."""
    inside = set(_linked(page, page.read.text))
    others = [n for n in range(1, len(page.read.links) + 1) if n not in inside]
    listed = [_listed(page, number) for number in others[:MOST_LINKS]]
    if len(others) > MOST_LINKS:
        listed.append(f"[{len(others) - MOST_LINKS} more are not listed.]")
    note = "[This was the main text. whole=true shows menus, lists and footers too.]"
    return [*(["\n".join(["Other links:", *listed])] if listed else []), note]


def _listed(page: _Page, number: int) -> str:
    """A link with its text: small models do not find the number's place in the page again."""
    link = page.read.links[number - 1]
    return f"[{number}] {link.text or 'no text'}: {link.address}"


def _linked(page: _Page, text: str) -> list[int]:
    """Numbers of the links in a text."""
    most = len(page.read.links)
    return list(
        dict.fromkeys(int(n) for n in _NUMBER.findall(text) if len(n) < 6 and 0 < int(n) <= most)
    )


def _readable(fetched: Fetched, whole: bool) -> Readable:
    kind = fetched.content_type
    try:
        if kind == "application/pdf" or fetched.data.startswith(b"%PDF-"):
            text = extract_text(urlsplit(fetched.url).path or "page.pdf", fetched.data)
            return Readable(text.title, text.text, (), False)
        text_ = _decoded(fetched)
    except DiskError as error:
        raise ToolError(str(error)) from error
    if kind in ("text/html", "application/xhtml+xml") or (
        not kind and re.match(r"\s*<(!doctype html|html)\b", text_[:1000], re.IGNORECASE)
    ):
        return readable(text_, fetched.url, whole=whole)
    return Readable("", marked(text_).strip(), (), False)


def _decoded(fetched: Fetched) -> str:
    """The text, in the encoding that the answer or the page names, or that it looks like."""
    named = fetched.charset
    if named is None:
        found = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w.:-]{1,40})", fetched.data[:4096])
        named = found[1].decode("ascii") if found else None
    if named is not None:
        try:
            return fetched.data.decode(named, errors="replace")
        except LookupError:
            pass  # no encoding that is known; it is guessed instead
    return decode_text(fetched.url, fetched.data)


def _parts(text: str) -> tuple[str, ...]:
    """A text in pieces of about PART characters, cut between paragraphs where that is possible."""
    parts = []
    while len(text) > PART:
        cut = text.rfind("\n\n", PART // 2, PART)
        if cut < 0:
            cut = text.rfind("\n", PART // 2, PART)
        if cut < 0:
            cut = text.rfind(" ", PART // 2, PART)
        cut = cut if cut > 0 else PART
        parts.append(text[:cut].rstrip())
        text = text[cut:].lstrip("\n")
    return (*parts, text)
