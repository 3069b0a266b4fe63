"""Programs: what a process does next, as a pure function of its state.

A program keeps nothing of its own, so that a process goes on after any crash, can be forked at any
moment, and can be replayed: asked again at the same state, its program has to say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from oneiros.kernel.state import ProcessState
from oneiros.kernel.tools import Tool
from oneiros.memory.pages import Page, PageKind
from oneiros.model.chat_format import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Have the model answer what is in the context."""

    kind: Literal["generate"] = "generate"
    tools: tuple[str, ...] = ()  # that it may call; "answer": a call that is a text, if no tool
    tool_choice: str = "auto"  # "required", "none", or a tool's name
    parallel: bool = True  # whether it may make several calls at once
    schema: str | None = None  # JSON schema, as text, that the reply matches
    max_tokens: int | None = None  # None: as the process's sampling says
    temperature: float | None = None  # None: likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """A call to make."""

    tool: str
    arguments: str  # JSON
    model_call: str | None = None  # the id that the model gave it
    handle: bool = False  # whether what is untrusted of the result stays behind handles


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Make calls, all at once; each result becomes a page."""

    kind: Literal["call"] = "call"
    requests: tuple[ToolRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """Take what is in the inbox, or wait for it."""

    kind: Literal["receive"] = "receive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Put a notice into the context."""

    kind: Literal["note"] = "note"
    text: str
    page_kind: PageKind = PageKind.NOTICE
    stands_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """End the process."""

    kind: Literal["exit"] = "exit"
    result: str
    status: Literal["done", "failed", "budget"] = "done"


Action = Annotated[Generate | Call | Receive | Note | Exit, Field(discriminator="kind")]
ACTION: TypeAdapter[Action] = TypeAdapter(Action)


class View(Protocol):
    """What a program sees of its process."""

    @property
    def state(self) -> ProcessState: ...

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools that the process has the capabilities for."""
        ...

    def message(self, page: Page) -> Message:
        """A page's message; of an erased one, a text that says so."""
        ...

    def text(self, blob: str) -> str:
        """A text by its hash."""
        ...


class Program(Protocol):
    """A program: asked whenever nothing is under way for the process, and not stopped.

    It must be deterministic: what it says depends on the view alone, not on time, chance or files.
    """

    def step(self, view: View) -> Action: ...
