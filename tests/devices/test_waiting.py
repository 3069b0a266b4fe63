"""Asking a person, and processes that start, wait for and write to each other."""

from dataclasses import replace

import pytest

from oneiros.devices.human import human
from oneiros.devices.processes import processes
from oneiros.errors import ProcessError
from oneiros.kernel import events as e
from oneiros.kernel.label import Label
from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import Tool, ToolError, ToolResult, Wake
from tests.devices.contexts import CONTEXT, call, text_of


def test_a_question_to_a_person_is_a_wait() -> None:
    assert call(human(), question=" Which? ", choices=["red", "blue"]) == Wake(
        question="Which?\n1. red\n2. blue"
    )
    with pytest.raises(ToolError, match="empty"):
        call(human(), question=" ")
    with pytest.raises(ToolError, match="5,000 characters"):
        call(human(), question="x" * 5_000)


class Port:
    """Processes 1 (of ann), 2 (its child), 3 (of ann), 4 (of bob), 5 (of ann, over)."""

    def __init__(self) -> None:
        self.spawned: list[tuple[object, ...]] = []
        self.sent: list[tuple[object, ...]] = []

    async def spawn(
        self,
        parent: int,
        task: str,
        tools: tuple[str, ...] | None = None,
        budget: e.Budget | None = None,
    ) -> int:
        if task == "too much":
            raise ProcessError("Process 1 has 5 tokens left.")
        self.spawned.append((parent, task, tools, budget))
        return 2

    async def send(
        self, pid: int, text: str, *, sender: str = "user", label: Label | None = None
    ) -> None:
        self.sent.append((pid, text, sender, label))

    def state(self, pid: int) -> ProcessState:
        if not 1 <= pid <= 5:
            raise ProcessError(f"There is no process {pid}.")
        state = ProcessState(
            pid=pid,
            seq=1,
            owner="bob" if pid == 4 else "ann",
            app="assistant",
            program="agent",
            model="m",
            title="",
            parent=1 if pid == 2 else None,
            priority=0,
            budget=e.Budget(),
            capabilities=frozenset(),
        )
        return replace(state, end=e.Ended(status="done")) if pid == 5 else state


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def tools(port: Port) -> dict[str, Tool]:
    return {tool.name: tool for tool in processes(port, now=lambda: 1000.0)}


def test_a_child_is_started_with_what_it_may_use(port: Port, tools: dict[str, Tool]) -> None:
    result = call(tools["spawn"], task="Count", tools=["calculate"], tokens=50)
    assert isinstance(result, ToolResult)
    assert result.data == {"pid": 2}
    assert port.spawned == [(1, "Count", ("calculate",), e.Budget(tokens=50))]
    with pytest.raises(ToolError, match="5 tokens left"):
        call(tools["spawn"], task="too much")


def test_waiting_for_a_child_and_for_messages(tools: dict[str, Tool]) -> None:
    assert call(tools["wait"], pid=2) == Wake(child=2)
    assert call(tools["wait"], pid=2, seconds=5) == Wake(child=2, at=1005.0)
    assert call(tools["receive"], seconds=5) == Wake(message=True, at=1005.0)
    with pytest.raises(ToolError, match="no child of this process"):
        call(tools["wait"], pid=3)
    with pytest.raises(ToolError, match="is this process itself"):
        call(tools["wait"], pid=1)


def test_messages_carry_their_senders_label(port: Port, tools: dict[str, Tool]) -> None:
    assert "inbox of process 3" in text_of(tools["send"], pid=3, text="hello")
    assert port.sent == [(3, "hello", "process:1", CONTEXT.label)]


@pytest.mark.parametrize(
    ("pid", "said"),
    [(4, "There is no process 4"), (5, "has ended"), (7, "There is no process 7")],
)
def test_there_is_no_writing_to_others_processes(
    port: Port, tools: dict[str, Tool], pid: int, said: str
) -> None:
    with pytest.raises(ToolError, match=said):
        call(tools["send"], pid=pid, text="hello")
    assert not port.sent
