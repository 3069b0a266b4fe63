"""What MCP servers' tools bring, as results of ours."""

from __future__ import annotations

import asyncio
import base64

import mcp_types as types
import pytest

from oneiros.devices.mcp_results import converted
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, ToolError, ToolResult

ASKED = Label.of("user", "web:a.example", readers=["ann"])
CONTEXT = CallContext(pid=7, call_id="7.2", owner="ann", app="assistant", label=ASKED)
PNG = base64.b64encode(b"\x89PNG").decode()


class Files:
    def __init__(self) -> None:
        self.written: dict[str, bytes] = {}

    def write(self, path: str, data: bytes, *, call_id: str, label: Label) -> None:
        assert (call_id, label) == ("7.2", ASKED.join(Label.of("mcp:it")))
        self.written[path] = data


def result(*content: types.ContentBlock, files: Files | None = None, **more: object) -> ToolResult:
    called = types.CallToolResult(content=list(content), **more)
    return asyncio.run(converted("it", called, CONTEXT, files))


def test_texts_and_data() -> None:
    brought = result(
        types.TextContent(type="text", text="one"),
        types.TextContent(type="text", text="two"),
        structured_content={"n": 2},
    )
    assert (brought.text, brought.data) == ("one\ntwo", {"n": 2})
    assert brought.label == Label.of("mcp:it")
    assert result(structured_content={"ö": [1]}).text == '{"ö": [1]}'
    assert "nothing" in result().text


def test_bytes_become_files_where_there_is_a_disk() -> None:
    files = Files()
    blob = types.BlobResourceContents(uri="x:y", mime_type="application/pdf", blob="JVBERg==")
    brought = result(
        types.ImageContent(type="image", data=PNG, mime_type="image/png"),
        types.AudioContent(type="audio", data=PNG, mime_type="../../etc"),
        types.EmbeddedResource(type="resource", resource=blob),
        files=files,
    )
    assert brought.files == ("mcp/7.2-1.png", "mcp/7.2-2.bin", "mcp/7.2-3.pdf")
    assert files.written["mcp/7.2-3.pdf"] == b"%PDF"
    assert "4 bytes: file mcp/7.2-1.png" in brought.text
    without = result(types.ImageContent(type="image", data=PNG, mime_type="image/png"))
    assert without.files == () and "not kept" in without.text


def test_what_is_no_base64_is_said() -> None:
    files = Files()
    image = types.ImageContent(type="image", data="%%%", mime_type="image/png")
    assert "not sound base64" in result(image, files=files).text
    assert files.written == {}


def test_resources_are_texts_or_links() -> None:
    text = types.TextResourceContents(uri="file:///a.txt", text="hello")
    link = types.ResourceLink(type="resource_link", name="a\x1b", uri="https://example.org/b")
    brought = result(types.EmbeddedResource(type="resource", resource=text), link)
    assert brought.text == "[file:///a.txt]\nhello\n[link to a: https://example.org/b]"


def test_an_error_is_one_and_bounded() -> None:
    with pytest.raises(ToolError, match="it could not do it: no such city") as caught:
        text = types.TextContent(type="text", text="no such city" + "!" * 100_000)
        result(text, is_error=True)
    assert len(str(caught.value)) < 5_000
