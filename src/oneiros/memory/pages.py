"""Context pages: what a process has in its context, or had."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oneiros.kernel.label import Label


class PageKind(StrEnum):
    """What a page is, and so what may become of it."""

    SYSTEM = "system"
    APP = "app"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"  # the result of a call that the page before holds
    NOTICE = "notice"  # of the kernel: a budget that ends, a call that repeats
    SUMMARY = "summary"  # of evicted pages, which stay findable
    RECALLED = "recalled"  # copies of evicted pages, or passages of files
    MARK = "mark"  # stands where pages were evicted, and says so
    VALUE = "value"  # a result that a program keeps to itself; never in the model's context


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One message of a process's context. Its text is a blob of the journal, and can be erased."""

    id: int  # unique within its process; they only grow
    kind: PageKind
    message: str  # hash of the message as JSON
    tokens: int  # that it takes in the context, as rendered; of a VALUE 0
    label: Label
    sender: str = ""  # of a message: who wrote it, "user" or "process:PID"
    pinned: bool = False  # whether it stays when others are evicted
    reply: str | None = None  # of what the model wrote: hash of its text and token ids as JSON
    calls: int = 0  # of an assistant's page: calls it makes
    call_id: str | None = None  # of a tool's page: whose result it is
    stands_for: tuple[int, ...] = ()  # pages that this mark, summary or recalled page is about
