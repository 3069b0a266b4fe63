"""Reading web pages: text, numbered links, parts."""

import asyncio
from collections.abc import Iterator

import pytest

from oneiros.devices.egress import Egress
from oneiros.devices.html_page import Readable, readable
from oneiros.devices.web import MOST_LINKS, PART, Browser, web
from oneiros.kernel.label import Label
from oneiros.kernel.tools import Tool, ToolError, ToolResult
from tests.devices.contexts import CONTEXT
from tests.devices.web_server import Answer, serving, site_page

HTML = {"Content-Type": "text/html"}
served: list[str] = []


def handle(path: str, headers: dict[str, str]) -> Answer:
    served.append(path)
    match path:
        case "/latin":
            body = "<title>é</title><p>Grüße</p>".encode("latin-1")
            return 200, {"Content-Type": "text/html; charset=ISO-8859-1"}, body
        case "/meta":
            body = "<meta charset=windows-1252><p>“Grüße”</p>".encode("cp1252")
            return 200, HTML, body
        case "/utf8":
            return 200, HTML, "<p>Grüße 猫</p>".encode()
        case "/data":
            return 200, {"Content-Type": "application/json"}, b'{"a": [1, 2]}'
        case "/odd":
            return 200, {"Content-Type": "text/html; charset=none-such"}, b"<p>text</p>"
        case "/empty":
            return 200, HTML, b""
        case "/bare":
            return 200, {}, b"<!doctype html><h1>Bare</h1>"
        case "/long":
            paragraphs = [f"<p>Paragraph {n}. {'word ' * 200}</p>" for n in range(20)]
            return 200, HTML, "".join(["<main>", *paragraphs, "</main>"]).encode()
    return site_page(path, headers)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(handle) as port:
        yield port


@pytest.fixture
def tool(port: int) -> Tool:
    return web(Browser(Egress(lambda _: [f"127.0.0.1:{port}"])))


def read(tool: Tool, url: str, **arguments: object) -> ToolResult:
    outcome = asyncio.run(tool.run({"url": url, **arguments}, CONTEXT))
    assert isinstance(outcome, ToolResult)
    return outcome


def test_a_page_is_text_with_numbered_links(tool: Tool, port: int) -> None:
    here = f"http://127.0.0.1:{port}"
    result = read(tool, f"{here}/funding.html")
    assert result.text == "\n".join(
        [
            "Funding of Halcyon Robotics",
            f"{here}/funding.html",
            "",
            "Halcyon Robotics [1] Funding [2] Press [3] Contact",
            "",
            "# Funding rounds",
            "",
            "Each round has a page of its own:",
            "",
            "- Seed [4]",
            "- Series A [5]",
            "- Series B [6]",
            "- Series C [7]",
            "- Series D [3], in the company's press archive",
            "- Series E [8]",
            "",
            "All figures are in US dollars. Halcyon Robotics is an invented company.",
            "",
            "Links:",
            f"[1] Halcyon Robotics: {here}/index.html",
            f"[2] Funding: {here}/funding.html",
            f"[3] Press: {here}/press.html",
            f"[4] Seed: {here}/seed.html",
            f"[5] Series A: {here}/series-a.html",
            f"[6] Series B: {here}/series-b.html",
            f"[7] Series C: {here}/series-c.html",
            f"[8] Series E: {here}/series-e.html",
        ]
    )
    assert result.label == Label.of("web:127.0.0.1")
    data = result.data
    assert isinstance(data, dict)
    assert data["links"]["5"] == f"{here}/series-a.html"
    assert data["title"] == "Funding of Halcyon Robotics"


def test_of_a_long_page_the_main_text_is_read_and_other_links_are_listed(
    tool: Tool, port: int
) -> None:
    url = f"http://127.0.0.1:{port}/press.html"
    text = read(tool, url).text
    assert "raised **$150 million** in its Series D" in text
    assert "the round after it [4] was larger" in text
    assert "Contact" not in text
    assert f"Other links:\n[1] Halcyon Robotics: http://127.0.0.1:{port}/index.html" in text
    whole = read(tool, url, whole=True).text
    assert "Contact" in whole
    assert "All figures are in US dollars" in whole


