"""Prefixes that were computed once: a tree of KV pages, found again by their tokens.

Each node is a page; the path to it from the root spells the tokens. A page's key hashes the key of
its parent, who may use it, and its tokens, and the root's key names model, kernels and arithmetic:
so a key says everything that the page's bits depend on, and the same prefix in another process, or
after a restart, has the same key. (Hash chains over blocks are vLLM's idea, Kwon et al. 2023; the
tree with matches inside a page is that of SGLang's RadixAttention, Zheng et al. 2024.)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Items
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from oneiros.engine.engine import Engine
from oneiros.engine.library import PAGE_TOKENS
from oneiros.engine.page_store import PageStore
from oneiros.engine.pages import Page
from oneiros.engine.sequence import Sequence

PUBLIC = ""
"""The owner of pages that serve every principal."""

_SIBLINGS_COMPARED = 32


@dataclass(slots=True, eq=False)
class Node:
    """A page of a prefix."""

    key: str
    owner: str  # a principal, or PUBLIC
    tokens: tuple[int, ...]  # PAGE_TOKENS; fewer only where a sequence ended
    parent: Node | None
    page: Page | None  # None only in the root
    depth: int  # pages from the root to here, this one included
    children: dict[tuple[str, tuple[int, ...]], Node] = field(default_factory=dict)


class PrefixCache:
    """Pages by the tokens that they hold, each with one reference by the cache.

    Used by one thread.

    Attributes:
        unsaved: pages that the store does not have yet, oldest first.
    """

    def __init__(self, engine: Engine, store: PageStore | None) -> None:
        """`store` is a second tier on disk, of `page_folder`."""
        self._pool = engine.pool
        self._store = store
        self._root = Node(_hash(*identity_of(engine)), PUBLIC, (), None, None, 0)
        # Children always lie before their parents: the first that nobody uses is a leaf.
        self._recent: OrderedDict[Node, None] = OrderedDict()
        self.unsaved: OrderedDict[Node, None] = OrderedDict()

    def __len__(self) -> int:
        """Pages in memory."""
        return len(self._recent)

    @property
    def root(self) -> Node:
        """Where every prefix begins."""
        return self._root

    def begin(self, sequence: Sequence, tokens: Items[int], principal: str, public: int) -> Node:
        """Give an empty sequence the longest prefix of `tokens` whose keys and values are there.

        Args:
            sequence: is extended by that prefix.
            tokens: a prompt; its last token is never taken, since its logits are wanted.
            principal: who asks; gets pages of its own and public ones.
            public: how many first tokens are public.

        Returns:
            the last page that is used as a whole, or the root.
        """
        usable = len(tokens) - 1
        node, length = self._root, 0
        found: list[Node] = []
        pages: list[Page] = []
        while length + PAGE_TOKENS <= usable:
            owner = _owner(length + PAGE_TOKENS, principal, public)
            piece = tuple(tokens[length : length + PAGE_TOKENS])
            child = node.children.get((owner, piece)) or self._load(node, owner, piece)
            if child is None or child.page is None:
                break
            node, length = child, length + PAGE_TOKENS
            _hold(child, found, pages)
        # Never the whole page, though another owner may have it: the sequence copies it when it
        # writes the next token, so that no page is in the tree twice.
        piece = tuple(tokens[length : min(length + PAGE_TOKENS - 1, usable)])
        if not node.children:
            self._load_end(node, principal, length, public, piece)
        partial, same = self._partial(node, principal, length, public, piece)
        if partial is not None:
            _hold(partial, found, pages)
        sequence.adopt(tokens[: length + same], pages)
        for page in pages:
            self._pool.release(page)
        self._touch(reversed(found))
        if self._store is not None:
            self._store.touch(n.key for n in reversed(found))
        return node

    def count(self, tokens: Items[int], principal: str, public: int) -> int:
        """How many whole pages `begin` would find in memory; they count as used now."""
        node = self._root
        while (end := (node.depth + 1) * PAGE_TOKENS) < len(tokens):
            piece = tuple(tokens[end - PAGE_TOKENS : end])
            child = node.children.get((_owner(end, principal, public), piece))
            if child is None:
                break
            node = child
        if node is not self._root:
            self._touch([node])
        return node.depth

    def insert(
        self, node: Node, sequence: Sequence, principal: str, public: int, *, whole: bool = False
    ) -> Node:
        """Add the pages of a sequence that come after `node`.

        Where the cache has a page already, the sequence takes that one and gives up its own.

        Args:
            node: the last page of the sequence that the cache has.
            sequence: its tokens begin with the path to `node`.
            whole: add a last page that is not full, too; the sequence will not be extended. One
                that it shares stays as it is: nothing was written to it since it was adopted, and
                where it came from it begins with the same tokens.

        Returns:
            the sequence's last full page in the cache.
        """
        index = node.depth
        added: list[Node] = []
        while (first := index * PAGE_TOKENS) < len(sequence):
            tokens = tuple(sequence.tokens[first : first + PAGE_TOKENS])
            full = len(tokens) == PAGE_TOKENS
            page = sequence.pages[index]
            # A page that is in the tree twice could never be evicted: each node would seem to
            # belong to somebody else, too.
            if not full and (not whole or page.references > 1):
                break
            owner = _owner(first + len(tokens), principal, public)
            child = node.children.get((owner, tokens))
            if child is None:
                page.references += 1
                child = self._add(node, owner, tokens, page)
                self.unsaved[child] = None
            elif child.page is not None and child.page is not page:
                sequence.replace_page(index, child.page)
            added.append(child)
            if not full:
                break
            node, index = child, index + 1
        self._touch(reversed(added))
        return node

    def evictable(self) -> int:
        """How many pages `evict` could give back at most."""
        kept: set[Node | None] = set()
        for node in self._recent:  # children before their parents
            if node in kept or (node.page is not None and node.page.references > 1):
                kept |= {node, node.parent}
        return len(self._recent) - len(kept - {self._root})

    def evict(self, count: int) -> int:
        """Give up to `count` pages back, the least recently used first.

        Pages that a sequence uses stay, and so do all on the way to them. What is not in the store
        yet is written to it.

        Returns:
            how many became free.
        """
        freed = 0
        for node in list(self._recent):
            if freed >= count:
                break
            if not node.children and node.page is not None and node.page.references == 1:
                if node in self.unsaved and self._store is not None:
                    with suppress(OSError):  # a full disk: the page has to be computed again
                        self._store.save(node.key, node.page.data)
                self._remove(node)
                freed += 1
        return freed

    def next_unsaved(self) -> Node | None:
        """A page to be saved, whose reference the caller holds until `saved` is called."""
        if self._store is None or not self.unsaved:
            return None
        node, _ = self.unsaved.popitem(last=False)
        assert node.page is not None  # only the root has none
        node.page.references += 1
        return node

    def saved(self, node: Node) -> None:
        """A page was saved, or could not be."""
        assert node.page is not None
        self._pool.release(node.page)

    def _load(self, parent: Node, owner: str, tokens: tuple[int, ...]) -> Node | None:
        """A child from the store."""
        if self._store is None:
            return None
        key = _hash(parent.key, owner, *tokens)
        if key not in self._store:
            return None
        if self._pool.used == self._pool.limit and not self.evict(1):
            return None
        page = self._pool.allocate()
        if not self._store.load(key, page.data):
            self._pool.release(page)
            return None
        return self._add(parent, owner, tokens, page)

    def _load_end(
        self, parent: Node, principal: str, length: int, public: int, piece: tuple[int, ...]
    ) -> None:
        """A page that is not full from the store: where a conversation ended that goes on now."""
        for count in range(min(len(piece), PAGE_TOKENS - 1), 0, -1):
            owner = _owner(length + count, principal, public)
            if self._load(parent, owner, piece[:count]) is not None:
                return

    def _partial(
        self, node: Node, principal: str, length: int, public: int, piece: tuple[int, ...]
    ) -> tuple[Node | None, int]:
        """The child with the most first tokens in common with `piece`, and how many."""
        best: Node | None = None
        most = 0
        allowed = {_private(principal), *([PUBLIC] if length < public else [])}
        for child in islice(reversed(node.children.values()), _SIBLINGS_COMPARED):
            if child.owner not in allowed:
                continue
            same = 0
            for ours, theirs in zip(child.tokens, piece, strict=False):
                if ours != theirs:
                    break
                same += 1
            if child.owner == PUBLIC:
                same = min(same, public - length)
            if same > most:
                best, most = child, same
        return best, most

    def _add(self, parent: Node, owner: str, tokens: tuple[int, ...], page: Page) -> Node:
        if len(tokens) == PAGE_TOKENS:
            self._drop_beginnings(parent, owner, tokens)
        child = Node(
            _hash(parent.key, owner, *tokens), owner, tokens, parent, page, parent.depth + 1
        )
        parent.children[owner, tokens] = child
        self._recent[child] = None
        return child

    def _drop_beginnings(self, parent: Node, owner: str, tokens: tuple[int, ...]) -> None:
        """A page that is not full serves nobody once a full one begins with the same tokens."""
        for child in list(islice(reversed(parent.children.values()), _SIBLINGS_COMPARED)):
            short = len(child.tokens) < PAGE_TOKENS and child.owner == owner
            if short and tokens[: len(child.tokens)] == child.tokens:
                self._remove(child)

    def _remove(self, node: Node) -> None:
        assert node.parent is not None and node.page is not None  # not the root
        del node.parent.children[node.owner, node.tokens]
        del self._recent[node]
        self.unsaved.pop(node, None)
        self._pool.release(node.page)

    def _touch(self, nodes: Iterable[Node]) -> None:
        """Nodes on one path were used; the deepest come first."""
        node: Node | None = None
        for node in nodes:
            self._recent.move_to_end(node)
        while node is not None and node.parent is not None and node.parent is not self._root:
            node = node.parent
            self._recent.move_to_end(node)


def identity_of(engine: Engine) -> tuple[str | int, ...]:
    """What the bits of a page depend on, beside its tokens."""
    return engine.model_sha256, engine.kernel_version, engine.arithmetic, engine.pool.page_bytes


def page_folder(base: Path, engine: Engine) -> Path:
    """Where pages of this model and these kernels are stored."""
    return base / _hash(*identity_of(engine))


def _hold(node: Node, found: list[Node], pages: list[Page]) -> None:
    """Note a page that is to be used; the reference keeps it from being evicted for the next."""
    assert node.page is not None  # only the root has none
    node.page.references += 1
    found.append(node)
    pages.append(node.page)


def _owner(end: int, principal: str, public: int) -> str:
    """Whose a page is that ends after `end` tokens."""
    return PUBLIC if end <= public else _private(principal)


def _private(principal: str) -> str:
    return f"principal {principal}"  # no name of a principal is PUBLIC


def _hash(*parts: str | int) -> str:
    """A name that only equal parts have: 32 hexadecimal digits of BLAKE2."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
