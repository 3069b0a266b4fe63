"""What an MCP server's tool brought, as a result of ours: text, data, files, links."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import mimetypes
from typing import Protocol

import mcp_types as types

from oneiros.devices.mcp_tools import plain
from oneiros.kernel.label import Label
from oneiros.kernel.tools import CallContext, ToolError, ToolResult

_LONGEST_ERROR = 4_000  # characters
_MOST_FILES = 20


class FileStore(Protocol):
    """Where files of results go: a principal's disk."""

    def write(self, path: str, data: bytes, *, call_id: str, label: Label) -> object:
        """Write a file, found again by the call."""
        ...


async def converted(
    server: str, result: types.CallToolResult, context: CallContext, files: FileStore | None
) -> ToolResult:
    """A server's result as ours. Images, sounds and other bytes become files.

    Raises:
        ToolError: the server says that the call failed.
    """
    label = Label.of(f"mcp:{server}")
    parts: list[str] = []
    written: list[str] = []
    for block in result.content:
        text, data, kind = _read(block)
        if data is not None and files is not None and len(written) < _MOST_FILES:
            name = f"mcp/{context.call_id}-{len(written) + 1}{_suffix(kind)}"
            await asyncio.to_thread(
                files.write, name, data, call_id=context.call_id, label=context.label.join(label)
            )
            written.append(name)
            text = f"[{kind}, {len(data):,} bytes: file {name}]"
        parts.append(text)
    text = _sound("\n".join(part for part in parts if part))
    if result.is_error:
        said = text[:_LONGEST_ERROR] or "it does not say why"
        raise ToolError(f"The server {server} could not do it: {said}")
    data = result.structured_content
    if not text and data is not None:
        text = _sound(json.dumps(data, ensure_ascii=False))
    return ToolResult(text or "Done; it answered nothing.", data, tuple(written), label)


def _read(block: types.ContentBlock) -> tuple[str, bytes | None, str]:
    """A block's text, its bytes where it has some, and what they are."""
    match block:
        case types.TextContent():
            return block.text, None, ""
        case types.ImageContent() | types.AudioContent():
            return _bytes(block.data, block.mime_type)
        case types.ResourceLink():
            said = f" ({plain(block.description, 200)})" if block.description else ""
            return f"[link to {plain(block.name, 100)}{said}: {plain(block.uri, 500)}]", None, ""
        case types.EmbeddedResource():
            inner = block.resource
            if isinstance(inner, types.TextResourceContents):
                return f"[{plain(inner.uri, 500)}]\n{inner.text}", None, ""
            return _bytes(inner.blob, inner.mime_type or "application/octet-stream")


def _bytes(data: str, kind: str) -> tuple[str, bytes | None, str]:
    kind = plain(kind, 60)
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return f"[{kind} that is not sound base64]", None, kind
    return f"[{kind}, {len(decoded):,} bytes, not kept]", decoded, kind


def _suffix(kind: str) -> str:
    return mimetypes.guess_extension(kind) or ".bin"


def _sound(text: str) -> str:
    """The text without halves of surrogate pairs, which no file can hold."""
    return text.encode("utf-8", "replace").decode()