def test_a_long_page_is_read_in_parts_that_fit_together(tool: Tool, port: int) -> None:
    url = f"http://127.0.0.1:{port}/long"
    served.clear()
    results = [read(tool, url)]
    while "[Go on with part=" in results[-1].text:
        results.append(read(tool, url, part=len(results) + 1))
    texts = [result.data["text"] for result in results]  # type: ignore[index,call-overload]
    assert len(texts) > 3
    assert all(len(text) <= PART for text in texts)
    joined = "\n\n".join(texts)
    places = [joined.index(f"Paragraph {n}.") for n in range(20)]
    assert places == sorted(places)
    assert served == ["/long"]
    with pytest.raises(ToolError, match=f"has {len(texts)} parts; there is no part 99"):
        read(tool, url, part=99)
    assert read(tool, url).data == results[0].data
    assert served == ["/long", "/long"]  # the first part is always what is there now


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/latin", "Grüße"),
        ("/meta", "“Grüße”"),
        ("/utf8", "Grüße 猫"),
        ("/data", '{"a": [1, 2]}'),
        ("/odd", "text"),
        ("/bare", "# Bare"),
        ("/series-c.html", "| November 2019 | $60 million | $360 million | Meridian Growth |"),
    ],
)
def test_texts_in_many_forms(tool: Tool, port: int, path: str, said: str) -> None:
    assert said in read(tool, f"http://127.0.0.1:{port}{path}").text


def test_an_empty_page_and_a_missing_one_are_errors(tool: Tool, port: int) -> None:
    with pytest.raises(ToolError, match="the page is empty"):
        read(tool, f"http://127.0.0.1:{port}/empty")
    with pytest.raises(ToolError, match="status 404"):
        read(tool, f"http://127.0.0.1:{port}/nothing.html")


def test_pages_are_told_to_who_remembers_them(port: int) -> None:
    told: list[tuple[str, str, str, Label]] = []

    def remember(owner: str, url: str, page: Readable, label: Label) -> None:
        told.append((owner, url, page.title, label))

    browser = Browser(Egress(lambda _: [f"127.0.0.1:{port}"]), remember)
    url = f"http://127.0.0.1:{port}/seed.html"
    read(web(browser), url)
    assert told == [("ann", url, "Seed round", Label.of("web:127.0.0.1"))]


def test_links_that_lead_to_no_page_have_no_number() -> None:
    html = (
        '<base href="/deep/"><p><a href="x?a=1#part">one</a> <a href="#top">two</a> '
        '<a href="javascript:x()">three</a> <a href="mailto:a@b.c">four</a> '
        '<a href="http://[bad">five</a> <a href="//other.example/">six</a> '
        '<a href="x?a=1">seven</a></p>'
    )
    page = readable(html, "https://example.org/a/b")
    assert page.text == "one [1] two three four five six [2] seven [1]"
    assert [link.address for link in page.links] == [
        "https://example.org/deep/x?a=1",
        "https://other.example/",
    ]


def test_markup_becomes_lines() -> None:
    html = (
        "<h2>A  title</h2>text <b>bold</b>\n more<br>line<ul><li>one<li>two <ol><li>inner</ol></ul>"
        "<pre>x = 1\n  y = 2</pre><table><tr><td>a<td>b</table><div hidden>secret</div>"
        "<style>p{}</style><script>1</script><!-- note --><img alt='a cat' src=x>"
    )
    assert readable(html, "https://example.org/").text == (
        "## A title\n\ntext bold more\nline\n\n- one\n- two\n\n- inner\n\n"
        "```\nx = 1\n  y = 2\n```\n\n| a | b |\n\n[hidden: secret] (image: a cat)"
        "\n\n[Not seen by people: 1 hidden text of 6 characters.]"
    )


def test_many_links_are_not_all_listed() -> None:
    menu = "".join(f'<a href="/m{n}">Menu {n}</a>' for n in range(200))
    text = "<p>" + "Something worth reading, at length. " * 40 + "</p>"
    page = f"<nav>{menu}</nav><main><h1>News</h1>{text * 4}</main>".encode()
    with serving(lambda path, headers: (200, HTML, page)) as port:
        tool = web(Browser(Egress(lambda _: [f"127.0.0.1:{port}"])))
        said = read(tool, f"http://127.0.0.1:{port}/").text
    assert said.count("Menu") == MOST_LINKS
    assert f"[{200 - MOST_LINKS} more are not listed.]" in said
