"""The tools of memory, as a process calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from oneiros.devices.memory import memory
from oneiros.errors import DiskError
from oneiros.kernel.events import Budget
from oneiros.kernel.label import USER, Label
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import CallContext, Tool, ToolError, ToolResult
from oneiros.memory.disk import Disk
from oneiros.memory.index import Index
from oneiros.memory.pages import Page, PageKind
from oneiros.memory.recall import ContextMemory

SAID = Label.of(USER)
CALL = CallContext(pid=1, call_id="1.1", owner="ann", app="assistant", label=SAID)


@dataclass
class Devices:
    """Ann's disk and memory, and the tools on them."""

    disk: Disk
    memory: ContextMemory
    states: dict[int, ProcessState]
    tools: Mapping[str, Tool]

    def call(self, name: str, call_id: str = "1.1", /, **arguments: object) -> ToolResult:
        outcome = asyncio.run(self.tools[name].run(arguments, replace(CALL, call_id=call_id)))
        assert isinstance(outcome, ToolResult)
        return outcome

    def reconcile(self, name: str, call_id: str, /, **arguments: object) -> ToolResult | None:
        tool = self.tools[name]
        assert tool.reconcile is not None

        async def find() -> ToolResult | None:
            assert tool.reconcile is not None
            return await tool.reconcile(arguments, replace(CALL, call_id=call_id))

        return asyncio.run(find())


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    disk = Disk(tmp_path / "files", tmp_path / "store", "ann")
    index = Index(tmp_path / "index", None)
    states: dict[int, ProcessState] = {}
    kept = ContextMemory(lambda owner: disk, index, states.get)
    tools = {tool.name: tool for tool in memory(lambda owner: disk, kept)}
    yield Devices(disk, kept, states, tools)
    kept.close()
    index.close()
    disk.close()


def test_a_process_recalls_what_left_its_context(devices: Devices) -> None:
    text = "The garage code is 7319."
    page = Page(
        id=3,
        kind=PageKind.USER,
        message=sha256(text.encode()).hexdigest(),
        tokens=9,
        label=SAID,
    )
    state = ProcessState(
        pid=1,
        seq=1,
        owner="ann",
        app="assistant",
        program="agent",
        model="m",
        title="",
        parent=None,
        priority=0,
        budget=Budget(),
        capabilities=frozenset(),
        evicted=(page,),
    )
    devices.states[1] = state
    devices.memory.evicted(state, page, text)
    found = devices.call("recall", query="garage code")
    assert found.text == f"[message 3, user] {text}"
    assert isinstance(found.data, list)
    assert found.data[0]["message"] == 3
    assert "Nothing" in devices.call("recall", query="umbrella").text


def test_what_is_remembered_is_a_file_and_can_be_forgotten(devices: Devices) -> None:
    kept = devices.call("remember", fact="Ann drinks tea.")
    assert kept.files == ("memory/ann-drinks-tea.md",)
    assert devices.disk.read(kept.files[0]) == b"Ann drinks tea.\n"
    assert devices.disk.label(kept.files[0]) == SAID
    assert "deleted" in devices.call("forget", "1.2", path=kept.files[0]).text
    with pytest.raises(DiskError, match="no such fact"):
        devices.call("forget", "1.3", path=kept.files[0])


def test_a_call_of_unknown_outcome_is_found_on_the_disk(devices: Devices) -> None:
    assert devices.reconcile("remember", "1.1", fact="Ann drinks tea.") is None
    kept = devices.call("remember", "1.1", fact="Ann drinks tea.")
    assert devices.reconcile("remember", "1.1", fact="Ann drinks tea.") == kept
    assert devices.reconcile("forget", "1.2", path=kept.files[0]) is None
    gone = devices.call("forget", "1.2", path=kept.files[0])
    assert devices.reconcile("forget", "1.2", path=kept.files[0]) == gone


def test_a_document_is_read_in_parts_with_its_label(devices: Devices) -> None:
    text = "".join(f"Paragraph {number}: {'word ' * 60}\n\n" for number in range(40))
    label = Label.of("web:example.org")
    devices.disk.write("page.md", text.encode(), call_id="0", label=label)
    first = devices.call("read_document", path="page.md")
    assert first.text.startswith("[Part 1 of 4. Part 2 is next.]\nParagraph 0:")
    assert first.label == label
    read = [devices.call("read_document", path="page.md", part=n).data for n in (1, 2, 3, 4)]
    assert "".join(part["text"] for part in read if isinstance(part, dict)) == text
    with pytest.raises(DiskError, match="1 to 4"):
        devices.call("read_document", path="page.md", part=5)
    with pytest.raises(ToolError, match="part"):
        devices.call("read_document", path="page.md", part=0)
    with pytest.raises(DiskError):
        devices.call("read_document", path="../secret")


def test_parts_fit_what_a_call_may_put_into_the_context(devices: Devices) -> None:
    devices.disk.write("long.txt", ("word " * 5_000).encode(), call_id="0", label=SAID)
    result = devices.call("read_document", path="long.txt")
    assert len(result.text) <= devices.tools["read_document"].contract.output_limit
