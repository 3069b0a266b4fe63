"""Which pages leave a full context: laws, and the cases that they come from."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from oneiros.memory.context import ContextBudget, mark_text, plan_eviction, stands_for, summary_in
from oneiros.memory.pages import Page, PageKind
from tests.memory.pages import (
    MARK_TOKENS,
    budgets,
    contexts,
    evict,
    evict_until_it_fits,
    page,
    total,
)

BUDGET = ContextBudget(context=1200, reserve=200, mark=MARK_TOKENS)
OVERHEADS = st.integers(0, 200)


@given(contexts(), OVERHEADS, budgets)
def test_a_prompt_fits_or_nothing_is_left_that_would_help(
    pages: list[Page], overhead: int, budget: ContextBudget
) -> None:
    left, _ = evict_until_it_fits(pages, overhead, budget)
    if overhead + total(left) > budget.limit:
        for run in stretches(left):
            assert total(run) <= MARK_TOKENS or all(p.kind is PageKind.MARK for p in run)


def stretches(pages: list[Page]) -> list[list[Page]]:
    """Neighbours that are neither pinned nor bound by a call to something that is."""
    runs: list[list[Page]] = [[]]
    bound = pinned_or_bound(pages)
    for each in pages:
        if each.id in bound:
            runs.append([])
        elif each.kind is not PageKind.VALUE:
            runs[-1].append(each)
    return runs


def pinned_or_bound(pages: list[Page]) -> set[int]:
    groups: list[list[Page]] = []
    for each in pages:
        if each.kind is PageKind.TOOL:
            groups[-1].append(each)
        else:
            groups.append([each])
    return {p.id for group in groups if any(q.pinned for q in group) for p in group}


@given(contexts(), OVERHEADS, budgets)
def test_a_run_has_no_gap_no_pinned_page_and_no_half_of_a_call(
    pages: list[Page], overhead: int, budget: ContextBudget
) -> None:
    run = plan_eviction(pages, overhead + total(pages), budget)
    context = [each for each in pages if each.kind is not PageKind.VALUE]
    places = [place for place, each in enumerate(context) if each.id in run]
    assert len(places) == len(run)
    assert places == list(range(places[0], places[-1] + 1)) if run else not places
    assert not any(context[place].pinned for place in places)
    for border in (places[0], places[-1] + 1) if run else ():
        assert border == len(context) or context[border].kind is not PageKind.TOOL


@given(contexts(asked=False), OVERHEADS, budgets)
def test_what_the_next_reply_is_about_stays_while_anything_else_would_help(
    pages: list[Page], overhead: int, budget: ContextBudget
) -> None:
    run = plan_eviction(pages, overhead + total(pages), budget)
    asked = [each.id for each in pages if each.kind is PageKind.USER][-1]
    replies = [each.id for each in pages if each.kind is PageKind.ASSISTANT and each.id > asked]
    about = {asked} | {each.id for each in pages if replies and each.id >= replies[-1]}
    if about & set(run):
        others = [replace(each, pinned=each.pinned or each.id in about) for each in pages]
        assert plan_eviction(others, overhead + total(others), budget) == ()


@given(contexts(), OVERHEADS, budgets)
def test_what_fits_is_left_alone(pages: list[Page], overhead: int, budget: ContextBudget) -> None:
    if overhead + total(pages) <= budget.limit:
        assert plan_eviction(pages, overhead + total(pages), budget) == ()
    left, _ = evict_until_it_fits(pages, overhead, budget)
    assert plan_eviction(left, overhead + total(left), budget) == ()


@given(contexts(), OVERHEADS, budgets)
def test_pages_are_in_the_context_or_a_mark_stands_for_them(
    pages: list[Page], overhead: int, budget: ContextBudget
) -> None:
    left, _ = evict_until_it_fits(pages, overhead, budget)
    known = {each.id for each in left} | {i for each in left for i in each.stands_for}
    assert {each.id for each in pages if each.kind is not PageKind.MARK} <= known
    assert [p for p in left if p.pinned] == [p for p in pages if p.pinned]


def conversation(turns: int, tokens: int = 50) -> list[Page]:
    pages = [page(1, PageKind.SYSTEM, pinned=True)]
    for number in range(2, 2 + 2 * turns, 2):
        pages.append(page(number, PageKind.USER, tokens))
        pages.append(page(number + 1, PageKind.ASSISTANT, tokens))
    return [*pages, page(2 + 2 * turns, PageKind.USER, tokens)]


def test_many_leave_at_once_so_that_prompts_keep_their_beginning() -> None:
    pages, evictions = conversation(0), 0
    for number in range(1000, 1400, 2):
        pages, count = evict_until_it_fits(pages, 0, BUDGET)
        evictions += count
        pages = [*pages, page(number, PageKind.ASSISTANT, 20), page(number + 1, PageKind.USER, 20)]
    # 200 turns of 40 tokens are 8,000; each eviction makes room for about 450.
    assert 10 < evictions < 25
    assert [each.kind for each in pages[:2]] == [PageKind.SYSTEM, PageKind.MARK]
    assert sum(each.kind is PageKind.MARK for each in pages) == 1


def test_a_share_of_the_room_stays_taken_however_much_is_pinned() -> None:
    for overhead in (0, 400):
        left, _ = evict_until_it_fits(conversation(10), overhead, BUDGET)
        kept = BUDGET.keep * (BUDGET.limit - 100 - overhead)
        assert kept - 50 <= total(left) - 100 <= kept


def test_the_question_stays_while_its_calls_leave() -> None:
    pages = [page(1, PageKind.SYSTEM, pinned=True), page(2, PageKind.USER)]
    for number in range(3, 23, 2):
        pages.append(page(number, PageKind.ASSISTANT, 40, calls=1))
        pages.append(page(number + 1, PageKind.TOOL, 80))
    left, runs = evict_until_it_fits(pages, 0, BUDGET)
    assert runs == 1
    assert [each.kind for each in left[:3]] == [PageKind.SYSTEM, PageKind.USER, PageKind.MARK]
    assert left[-2:] == pages[-2:]


def test_results_stay_until_they_were_read_also_when_a_notice_comes_after_them() -> None:
    pages = [
        page(1, PageKind.SYSTEM, pinned=True),
        page(2, PageKind.USER, 200),
        page(3, PageKind.ASSISTANT, 300),
        page(4, PageKind.USER),
        page(5, PageKind.ASSISTANT, 50, calls=1),
        page(6, PageKind.TOOL, 500),
        page(7, PageKind.NOTICE, 50),
    ]
    assert plan_eviction(pages, total(pages), BUDGET) == (2, 3)


def test_results_too_long_for_the_context_leave_before_the_question() -> None:
    pages = [
        page(1, PageKind.SYSTEM, pinned=True),
        page(2, PageKind.USER),
        page(3, PageKind.ASSISTANT, calls=2),
        page(4, PageKind.TOOL, 700),
        page(5, PageKind.TOOL, 700),
    ]
    assert plan_eviction(pages, total(pages), BUDGET) == (3, 4, 5)


def test_a_mark_says_which_messages_left_and_takes_over_what_an_older_one_stood_for() -> None:
    pages = conversation(10)
    left = evict(pages, (2, 3, 4))
    assert left[1].stands_for == (2, 3, 4)
    again = left[1:4]
    assert stands_for(again) == (2, 3, 4, 5, 6)
    assert "Messages 2 to 6 " in mark_text(again)
    assert "Message 5 " in mark_text([page(5, PageKind.USER)])


def test_a_summary_goes_on_in_the_mark_that_takes_its_place() -> None:
    evicted = [page(5, PageKind.USER)]
    text = mark_text(evicted, "They spoke of boats.\nAnd of tea.")
    assert summary_in(PageKind.MARK, text) == "They spoke of boats.\nAnd of tea."
    assert summary_in(PageKind.MARK, mark_text(evicted)) is None
    assert summary_in(PageKind.SUMMARY, "They spoke.") == "They spoke."
    assert summary_in(PageKind.USER, "They spoke.\nLong ago.") is None
