"""Memory: what left the context, what the user wants remembered, documents read in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.devices.files import ASKED
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.tools import CallContext, Json, Tool, ToolError, ToolResult
from oneiros.memory import facts
from oneiros.memory.disk import Disk
from oneiros.memory.documents import read_part
from oneiros.memory.extraction import extract_text
from oneiros.memory.recall import ContextMemory

_RECALLED = 4  # passages


def memory(disks: Callable[[str], Disk], context_memory: ContextMemory) -> list[Tool]:
    """The tools of memory.

    Args:
        disks: the disk of an owner.
        context_memory: what left the contexts of processes.
    """
    return [
        _recall(context_memory),
        _remember(disks),
        _forget(disks),
        _read_document(disks),
    ]


def _recall(context_memory: ContextMemory) -> Tool:
    asked = ("recall", "remember", "earlier", "before", "said", "told", "talked", "conversation")

    @device(contract=Contract(private=True, requested_by=asked))
    async def recall(
        context: CallContext,
        query: Annotated[str, Field(description="words of what was said")],
    ) -> ToolResult:
        """Find and quote earlier messages of this conversation that left the context."""
        state = context_memory.state(context.pid)
        if state is None:
            raise ToolError("Only processes have a context that something can leave.")
        found = await asyncio.to_thread(context_memory.recall, state, query, _RECALLED)
        if not found:
            return ToolResult("Nothing that was said before and left the context fits that.")
        data = [{"message": one.page_id, "text": one.text, "score": one.score} for one in found]
        return ToolResult("\n".join(map(str, found)), data=data)

    return recall


def _remember(disks: Callable[[str], Disk]) -> Tool:
    async def happened(arguments: Json, context: CallContext) -> ToolResult | None:
        """Whether the file was written before the call was interrupted."""
        for change in await asyncio.to_thread(disks(context.owner).changes, context.call_id):
            return _kept(change.path)
        return None

    contract = Contract(
        effects=frozenset({Effect.LOCAL}),
        requested_by=("remember", "keep in mind", "note", "do not forget", "don't forget"),
        undo=True,
        private=True,  # its file's name tells what was known before
    )

    @device(contract=contract, reconcile=happened)
    async def remember(
        context: CallContext,
        fact: Annotated[str, Field(description="a sentence that will be understood on its own")],
    ) -> ToolResult:
        """Remember a fact for all later conversations, because the user asks for it."""
        kept = await asyncio.to_thread(
            lambda: facts.remember(
                disks(context.owner),
                fact,
                call_id=context.call_id,
                label=context.label,
                pid=context.pid,
            )
        )
        return _kept(kept.path)

    return remember


def _kept(path: str) -> ToolResult:
    return ToolResult(f"Remembered, as the file {path}.", files=(path,))


def _forget(disks: Callable[[str], Disk]) -> Tool:
    async def happened(arguments: Json, context: CallContext) -> ToolResult | None:
        """Whether the file was deleted before the call was interrupted."""
        for change in await asyncio.to_thread(disks(context.owner).changes, context.call_id):
            return _forgotten(change.path)
        return None

    @device(
        contract=Contract(
            effects=frozenset({Effect.LOCAL}),
            critical=("path",),
            requested_by=("forget", "do not remember", "delete", "remove"),
            undo=True,
            private=True,  # whether there is such a fact
        ),
        reconcile=happened,
    )
    async def forget(
        context: CallContext,
        path: Annotated[str, Field(description="of its file, such as memory/likes-tea.md")],
    ) -> ToolResult:
        """Forget a fact that the user asked to remember."""
        change = await asyncio.to_thread(
            lambda: facts.forget(
                disks(context.owner), path, call_id=context.call_id, pid=context.pid
            )
        )
        return _forgotten(change.path)

    return forget


def _forgotten(path: str) -> ToolResult:
    return ToolResult(f"Forgotten: {path} is deleted, which can be undone.", files=(path,))


def _read_document(disks: Callable[[str], Disk]) -> Tool:
    @device(contract=Contract(private=True, requested_by=ASKED))
    async def read_document(
        context: CallContext,
        path: Annotated[str, Field(description="of the file")],
        part: Annotated[int, Field(description="its number, from 1", ge=1)] = 1,
    ) -> ToolResult:
        """Read a part of a long document: a text, PDF, Word file or web page on the disk."""

        def read() -> ToolResult:
            file = disks(context.owner).get(path)
            found = read_part(extract_text(file.path, file.data).text, part)
            data = {"part": found.number, "parts": found.count, "text": found.text}
            return ToolResult(str(found), data=data, label=file.label)

        return await asyncio.to_thread(read)

    return read_document
