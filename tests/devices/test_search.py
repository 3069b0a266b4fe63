"""Search of the web: a SearXNG instance, and pages that were fetched before."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from oneiros.devices.html_page import Readable
from oneiros.devices.search import FetchedPages, Found, SearchProvider, SearXNG, search
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.memory.index import Index
from tests.devices.contexts import CONTEXT, call, text_of
from tests.devices.web_server import Answer, serving

RESULTS = [
    {"url": "https://a.example/", "title": "A  page", "content": "about\nfunding", "engine": "x"},
    {"url": "javascript:alert(1)", "title": "no page"},
    {"url": "https://b.example/2", "title": "B", "content": None},
    {"url": "https://c.example/3", "title": "", "content": "x" * 1000},
]


def searched(tool: Tool, **arguments: object) -> ToolResult:
    result = call(tool, **arguments)
    assert isinstance(result, ToolResult)
    return result


def test_an_instance_is_asked_and_its_results_are_shown() -> None:
    asked: list[str] = []

    def handle(path: str, headers: dict[str, str]) -> Answer:
        asked.append(path)
        body = json.dumps({"query": "q", "results": RESULTS, "answers": []}).encode()
        return 200, {"Content-Type": "application/json"}, body

    with serving(handle) as port:
        tool = search([SearXNG(f"http://127.0.0.1:{port}/")])
        result = searched(tool, query="Halcyon & funding", limit=3)
    assert asked == ["/search?q=Halcyon+%26+funding&format=json"]
    assert (
        result.text == "1. A page\nhttps://a.example/\nabout funding\n\n2. B\nhttps://b.example/2"
    )
    assert result.label == Label.of("web:127.0.0.1", "web:a.example", "web:b.example")
    assert tool.contract.sinks == ("web:127.0.0.1",)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, {}, b""), "status 403"),
        ((200, {"Content-Type": "text/html"}, b"<p>hello"), "cannot be read here"),
        ((200, {"Content-Type": "application/json"}, b"[1]"), "Is it SearXNG"),
        ((200, {"Content-Type": "application/json"}, b"nonsense"), "Is it SearXNG"),
    ],
)
def test_an_instance_that_fails_is_an_error(answer: Answer, said: str) -> None:
    with serving(lambda path, headers: answer) as port:
        tool = search([SearXNG(f"http://127.0.0.1:{port}")])
        with pytest.raises(ToolError, match=said):
            call(tool, query="x")


def test_addresses_that_are_none_are_refused() -> None:
    for address in ("localhost:8888", "ftp://x/", "http://[::"):
        with pytest.raises(ToolError, match="address"):
            SearXNG(address)


class Fixed:
    reads = ()

    def __init__(self, *urls: str, error: Exception | None = None) -> None:
        self._urls, self._error = urls, error

    async def search(self, context: CallContext, query: str, limit: int) -> Sequence[Found]:
        if self._error is not None:
            raise self._error
        return [Found(title=url, url=url, snippet="", label=Label()) for url in self._urls]


def test_results_of_several_providers_are_joined_and_one_may_fail() -> None:
    providers: list[SearchProvider] = [
        Fixed("https://a/", "https://b/"),
        Fixed(error=ToolError("c is down.")),
        Fixed("https://b/", "https://d/"),
    ]
    result = searched(search(providers), query="x")
    assert [one["url"] for one in result.data] == ["https://a/", "https://b/", "https://d/"]  # type: ignore[attr-defined]
    assert result.text.endswith("[c is down.]")
    with pytest.raises(ToolError, match="c is down"):
        call(search(providers[1:2]), query="x")


def test_nothing_found_and_nothing_asked() -> None:
    tool = search([Fixed()])
    assert tool.contract.sinks == tool.contract.critical == ()
    assert text_of(tool, query="x") == "Nothing was found. Try fewer or other words."
    with pytest.raises(ToolError, match="query is empty"):
        call(tool, query="  ")
    with pytest.raises(ToolError, match='"limit" is 50'):
        call(tool, query="x", limit=50)


def test_pages_fetched_before_are_found_by_their_owner(tmp_path: Path) -> None:
    index = Index(tmp_path, None)
    pages = FetchedPages(index)
    for owner, host, text in (
        ("ann", "a.example", "Halcyon raised eight million in its Series A.\n\n" * 3),
        ("ann", "b.example", "Greenhouses use water."),
        ("bob", "c.example", "Halcyon raised money from bob."),
    ):
        page = Readable(host.upper(), text, (), True)
        pages.remember(owner, f"https://{host}/", page, Label.of(f"web:{host}"))
    result = searched(search([pages]), query="Halcyon series")
    assert result.text.startswith("1. A.EXAMPLE\nhttps://a.example/\nHalcyon raised eight million")
    assert result.label == Label.of("web:a.example")
    assert isinstance(result.data, list)
    assert len(result.data) == 1
    index.close()


def test_a_search_that_is_cancelled_ends() -> None:
    class Slow(Fixed):
        async def search(self, context: CallContext, query: str, limit: int) -> Sequence[Found]:
            await asyncio.Event().wait()
            return []

    async def go() -> None:
        async with asyncio.timeout(0.05):
            await search([Slow()]).run({"query": "x"}, CONTEXT)

    with pytest.raises(TimeoutError):
        asyncio.run(go())
