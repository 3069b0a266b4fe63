"""Searching an owner's files by words and meaning, with citations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.kernel.contract import Contract
from oneiros.kernel.label import join_all
from oneiros.kernel.tools import CallContext, Tool, ToolResult
from oneiros.memory.disk import Disk
from oneiros.memory.index import FILE, Index
from oneiros.memory.indexing import sync_disk

_HITS = 5
# Passages embedded before a search, at most: what was just written. A folder that was never indexed
# is found by its words, and embedded in the background.
_EMBEDDED = 32
_SECONDS = 5.0  # for finding what changed, likewise


def find(disks: Callable[[str], Disk], index: Index) -> Tool:
    """The tool that searches files.

    Args:
        disks: the disk of an owner.
        index: that has their files, or gets them now.
    """

    @device(contract=Contract(private=True))
    async def search_files(
        context: CallContext,
        query: Annotated[str, Field(description="words, or a question")],
    ) -> ToolResult:
        """Search the user's files: documents, notes, code. Brings passages with file and place."""

        def search() -> ToolResult:
            end = time.monotonic() + _SECONDS
            disk = disks(context.owner)
            sync_disk(index, disk, embed=False, stopped=lambda: time.monotonic() > end)
            index.embed(context.owner, limit=_EMBEDDED)
            hits = index.search(query, context.owner, limit=_HITS, kinds=[FILE])
            if not hits:
                return ToolResult("No file has anything like that.", data=[])
            data = [
                {
                    "path": hit.path,
                    "start": hit.start,
                    "end": hit.end,
                    "pages": hit.pages,
                    "text": hit.text,
                }
                for hit in hits
            ]
            text = "\n\n".join(f"[{hit.citation}]\n{hit.text}" for hit in hits)
            return ToolResult(text, data=data, label=join_all(hit.label for hit in hits))

        return await asyncio.to_thread(search)

    return search_files
