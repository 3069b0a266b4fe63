"""Drafts: what followed before, as long as it pays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oneiros.engine.speculation import Drafter


def test_a_draft_is_what_followed_the_last_tokens_before() -> None:
    drafter = Drafter([1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3])
    assert drafter.draft(8) == [4, 5]  # short until drafts were right
    drafter.extend([4, 5])
    drafter.checked(2, 2)
    assert drafter.draft(8) == [6, 7, 9, 1]
    assert drafter.draft(1) == [6]
    assert drafter.draft(0) == []


def test_the_latest_of_several_places_is_taken() -> None:
    assert Drafter([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).draft(1) == [5]


def test_nothing_is_drafted_where_nothing_was_repeated() -> None:
    assert Drafter(range(100)).draft(8) == []
    assert Drafter([]).draft(8) == []
    assert Drafter([1, 1]).draft(8) == []


@given(st.lists(st.integers(0, 3), max_size=60), st.lists(st.integers(0, 3), max_size=20))
def test_a_draft_continues_an_earlier_place(prompt: list[int], more: list[int]) -> None:
    drafter = Drafter(prompt)
    for token in more:
        drafter.extend([token])
    known = [*prompt, *more]
    draft = drafter.draft(2)
    if draft:
        assert any(
            known[i : i + 3] == known[-3:] and known[i + 3 : i + 3 + len(draft)] == draft
            for i in range(len(known) - 3)
        )


def test_wrong_drafts_soon_come_seldom() -> None:
    """At most a few steps' worth of wrong tokens, and then one step in fifty."""
    drafter = Drafter([1, 2, 3, 4] * 20 + [1, 2, 3])
    wrong = 0
    for _ in range(500):
        drafted = len(drafter.draft(15))
        wrong += drafted
        drafter.checked(drafted, 0)
    assert wrong * 0.2 <= 1 + 500 * 0.02
