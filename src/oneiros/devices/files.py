"""Files: the tools that list, read and change an owner's files. Every change can be undone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from oneiros.devices.define import device
from oneiros.errors import DiskError
from oneiros.kernel.contract import Contract, Effect
from oneiros.kernel.tools import CallContext, Json, Reconcile, Tool, ToolResult
from oneiros.memory.disk import Change, Disk, Entry, File
from oneiros.memory.extraction import ExtractedText, extract_text

Disks = Callable[[str], Disk]  # the disk of an owner

# How people ask for what is in their files.
ASKED = (
    *("file", "folder", "document", "note", "notes", "text", "list", "table", "diary", "log"),
    *("read", "open", "search", "look up"),
)

_ENTRIES = 200  # of a folder that are shown
_CHARACTERS = 6_000  # of a file that are shown at once

_WRITING = ("write", "save", "create", "make", "store", "put", "copy", "add", "note", "draft")
_EDITING = ("edit", "change", "replace", "correct", "add", "update", "set", "remove", "append")
_Path = Annotated[str, Field(description="in the user's folder, such as plan.md")]


def files(disks: Disks) -> list[Tool]:
    """The tools for files.

    Args:
        disks: the disk of an owner.
    """
    return [
        _list_files(disks),
        _read_file(disks),
        _write_file(disks),
        _edit_file(disks),
        _move_file(disks),
        _delete_file(disks),
    ]


def _list_files(disks: Disks) -> Tool:
    @device(contract=Contract(private=True, requested_by=ASKED))
    async def list_files(
        context: CallContext,
        path: Annotated[str, Field(description='of the folder; "" is the user\'s own')] = "",
    ) -> ToolResult:
        """List the files and folders in a folder."""
        disk = disks(context.owner)
        entries = await asyncio.to_thread(disk.list, path)
        label = await asyncio.to_thread(disk.names_label, path)
        shown = [_line(entry) for entry in entries[:_ENTRIES]]
        if len(entries) > _ENTRIES:
            shown.append(f"[{len(entries) - _ENTRIES} more]")
        data = [{"path": entry.path, "kind": entry.kind, "size": entry.size} for entry in entries]
        return ToolResult("\n".join(shown) or "The folder is empty.", data=data, label=label)

    return list_files


def _line(entry: Entry) -> str:
    if entry.kind == "folder":
        return f"{entry.path}/"
    if entry.kind == "file":
        return f"{entry.path} ({entry.size:,} bytes)"
    return f"{entry.path} ({entry.kind})"


def _read_file(disks: Disks) -> Tool:
    @device(contract=Contract(private=True, requested_by=ASKED))
    async def read_file(
        context: CallContext,
        path: _Path,
        start: Annotated[int, Field(description="first line", ge=1)] = 1,
    ) -> ToolResult:
        """Read a file: text, code, PDF, Word or HTML. Of a long one, the lines from `start` on."""

        def read() -> ToolResult:
            file = _get(disks(context.owner), path)
            extracted = extract_text(file.path, file.data)
            text, first, last, count = _part(file.path, extracted, start)
            data = {"path": file.path, "text": text, "start": first, "end": last, "lines": count}
            head = ""
            if (first, last) != (1, count):
                more = f" Go on with start={last + 1}." if last < count else ""
                head = (
                    f"[Lines {first} to {last} of {count}{_pages(extracted, first, last)}.{more}]\n"
                )
            return ToolResult(head + text, data=data, label=file.label)

        return await asyncio.to_thread(read)

    return read_file


def _part(path: str, extracted: ExtractedText, start: int) -> tuple[str, int, int, int]:
    """Lines that are shown at once: their text, the first, the last, and how many there are."""
    lines = extracted.text.removesuffix("\n").split("\n")
    if start > len(lines):
        raise DiskError(f"{path}: has {len(lines)} lines, and line {start} is not among them.")
    taken = 0
    for end in range(start, len(lines) + 1):
        taken += len(lines[end - 1]) + 1
        if taken > _CHARACTERS:
            # At least one line, or reading on would not go on.
            end = max(end - 1, start)
            break
    return "\n".join(lines[start - 1 : end]), start, end, len(lines)


def _pages(extracted: ExtractedText, first: int, last: int) -> str:
    if not extracted.page_starts:
        return ""
    return f", pages {extracted.page(first)} to {extracted.page(last)}"


def _write_file(disks: Disks) -> Tool:
    def said(changes: Sequence[Change]) -> ToolResult:
        (change,) = changes
        size = change.after.size if change.after else 0
        if change.before is None:
            verb = "Made"
        else:
            same = change.after is not None and change.after.sha256 == change.before.sha256
            verb = "Nothing changed in" if same else "Replaced"
        return _result(f"{verb} {change.path} ({size:,} bytes).", changes)

    @device(contract=_changing("path", asked=_WRITING), reconcile=_reconcile(disks, said))
    async def write_file(
        context: CallContext,
        path: _Path,
        text: Annotated[str, Field(description="the whole content")],
    ) -> ToolResult:
        """Make a text file, or replace a whole one."""
        change = await asyncio.to_thread(
            lambda: disks(context.owner).write(
                path,
                text.encode(errors="replace"),
                call_id=context.call_id,
                label=context.label,
                tool="write_file",
                pid=context.pid,
            )
        )
        return said([change])

    return write_file


def _edit_file(disks: Disks) -> Tool:
    def said(changes: Sequence[Change]) -> ToolResult:
        return _result(f"Changed {changes[-1].path}.", changes)

    @device(contract=_changing("path", asked=_EDITING), reconcile=_reconcile(disks, said))
    async def edit_file(
        context: CallContext,
        path: _Path,
        old: Annotated[str, Field(description='text that is there once, exactly; "": the end')],
        new: Annotated[str, Field(description="what takes its place")],
        every: Annotated[bool, Field(description="replace it wherever it is")] = False,
    ) -> ToolResult:
        """Replace a text in a file by another, or add to its end."""

        def edit() -> ToolResult:
            disk = disks(context.owner)
            file = _get(disk, path)
            change = disk.write(
                path,
                _edited(file.path, file.data, old, new, every=every),
                call_id=context.call_id,
                label=context.label.join(file.label),  # the rest of it stays
                tool="edit_file",
                pid=context.pid,
                replacing=file.version.sha256,
            )
            return said([change])

        return await asyncio.to_thread(edit)

    return edit_file


def _edited(path: str, data: bytes, old: str, new: str, *, every: bool) -> bytes:
    """A file's content with a text replaced, in the file's own line ends.

    Raises:
        DiskError: the text is not there, or several times.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DiskError(f"{path}: is no text in UTF-8, so it cannot be edited.") from error
    if old not in text and "\r\n" in text:
        old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
    if old == new:
        raise DiskError(f"{path}: `old` and `new` are the same. Say in `new` what it becomes.")
    if not old:
        gap = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{gap}{new}".encode(errors="replace")
    count = text.count(old)
    if count == 0:
        raise DiskError(
            f"{path}: the text `old` is not in it. Read the file and copy `old` exactly, or add "
            "`new` to the end with an empty `old`."
        )
    if count > 1 and not every:
        raise DiskError(
            f"{path}: the text `old` is in it {count} times. Give more of what is around it, or "
            "set `every`."
        )
    return text.replace(old, new).encode(errors="replace")


