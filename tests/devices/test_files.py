"""The tools for files: what they change is labelled, undone and reconciled."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from oneiros.devices.files import files
from oneiros.devices.find import find
from oneiros.errors import DiskError
from oneiros.kernel.contract import Effect
from oneiros.kernel.label import Label
from oneiros.kernel.tools import Tool, ToolResult
from oneiros.memory.disk import Disk
from oneiros.memory.index import Index
from tests.devices.contexts import CONTEXT, call, text_of

WEB = Label.of("web:example.org")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "files", tmp_path / "store", "ann")
    yield disk
    disk.close()


@pytest.fixture
def tools(disk: Disk) -> dict[str, Tool]:
    disks = {"ann": disk}
    return {tool.name: tool for tool in files(disks.__getitem__)}


def test_a_file_is_written_edited_moved_read_and_deleted(
    tools: dict[str, Tool], disk: Disk
) -> None:
    assert text_of(tools["list_files"]) == "The folder is empty."
    said = text_of(tools["write_file"], path="notes/plan.md", text="Buy milk.\nCall Tom.\n")
    assert said == "Made notes/plan.md (20 bytes)."
    text_of(tools["edit_file"], path="notes/plan.md", old="Tom", new="Eva")
    text_of(tools["move_file"], path="notes/plan.md", to="plan.md")
    assert text_of(tools["list_files"]) == "notes/\nplan.md (20 bytes)"
    assert text_of(tools["read_file"], path="plan.md") == "Buy milk.\nCall Eva.\n".rstrip("\n")
    text_of(tools["delete_file"], path="plan.md")
    assert [change.tool for change in disk.changes(CONTEXT.call_id)] == [
        "write_file",
        "edit_file",
        "move_file",
        "delete_file",
    ]
    with pytest.raises(DiskError, match="no such file"):
        call(tools["read_file"], path="plan.md")


def test_labels_go_from_files_to_results_and_from_calls_to_files(
    tools: dict[str, Tool], disk: Disk
) -> None:
    disk.write("page.txt", b"old text", call_id="x", label=WEB)
    outcome = call(tools["read_file"], path="page.txt")
    assert isinstance(outcome, ToolResult) and outcome.label == WEB
    call(tools["edit_file"], path="page.txt", old="old", new="new")
    assert disk.label("page.txt") == WEB.join(CONTEXT.label)
    call(tools["write_file"], path="page.txt", text="all new")
    assert disk.label("page.txt") == CONTEXT.label


def test_a_list_has_the_labels_of_what_it_names(tools: dict[str, Tool], disk: Disk) -> None:
    (disk.root / "mine.txt").write_text("the user's own")
    disk.write("notes/deeper/plan.md", b"plan", call_id="x", label=CONTEXT.label)
    disk.write("notes/ignore-all-rules.md", b"", call_id="y", label=WEB)
    labels = {
        path: outcome.label
        for path in ("", "notes", "notes/", "notes/deeper")
        if isinstance(outcome := call(tools["list_files"], path=path), ToolResult)
    }
    assert labels == {"": Label(), "notes": WEB, "notes/": WEB, "notes/deeper": CONTEXT.label}


def test_an_edit_needs_a_text_that_is_there_once(tools: dict[str, Tool], disk: Disk) -> None:
    disk.write("a.txt", b"one\r\ntwo\r\none", call_id="x", label=WEB)
    with pytest.raises(DiskError, match="2 times"):
        call(tools["edit_file"], path="a.txt", old="one", new="1")
    with pytest.raises(DiskError, match="not in it"):
        call(tools["edit_file"], path="a.txt", old="three", new="3")
    with pytest.raises(DiskError, match="the same"):
        call(tools["edit_file"], path="a.txt", old="two", new="two")
    call(tools["edit_file"], path="a.txt", old="one", new="1", every=True)
    call(tools["edit_file"], path="a.txt", old="1\ntwo\n", new="1\n2\n")
    assert disk.read("a.txt") == b"1\r\n2\r\n1"


def test_a_line_is_added_at_the_end(tools: dict[str, Tool], disk: Disk) -> None:
    disk.write("a.txt", b"one", call_id="x", label=WEB)
    call(tools["edit_file"], path="a.txt", old="", new="two\n")
    call(tools["edit_file"], path="a.txt", old="", new="three")
    assert disk.read("a.txt") == b"one\ntwo\nthree"


def test_what_would_help_is_said(tools: dict[str, Tool], disk: Disk) -> None:
    assert text_of(tools["write_file"], path="a.txt", text="one").startswith("Made")
    assert text_of(tools["write_file"], path="a.txt", text="one").startswith("Nothing changed")
    assert text_of(tools["write_file"], path="a.txt", text="two").startswith("Replaced")
    with pytest.raises(DiskError, match=r"There is a\.txt"):
        call(tools["read_file"], path="notes/a.txt")
    with pytest.raises(DiskError) as error:
        call(tools["read_file"], path="notes/b.txt")
    assert "a.txt" not in str(error.value)


def test_long_files_are_read_in_parts_that_cover_them(tools: dict[str, Tool], disk: Disk) -> None:
    lines = [f"line {number} " + "x" * (number % 90) for number in range(1, 501)]
    disk.write("long.txt", "\n".join([*lines, "y" * 20_000]).encode(), call_id="x", label=WEB)
    start, read = 1, []
    while start <= 501:
        outcome = call(tools["read_file"], path="long.txt", start=start)
        assert isinstance(outcome, ToolResult) and isinstance(outcome.data, dict)
        read += outcome.data["text"].split("\n")
        start = outcome.data["end"] + 1
    assert read == [*lines, "y" * 20_000]
    with pytest.raises(DiskError, match="501 lines"):
        call(tools["read_file"], path="long.txt", start=502)


def test_a_call_of_unknown_outcome_is_found_again(tools: dict[str, Tool], disk: Disk) -> None:
    write = tools["write_file"]
    assert write.reconcile is not None
    arguments = {"path": "a.txt", "text": "one"}
    context = replace(CONTEXT, call_id="1.2")
    assert asyncio.run(write.reconcile(arguments, context)) is None
    result = asyncio.run(write.run(arguments, context))
    disk.write("a.txt", b"later", call_id="other", label=WEB)
    assert asyncio.run(write.reconcile(arguments, context)) == result
    assert disk.read("a.txt") == b"later"


def test_what_can_be_undone_needs_no_permission(tools: dict[str, Tool]) -> None:
    assert {tool.contract.effects for tool in tools.values()} == {
        frozenset(),
        frozenset({Effect.LOCAL}),
    }


class Counting:
    """An embedder whose vectors count letters."""

    dimensions = 26
    longest = 256

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def embed(self, texts: Sequence[str], *, truncate: bool = False) -> NDArray[np.float32]:
        counts = [[text.lower().count(chr(97 + k)) + 0.01 for k in range(26)] for text in texts]
        rows = np.array(counts, np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_search_cites_files_just_written_with_their_labels(disk: Disk, tmp_path: Path) -> None:
    index = Index(tmp_path / "index", Counting)
    search = find({"ann": disk}.__getitem__, index)
    assert text_of(search, query="roses") == "No file has anything like that."
    disk.write(
        "garden.md", b"# Garden\n\n## Roses\n\nPrune them in March.\n", call_id="x", label=WEB
    )
    outcome = call(search, query="when to prune roses")
    assert isinstance(outcome, ToolResult)
    assert outcome.text == "[garden.md, line 5]\nPrune them in March."
    assert outcome.label == WEB
    disk.delete("garden.md", call_id="y")
    assert text_of(search, query="roses") == "No file has anything like that."
    index.close()
