"""Search of the web: through a search engine, and among the pages that were fetched before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol
from urllib.parse import quote_plus, urlsplit

import httpx
from pydantic import BaseModel, Field, ValidationError

from oneiros.devices.define import device
from oneiros.devices.egress import Egress
from oneiros.devices.html_page import Readable
from oneiros.kernel.contract import Contract
from oneiros.kernel.label import Label, join_all
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.memory.hidden_text import marked
from oneiros.memory.index import Document, Index

WEB: Final = "web"  # the kind of documents that are fetched pages
LONGEST_QUERY: Final = 400  # characters
_SNIPPET: Final = 300  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page that a search found."""

    title: str
    url: str
    snippet: str
    label: Label  # of title and snippet


class SearchProvider(Protocol):
    """Who searches the web."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Who reads the queries, as a contract's sinks; (): nobody outside."""
        ...

    async def search(self, context: CallContext, query: str, limit: int) -> Sequence[Found]:
        """The pages that fit best, the best first. Raises ToolError."""
        ...


class SearXNG:
    """A SearXNG instance, through its JSON API, which its settings have to allow."""

    def __init__(self, address: str, egress: Egress | None = None) -> None:
        """Search through an instance.

        Args:
            address: of it, such as "http://127.0.0.1:8888".
            egress: the guard; default: one that lets through to this instance only.

        Raises:
            ToolError: that is no address.
        """
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise ToolError(f"The search engine's address cannot be read: {error}.") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ToolError(
                'A search engine\'s address begins with "http://" or "https://" and names a host.'
            )
        self._address = address.rstrip("/")
        self._host = url.host
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        site = f"{url.raw_host.decode()}:{port}"
        self._egress = egress or Egress(lambda app: [site])

    @property
    def reads(self) -> tuple[str, ...]:
        """The instance, which passes queries on."""
        return (f"web:{self._host}",)

    async def search(self, context: CallContext, query: str, limit: int) -> list[Found]:
        """Ask the instance."""
        url = f"{self._address}/search?q={quote_plus(query)}&format=json"
        answer = await self._egress.get(context.app, url, accept=("application/json",))
        try:
            results = _Answer.model_validate_json(answer.data).results
        except ValidationError as error:
            raise ToolError(
                f"{self._host} answered with what is no list of results. Is it SearXNG?"
            ) from error
        # Whoever runs the instance, and whoever wrote the page, had a hand in what it says.
        return [
            Found(
                title=_line(marked(result.title)),
                url=result.url,
                snippet=_line(marked(result.content or "")),
                label=Label.of(f"web:{self._host}", f"web:{urlsplit(result.url).hostname}"),
            )
            for result in results[:limit]
            if _is_page(result.url)
        ]


class FetchedPages:
    """The pages that were fetched before, searched on this machine."""

    def __init__(self, index: Index) -> None:
        """Search what `remember` put into an index."""
        self._index = index

    @property
    def reads(self) -> tuple[str, ...]:
        """Nobody."""
        return ()

    def remember(self, owner: str, url: str, page: Readable, label: Label) -> None:
        """Put a page into the index (see `web.Browser`); its meaning is found when idle."""
        self._index.add(
            Document(
                owner=owner, kind=WEB, path=url, text=page.text, label=label, title=page.title
            ),
            embed=False,
        )

    async def search(self, context: CallContext, query: str, limit: int) -> list[Found]:
        """Search the index. The best passage of each page is its snippet."""
        hits = await asyncio.to_thread(
            self._index.search, query, context.owner, limit=4 * limit, kinds=(WEB,)
        )
        best: dict[str, Found] = {}
        for hit in hits:
            if hit.path not in best:
                text = _line(hit.text)
                best[hit.path] = Found(title=hit.title, url=hit.path, snippet=text, label=hit.label)
        return list(best.values())[:limit]


def search(providers: Sequence[SearchProvider]) -> Tool:
    """The tool; providers are asked together, and the first ones' results come first."""
    sinks = tuple(dict.fromkeys(reader for provider in providers for reader in provider.reads))

    @device(
        contract=Contract(
            critical=("query",) if sinks else (),
            sinks=sinks,
            requested_by=("search", "look up", "find", "find out", "web", "online", "internet"),
            idempotent=True,
            deadline=45.0,
        )
    )
    async def search_web(
        context: CallContext,
        query: Annotated[str, Field(description="A few words.", max_length=LONGEST_QUERY)],
        limit: Annotated[int, Field(description="Results at most.", ge=1, le=20)] = 8,
    ) -> ToolResult:
        """Search the web for pages. Read those that look right with fetch_page."""
        if not query.strip():
            raise ToolError("search_web: the query is empty.")
        answers = await asyncio.gather(
            *(provider.search(context, query.strip(), limit) for provider in providers),
            return_exceptions=True,
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if not isinstance(failure, ToolError):
                raise failure
        found: dict[str, Found] = {}
        for answer in answers:
            if not isinstance(answer, BaseException):
                for one in answer:
                    found.setdefault(one.url, one)
        if not found and failures:
            raise ToolError(" ".join(map(str, failures)))
        results = list(found.values())[:limit]
        text = "\n\n".join(_shown(n, one) for n, one in enumerate(results, 1))
        text = text or "Nothing was found. Try fewer or other words."
        return ToolResult(
            "\n\n".join([text, *(f"[{failure}]" for failure in failures)]),
            [{"title": one.title, "url": one.url, "snippet": one.snippet} for one in results],
            label=join_all(one.label for one in results),
        )

    return search_web


class _Result(BaseModel):
    url: str
    title: str = ""
    content: str | None = None


class _Answer(BaseModel):
    results: list[_Result]


def _shown(number: int, found: Found) -> str:
    lines = [f"{number}. {found.title or 'no title'}", found.url]
    snippet = found.snippet
    if snippet:
        lines.append(snippet if len(snippet) <= _SNIPPET else f"{snippet[:_SNIPPET]}…")
    return "\n".join(lines)


def _is_page(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _line(text: str) -> str:
    return " ".join(text.split())
