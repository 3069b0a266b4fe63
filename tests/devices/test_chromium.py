"""The interactive browser: a real Chromium, which has to be installed, on pages that need one."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from oneiros.devices.chromium import Chromium
from oneiros.devices.egress import Egress
from oneiros.kernel.label import PUBLIC
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.memory.disk import Disk

pytestmark = pytest.mark.long

PAGE = """<title>Shop</title><h1>Shop</h1><p id=out></p>
<button onclick="document.getElementById('out').textContent='Counted '+(++n)">Count</button>
<form action=/search><input name=q aria-label=Query></form>
<img src="http://127.0.0.1:9998/leak"><script>var n=0</script>"""


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        text = PAGE if url.path == "/" else f"<p>Found {parse_qs(url.query).get('q')}"
        self.send_response(302 if url.path == "/inside" else 200)
        if url.path == "/inside":
            self.send_header("Location", "http://127.0.0.1:9998/")
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def reference(result: ToolResult, name: str) -> str:
    line = next(line for line in result.text.splitlines() if name in line and "[ref=" in line)
    return line.split("[ref=")[1].split("]")[0]


def test_a_page_is_read_clicked_typed_into_and_pictured(tmp_path: Path, site: str) -> None:
    disk = Disk(tmp_path / "files", tmp_path / "store", "me")
    calls = iter(range(100))

    async def main() -> None:
        browser = Chromium(Egress(lambda app: [site]), lambda owner: disk)
        tools = {tool.name: tool for tool in browser.tools()}

        async def call(name: str, pid: int = 1, **arguments: object) -> ToolResult:
            context = CallContext(pid, f"{pid}.{next(calls)}", "me", "assistant", PUBLIC)
            outcome = await tools[name].run(arguments, context)
            assert isinstance(outcome, ToolResult)
            return outcome

        try:
            with pytest.raises(ToolError, match="open one first"):
                await call("browser_look")
            page = await call("browser_open", url=f"http://{site}/")
            assert page.text.startswith("Shop") and "[Not loaded: " in page.text
            assert page.label.origins == {"web:127.0.0.1"}
            clicked = await call("browser_click", ref=reference(page, "Count"))
            assert "Counted 1" in clicked.text
            found = await call(
                "browser_type", ref=reference(clicked, "Query"), text="tea", submit=True
            )
            assert "Found ['tea']" in found.text
            picture = await call("browser_screenshot", path="shop.png")
            assert disk.read("shop.png").startswith(b"\x89PNG") and picture.files == ("shop.png",)
            with pytest.raises(ToolError, match="may not be reached"):
                await call("browser_open", url="http://127.0.0.1:9998/")
            with pytest.raises(ToolError, match="may not be reached"):
                await call("browser_open", url=f"http://{site}/inside")
            with pytest.raises(ToolError, match="addresses of the web"):
                await call("browser_open", url="file:///etc/passwd")
            with pytest.raises(ToolError, match="no reference"):
                await call("browser_click", ref="e1 >> css=a")
            with pytest.raises(ToolError, match="open one first"):
                await call("browser_look", pid=2)
        finally:
            await browser.close()
            disk.close()

    asyncio.run(main())


def test_contracts(tmp_path: Path) -> None:
    tools: dict[str, Tool] = {
        tool.name: tool for tool in Chromium(Egress(lambda app: []), _no_disk).tools()
    }
    acting = {name for name, tool in tools.items() if "send" in map(str, tool.contract.effects)}
    assert acting == {"browser_click", "browser_type"}
    assert {tool.capability for tool in tools.values()} == {"browser"}


def _no_disk(owner: str) -> Disk:
    raise AssertionError(owner)
