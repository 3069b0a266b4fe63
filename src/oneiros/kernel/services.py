"""What processes run on: the journal, models, tools, memory, and each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from oneiros.kernel.journal import Journal
from oneiros.kernel.label import Label
from oneiros.kernel.models import Models
from oneiros.kernel.program import Program
from oneiros.kernel.scheduler import Scheduler
from oneiros.kernel.state import ProcessState
from oneiros.kernel.syscalls import Toolbox
from oneiros.kernel.view import Texts
from oneiros.memory.pages import Page


@dataclass(frozen=True, slots=True)
class Kept:
    """A text that is too long for the context, kept as a file."""

    path: str  # on the owner's disk
    shown: str  # what stands for it in the context


@dataclass(frozen=True, slots=True)
class Reminder:
    """What comes into a context unasked, because it bears on what was said."""

    text: str
    label: Label
    pages: tuple[int, ...]  # that it quotes


class Memory(Protocol):
    """What the kernel needs of memory."""

    def keep(self, state: ProcessState, name: str, text: str, label: Label) -> Kept:
        """Keep a text as a document, which the process can read in parts."""
        ...

    def evicted(self, state: ProcessState, page: Page, text: str) -> None:
        """Make a page findable that leaves the context."""
        ...

    def erased(self, state: ProcessState, pages: tuple[Page, ...]) -> None:
        """Forget pages whose texts were erased."""
        ...

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        """What was evicted and clearly bears on a text; None: nothing. Called in a thread."""
        ...

    def facts(self, owner: str) -> tuple[str, Label] | None:
        """What a user asked to remember."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What a kernel gives its processes."""

    journal: Journal
    texts: Texts
    models: Models
    toolbox: Toolbox
    programs: Mapping[str, Program]
    scheduler: Scheduler
    memory: Memory
    lookup: Callable[[int], ProcessState | None]  # the state of any process
    watched: Callable[[int], bool]  # whether somebody looks at a process's events as they come