def _move_file(disks: Disks) -> Tool:
    def said(changes: Sequence[Change]) -> ToolResult:
        return _result(f"Moved {changes[-1].path} to {changes[-1].target}.", changes)

    contract = _changing("path", "to", asked=("move", "rename", "put"))

    @device(contract=contract, reconcile=_reconcile(disks, said))
    async def move_file(context: CallContext, path: _Path, to: _Path) -> ToolResult:
        """Move or rename a file."""
        change = await asyncio.to_thread(
            lambda: disks(context.owner).move(
                path, to, call_id=context.call_id, tool="move_file", pid=context.pid
            )
        )
        return said([change])

    return move_file


def _delete_file(disks: Disks) -> Tool:
    def said(changes: Sequence[Change]) -> ToolResult:
        return _result(f"Deleted {changes[-1].path}; the user can undo that.", changes)

    @device(
        contract=_changing("path", asked=("delete", "remove")), reconcile=_reconcile(disks, said)
    )
    async def delete_file(context: CallContext, path: _Path) -> ToolResult:
        """Delete a file."""
        change = await asyncio.to_thread(
            lambda: disks(context.owner).delete(
                path, call_id=context.call_id, tool="delete_file", pid=context.pid
            )
        )
        return said([change])

    return delete_file


def _get(disk: Disk, path: str) -> File:
    """A file. Raises DiskError: there is none; of one by this name outside of folders it tells."""
    try:
        return disk.get(path)
    except DiskError as error:
        name = path.rpartition("/")[2]
        # Nothing is said of names that the caller does not know: they may be others' words.
        if name != path and any(entry.path == name for entry in disk.list("")):
            raise DiskError(f"{error} There is {name}.") from error
        raise


def _changing(*critical: str, asked: tuple[str, ...]) -> Contract:
    # Private as reading is: whether an edit found its text, or a path is taken, tells of content.
    return Contract(
        effects=frozenset({Effect.LOCAL}),
        critical=critical,
        requested_by=asked,
        undo=True,
        private=True,
    )


def _reconcile(disks: Disks, said: Callable[[Sequence[Change]], ToolResult]) -> Reconcile:
    """Finds what a call of unknown outcome changed: the disk knows it by the call's id."""

    async def happened(arguments: Json, context: CallContext) -> ToolResult | None:
        changes = await asyncio.to_thread(disks(context.owner).changes, context.call_id)
        return said(changes) if changes else None

    return happened


def _result(text: str, changes: Sequence[Change]) -> ToolResult:
    written = tuple(change.target or change.path for change in changes if change.after)
    return ToolResult(text, data=[_data(change) for change in changes], files=written)


def _data(change: Change) -> Mapping[str, object]:
    return {"change": change.id, "path": change.path, "target": change.target}
