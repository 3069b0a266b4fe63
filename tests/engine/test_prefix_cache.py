"""The tree of prefixes: every page in it once, with the keys and values of its tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from numpy.typing import NDArray

from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.pages import Page, PagePool
from oneiros.engine.prefix_cache import Node, PrefixCache
from oneiros.engine.sequence import Sequence

PAGES = 10
LONGEST = 4 * PAGE_TOKENS
# A prompt goes along the common text, and leaves it somewhere for one of two others.
COMMON = list(range(LONGEST))


@dataclass
class FakeEngine:
    """An engine whose keys and values are the tokens themselves."""

    pool: PagePool = field(default_factory=lambda: PagePool(1 << 14, PAGES))
    model_sha256: str = "model"
    kernel_version: str = "kernels"
    arithmetic: str = "arithmetic"


class FakeStore:
    """Pages on disk, in memory."""

    def __init__(self) -> None:
        self.pages: dict[str, NDArray[np.uint8]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.pages

    def save(self, key: str, data: NDArray[np.uint8]) -> None:
        self.pages[key] = data.copy()

    def load(self, key: str, into: NDArray[np.uint8]) -> bool:
        into[:] = self.pages[key]
        return True

    def touch(self, keys: Iterator[str]) -> None:
        """There is always room."""


@dataclass
class Running:
    """A request with its sequence, or, parked, without one."""

    principal: str
    public: int
    prompt: list[int]
    node: Node
    sequence: Sequence | None
    parked: list[int] = field(default_factory=list)


def values(page: Page, count: int = PAGE_TOKENS) -> list[int]:
    return page.data.view(np.int32)[:count].tolist()


def nodes(root: Node) -> Iterator[Node]:
    for child in root.children.values():
        yield child
        yield from nodes(child)


class CacheAndSequences(RuleBasedStateMachine):
    """What the scheduler does with them, in any order."""

    @initialize(stored=st.booleans())
    def open(self, stored: bool) -> None:
        self.engine = FakeEngine()
        self.pool = self.engine.pool
        store = FakeStore() if stored else None
        self.cache = PrefixCache(self.engine, store)  # type: ignore[arg-type]
        self.running: list[Running] = []
        self.saving: list[Node] = []

    @rule(
        principal=st.sampled_from(["anna", "ben"]),
        public=st.sampled_from([0, 10, PAGE_TOKENS, 40]),
        common=st.integers(0, LONGEST - 1),
        own=st.integers(0, PAGE_TOKENS + 2),
        kind=st.integers(1, 2),
    )
    def begin(self, principal: str, public: int, common: int, own: int, kind: int) -> None:
        prompt = COMMON[:common] + [kind * 1000 + n for n in range(own)]
        public = min(public, common)
        if not prompt or len(self.running) == 4:
            return
        sequence = Sequence(self.engine)  # type: ignore[arg-type]
        node = self.cache.begin(sequence, prompt, principal, public)
        assert len(sequence) < len(prompt)
        self.running.append(Running(principal, public, prompt, node, sequence))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3), count=st.integers(1, 40), wrong=st.integers(0, 3))
    def step(self, which: int, count: int, wrong: int) -> None:
        """Read some of a prompt, or write on; the last tokens are drafts that were wrong."""
        one = self.running[which % len(self.running)]
        if one.sequence is None:
            return
        begin = len(one.sequence)
        tokens = one.prompt[begin : begin + count] or [2000 + one.public, 2001][:count]
        drafts = [5000] * wrong
        if begin + len(tokens) + wrong > LONGEST or not self._room(one.sequence, tokens + drafts):
            return
        self._write(one.sequence, tokens + drafts)
        one.sequence.truncate(begin + len(tokens))
        self._share(one)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def park_or_unpark(self, which: int) -> None:
        one = self.running[which % len(self.running)]
        if one.sequence is not None:
            one.parked = list(one.sequence.tokens)
            one.sequence.close()
            one.sequence = None
            return
        sequence = Sequence(self.engine)  # type: ignore[arg-type]
        if one.parked and not self._room(sequence, one.parked):
            return
        self._write(sequence, one.parked)
        one.sequence, one.node = sequence, self.cache.root
        self._share(one)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 3))
    def release(self, which: int) -> None:
        """A request ended, or was cancelled at any time after it began."""
        one = self.running.pop(which % len(self.running))
        if one.sequence is not None:
            self.cache.insert(one.node, one.sequence, one.principal, one.public, whole=True)
            one.sequence.close()

    @rule(count=st.integers(1, 5))
    def evict(self, count: int) -> None:
        before, possible = self.pool.used, self.cache.evictable()
        freed = self.cache.evict(count)
        assert before - self.pool.used == freed == min(count, possible)

    @rule()
    def begin_to_save(self) -> None:
        node = self.cache.next_unsaved()
        if node is not None:
            self.saving.append(node)

    @precondition(lambda self: self.saving)
    @rule()
    def end_of_saving(self) -> None:
        self.cache.saved(self.saving.pop(0))

    @invariant()
    def every_page_is_in_the_tree_once(self) -> None:
        pages = [node.page for node in nodes(self.cache.root)]
        assert len(self.cache) == len(pages) == len(set(map(id, pages))) <= PAGES

    @invariant()
    def references_are_those_who_hold_a_page(self) -> None:
        held = Counter(id(node.page) for node in [*nodes(self.cache.root), *self.saving])
        for one in self.running:
            held.update(id(page) for page in (one.sequence.pages if one.sequence else ()))
        assert self.pool.used == len(held) <= PAGES
        assert all(held[id(n.page)] == n.page.references for n in nodes(self.cache.root) if n.page)

    @invariant()
    def pages_hold_what_their_tokens_say(self) -> None:
        for node in nodes(self.cache.root):
            assert node.page is not None
            assert tuple(values(node.page, len(node.tokens))) == node.tokens
        for one in self.running:
            if one.sequence is not None:
                found = [value for page in one.sequence.pages for value in values(page)]
                assert found[: len(one.sequence)] == one.sequence.tokens

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for node in self.saving:
            self.cache.saved(node)
        while self.running:
            self.release(0)
        self.cache.evict(len(self.cache))
        assert self.pool.used == len(self.cache) == 0

    def _room(self, sequence: Sequence, tokens: list[int]) -> bool:
        missing = sequence.pages_missing(len(tokens))
        self.cache.evict(max(0, missing - (PAGES - self.pool.used)))
        return missing <= PAGES - self.pool.used

    def _write(self, sequence: Sequence, tokens: list[int]) -> None:
        begin = len(sequence)
        sequence.reserve(len(tokens))
        for position, token in enumerate(tokens, begin):
            page = sequence.pages[position // PAGE_TOKENS]
            page.data.view(np.int32)[position % PAGE_TOKENS] = token
        sequence.append_computed(tokens)

    def _share(self, one: Running) -> None:
        assert one.sequence is not None
        if len(one.sequence) // PAGE_TOKENS > one.node.depth:
            one.node = self.cache.insert(one.node, one.sequence, one.principal, one.public)


CacheAndSequences.TestCase.settings = settings(
    max_examples=60, report_multiple_bugs=False, stateful_step_count=25, deadline=None
)
TestCacheAndSequences = CacheAndSequences.TestCase


def test_a_request_that_ends_before_its_first_step_leaves_no_second_node() -> None:
    state = CacheAndSequences()
    state.open(stored=False)
    for common in (PAGE_TOKENS, 10):
        state.begin(principal="anna", public=0, common=common, own=5, kind=1)
        if common == PAGE_TOKENS:
            state.step(which=0, count=40, wrong=0)
        state.release(which=0)
    state.every_page_is_in_the_tree_once()
    assert state.cache.evictable() == state.pool.used == 2
    state.teardown()


def test_pages_before_one_that_is_being_saved_are_not_counted_as_evictable() -> None:
    state = CacheAndSequences()
    state.open(stored=True)
    state.begin(principal="anna", public=0, common=PAGE_TOKENS, own=5, kind=1)
    state.step(which=0, count=40, wrong=0)
    state.release(which=0)
    for _ in range(2):
        state.begin_to_save()
    state.cache.saved(state.saving.pop(0))  # the first page, but not the second
    assert state.cache.evictable() == state.cache.evict(1) == 0
    state.teardown()
