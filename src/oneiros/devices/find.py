"""Searching an owner's files by words and meaning, with citations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.files import ASKED
from oneiros.kernel.contract import Contract
from oneiros.kernel.label import join_all
from oneiros.kernel.tools import CallContext, Tool, ToolResult
from oneiros.memory.disk import Disk
from oneiros.memory.index import FILE, Index
from oneiros.memory.indexing import sync_before_search

_HITS = 5


def find(disks: Callable[[str], Disk], index: Index) -> Tool:
    """The tool that searches files.

    Args:
        disks: the disk of an owner.
        index: that has their files, or gets them now.
    """

    @device(contract=Contract(private=True, requested_by=ASKED))
    async def search_files(
        context: CallContext,
        query: Annotated[str, Field(description="words, or a question")],
    ) -> ToolResult:
        """Search the user's files: documents, notes, code. Brings passages with file and place."""

        def search() -> ToolResult:
            sync_before_search(index, disks(context.owner))
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
