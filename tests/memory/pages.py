"""Contexts for tests of memory."""

from __future__ import annotations

from hypothesis import strategies as st

from oneiros.kernel.label import PUBLIC
from oneiros.memory.context import ContextBudget, plan_eviction, stands_for
from oneiros.memory.pages import Page, PageKind

MARK_TOKENS = 64


def page(number: int, kind: PageKind, tokens: int = 100, **fields: object) -> Page:
    """A page; what a test does not say is plain."""
    return Page(id=number, kind=kind, message="0" * 64, tokens=tokens, label=PUBLIC, **fields)  # type: ignore[arg-type]


def evict(pages: list[Page], run: tuple[int, ...], mark_tokens: int = MARK_TOKENS) -> list[Page]:
    """The context without a run, and with a mark in its place."""
    evicted = [page for page in pages if page.id in run]
    at = pages.index(evicted[0])
    number = 1 + max(page.id for page in pages)
    mark = page(number, PageKind.MARK, mark_tokens, stands_for=stands_for(evicted))
    left = [page for page in pages if page.id not in run]
    return [*left[:at], mark, *left[at:]]


def evict_until_it_fits(
    pages: list[Page], overhead: int, budget: ContextBudget
) -> tuple[list[Page], int]:
    """What the kernel does before a reply: the context that is left, and how many runs went."""
    count = 0
    while run := plan_eviction(pages, overhead + total(pages), budget):
        pages, count = evict(pages, run), count + 1
    return pages, count


def total(pages: list[Page]) -> int:
    """Tokens of the pages."""
    return sum(page.tokens for page in pages)


@st.composite
def contexts(draw: st.DrawFn, *, asked: bool = True) -> list[Page]:
    """Turns of a user and an assistant that calls tools, after a pinned head.

    `asked`: a message has come last; otherwise a turn may be under way.
    """
    pages: list[Page] = []

    def add(kind: PageKind, *, pinned: bool = False, calls: int = 0) -> None:
        tokens = 0 if kind is PageKind.VALUE else draw(st.integers(1, 400))
        pages.append(page(len(pages) + 1, kind, tokens, pinned=pinned, calls=calls))

    for _ in range(draw(st.integers(0, 2))):
        add(PageKind.SYSTEM, pinned=True)
    for _ in range(draw(st.integers(0, 12))):
        match draw(st.sampled_from(["turn", "turn", "calls", "notice", "mark", "value"])):
            case "turn":
                add(PageKind.USER, pinned=draw(st.integers(0, 9)) == 0)
                add(PageKind.ASSISTANT)
            case "calls":
                calls = draw(st.integers(1, 3))
                add(PageKind.ASSISTANT, calls=calls)
                for _ in range(calls):
                    add(PageKind.TOOL)
            case "notice":
                add(PageKind.NOTICE, pinned=draw(st.booleans()))
            case "mark":
                add(PageKind.MARK)
            case "value":
                add(PageKind.VALUE)
    if asked or all(each.kind is not PageKind.USER for each in pages):
        add(PageKind.USER)
    return pages


budgets = st.builds(
    ContextBudget,
    context=st.integers(300, 3000),
    reserve=st.integers(0, 200),
    keep=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    mark=st.just(MARK_TOKENS),
)
