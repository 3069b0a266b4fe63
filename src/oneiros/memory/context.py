"""Which pages leave a context that is full, and what is left in their place.

A context is read from its beginning, and what is read is kept (keys and values), so a change near
the beginning costs almost a whole prefill. Pages therefore leave rarely and many at once: between
two evictions each prompt begins with the very tokens of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from oneiros.memory.pages import Page, PageKind

# Pages that somebody said; the others are copies, notices and marks of ours.
SAID = frozenset({PageKind.USER, PageKind.ASSISTANT, PageKind.TOOL})


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBudget:
    """How many tokens a context may take.

    With n new tokens a turn, an eviction comes about every (1 - keep) limit / n turns and reads
    keep * limit tokens anew. Together with the new ones that is 2n / (limit (1 - keep²)) of the
    tokens of all prompts: the less is kept, the more of them a cache has.
    """

    context: int  # tokens that the model reads at most
    reserve: int  # of these for the reply
    keep: float = 0.3  # share of the room for pages that is still taken after an eviction
    mark: int = 64  # tokens that a mark without a summary takes at most

    @property
    def limit(self) -> int:
        """Tokens that a prompt may have."""
        return max(self.context - self.reserve, 0)

    @property
    def longest_message(self) -> int:
        """Tokens of a message above which it becomes a document, read in parts."""
        return self.limit // 2


def plan_eviction(pages: Sequence[Page], used: int, budget: ContextBudget) -> tuple[int, ...]:
    """The pages to evict before the next reply; none while the prompt fits.

    They are one run, without a gap, and a mark is to take their place. A run with an older mark in
    it makes that mark part of the new one (`stands_for`). Pinned pages stay; a call stays or goes
    with its results. What the next reply is about, the newest message of the user and the newest
    reply with its results and all that came after, goes only where nothing else is left that would
    help: whoever does not see what a call brought makes it again, and again.

    Where pinned pages or the user's message divide the rest, one run may not be enough: ask again
    with what is left, until there is nothing to evict. Each run takes at least one page that is no
    mark, so this ends.

    Args:
        pages: of the context, in their order.
        used: tokens of the next prompt: pages, tools, and what the chat template adds.
        budget: what they may take.

    Returns:
        The ids of the pages of one run; () where the prompt fits or nothing more can go.
    """
    if used <= budget.limit:
        return ()
    groups = list(_groups(pages))
    free = sum(page.tokens for group in groups if not _pinned(group) for page in group)
    fixed = used - free
    # The room is what pinned pages, tools and the template leave; a share of it stays taken.
    surplus = used - fixed - int(budget.keep * max(budget.limit - fixed, 0))
    last = len(groups) - 1
    asked = next((n for n in range(last, -1, -1) if _has(groups[n], PageKind.USER)), last)
    reply = next((n for n in range(last, asked, -1) if _has(groups[n], PageKind.ASSISTANT)), last)
    for kept in ({asked, *range(reply, last + 1)}, {asked}, set[int]()):
        best: tuple[Page, ...] = ()
        for run in _runs(groups, kept, surplus + budget.mark):
            if _tokens(run) - budget.mark >= surplus:
                return tuple(page.id for page in run)
            if _tokens(run) > _tokens(best):
                best = run
        if _tokens(best) > budget.mark:
            return tuple(page.id for page in best)
    return ()


def stands_for(evicted: Iterable[Page]) -> tuple[int, ...]:
    """The pages that a mark in the place of these is about: what older marks were about, too."""
    ids: list[int] = []
    for page in evicted:
        ids += page.stands_for if page.kind is PageKind.MARK else (page.id,)
    return tuple(ids)


def mark_text(evicted: Sequence[Page], summary: str | None = None) -> str:
    """What stands in the place of evicted pages.

    Args:
        evicted: the pages that leave the context now, in their order.
        summary: of all that the mark stands for, if there is one.
    """
    ids = stands_for(evicted)
    first, last = min(ids), max(ids)
    what = f"Message {first}" if first == last else f"Messages {first} to {last}"
    text = f"[{what} left this context to make room. Nothing is lost: recall finds and quotes it.]"
    return text if summary is None else f"{text}\n{summary}"


def summary_in(kind: PageKind, text: str) -> str | None:
    """The summary that a page is or, as a mark, holds; it goes on in the mark that replaces it."""
    if kind is PageKind.MARK:
        return text.partition("\n")[2] or None
    return text if kind is PageKind.SUMMARY else None


def _groups(pages: Sequence[Page]) -> Iterator[tuple[Page, ...]]:
    """Pages that stay or go together: a call, its results, and what came between them."""
    group: list[Page] = []
    awaited = 0  # results that the group's call still has to come
    for page in pages:
        if page.kind is PageKind.VALUE:
            continue
        begins = page.kind is not PageKind.TOOL and awaited <= 0
        if group and (begins or page.kind is PageKind.ASSISTANT):
            yield tuple(group)
            group, awaited = [], 0
        group.append(page)
        awaited += page.calls - (page.kind is PageKind.TOOL)
    if group:
        yield tuple(group)


def _pinned(group: tuple[Page, ...]) -> bool:
    return any(page.pinned for page in group)


def _has(group: tuple[Page, ...], kind: PageKind) -> bool:
    return any(page.kind is kind for page in group)


def _tokens(pages: Iterable[Page]) -> int:
    return sum(page.tokens for page in pages)


def _runs(
    groups: Sequence[tuple[Page, ...]], kept: set[int], wanted: int
) -> Iterator[tuple[Page, ...]]:
    """From each stretch between groups that stay, the oldest pages that have `wanted` tokens."""
    run: list[Page] = []
    for number, group in enumerate(groups):
        stays = number in kept or _pinned(group)
        if not stays and (_tokens(run) < wanted or _only_marks(run)):
            run += group
        if stays or number == len(groups) - 1:
            if not _only_marks(run):
                yield tuple(run)
            run = []


def _only_marks(run: Sequence[Page]) -> bool:
    return all(page.kind is PageKind.MARK for page in run)
