"""What left a context stays findable: by the process's own call, and by itself where it matters.

Evicted pages are documents of the hybrid index, of a kind of their own for each process. A fork
finds what its parent evicted before: the pages that its state names are its own, whoever put them
into the index.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from oneiros.errors import DiskError
from oneiros.kernel.label import Label, join_all
from oneiros.kernel.services import Kept, Reminder
from oneiros.kernel.state import ProcessState
from oneiros.memory.context import SAID
from oneiros.memory.disk import Disk
from oneiros.memory.documents import stand_in
from oneiros.memory.facts import facts_page, read_facts
from oneiros.memory.index import Document, Index
from oneiros.memory.pages import Page, PageKind

# The cosine of all-MiniLM-L6-v2 from which on a page clearly bears on a message. With questions of
# BoolQ and 300 passages: 92 % of the questions find their own, and 18 % of those whose passage is
# not there find another one, mostly on the same topic. At 0.5 these are 84 and 10 %.
RELEVANT = 0.45

RELEVANT_OF_ONESELF = 0.3
"""The same for what users said of themselves, in a message about themselves. "I'm allergic to
hazelnuts" has 0.38 with "What am I allergic to?"."""

DOCUMENTS = "documents"  # the folder of the disk for long messages

_REMINDED = 3  # passages that come unasked
_NEARLY = 0.8  # of the best passage's score, for others to come with it
_NEARLY_OF_ONESELF = 0.7
_REMINDED_CHARACTERS = 1_200
_EMBEDDED = 256  # passages after an eviction: more than one evicts, and a few seconds' work
_EMBEDDED_FIRST = 64  # of these, those that a search by meaning waits for
_FAR_LESS = 0.5  # of the best passage's score
_FOLLOWED = 5  # passages beside those that have names that stand in them
_LOOK_UPS = 12  # names that are looked up for one message
_RARE = 3  # passages that may have a name
_ONESELF = re.compile(r"(?<![\w.])(?:I|[Mm]y|[Mm]ine|[Ww]e|[Oo]urs?)(?![\w.])")
_NAME = re.compile(r"[A-Za-z0-9]+(?:[-_:@#/.][A-Za-z0-9]+)*")
_SHORTEST_NAME = 6  # characters
_CANDIDATES = 24  # passages among which there may be several of one page, and other processes'
_QUERY = 1_000  # characters of a message that are searched for

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A passage of a page that left the context."""

    page_id: int
    kind: PageKind
    text: str
    score: float  # comparable within one search only
    similarity: float | None  # cosine to the query; None: not known yet
    label: Label
    by_user: bool = False  # whether the user wrote it, and no other process

    def __str__(self) -> str:
        return f"[message {self.page_id}, {self.kind}] {self.text}"


class ContextMemory:
    """What the kernel needs of memory (`kernel.services.Memory`), over disks and an index."""

    def __init__(
        self,
        disks: Callable[[str], Disk],
        index: Index,
        lookup: Callable[[int], ProcessState | None],
    ) -> None:
        """Remember for all processes.

        Args:
            disks: the disk of an owner.
            index: that takes what leaves contexts.
            lookup: the state of any process.
        """
        self._disks = disks
        self._index = index
        self._lookup = lookup
        self._waiting: list[Document] = []  # that the index could not take
        self._queued: set[str] = set()  # owners whose pages are about to be embedded
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embed pages")

    def close(self) -> None:
        """Embed what was evicted last, and stop."""
        self._worker.shutdown()

    def keep(self, state: ProcessState, name: str, text: str, label: Label) -> Kept:
        """Keep a text as a document, which the process can read in parts.

        Raises:
            DiskError: it cannot be written.
        """
        disk, data = self._disks(state.owner), text.encode(errors="replace")
        stem, _, suffix = name.rpartition(".")
        number = 1
        path = f"{DOCUMENTS}/{name}"
        # Whoever is killed and does this again finds the file; another's file is not replaced.
        while (found := _content(disk, path)) not in (None, data):
            number += 1
            path = f"{DOCUMENTS}/{stem}-{number}.{suffix}"
        if found is None:
            call_id = f"{state.pid}:{name}"
            disk.write(path, data, call_id=call_id, label=label, tool="kernel", pid=state.pid)
        return Kept(path, stand_in(path, text))

    def facts(self, owner: str) -> tuple[str, Label] | None:
        """What a user asked to remember, as a page for a new process.

        Raises:
            DiskError: a file of it cannot be read.
        """
        return facts_page(read_facts(self._disks(owner)))

    def evicted(self, state: ProcessState, page: Page, text: str) -> None:
        """Make a page findable that leaves the context: by its words now, by its meaning soon.

        Where the disk is full this is done with the next page for which there is room.
        """
        if page.kind not in SAID or not text.strip():
            return
        document = Document(
            owner=state.owner,
            kind=_kind(state.pid),
            path=_path(page),
            text=text,
            label=page.label,
            sha256=page.message,
        )
        self._waiting.append(document)
        try:
            while self._waiting:
                self._index.add(self._waiting[0], embed=False)
                self._waiting.pop(0)
        except DiskError as error:  # the conversation goes on, and this is tried again
            _log.warning("%d evicted pages cannot be found: %s", len(self._waiting), error)
            return
        if state.owner not in self._queued:
            self._queued.add(state.owner)
            self._worker.submit(self._embed, state.owner)

    def erased(self, state: ProcessState, pages: tuple[Page, ...]) -> None:
        """Forget pages whose texts the user erased."""
        for kind in map(_kind, (state.pid, *state.ancestors)):
            for page in pages:
                self._index.remove(state.owner, kind, _path(page))

    def state(self, pid: int) -> ProcessState | None:
        """The state of a process; only the kernel's thread may ask."""
        return self._lookup(pid)

    def recall(self, state: ProcessState, query: str, limit: int = 5) -> list[Recalled]:
        """Passages of what left a process's context, those that fit a query best first.

        What fits far less than the best is left out: small models take it for an answer, too.

        Args:
            state: of the process.
            query: words, or a question.
            limit: how many pages at most.
        """
        found = self._search(state, query)[:limit]
        return [one for one in found if one.score >= _FAR_LESS * found[0].score]

    def relevant(self, state: ProcessState, text: str) -> Reminder | None:
        """What left the context and clearly bears on a message; None: nothing does.

        What was quoted in the context before, and is still there, does not come again. Their order
        is the search's, in which words count as well: of numbers and names a meaning says little.
        """
        try:
            self._index.embed(state.owner, _EMBEDDED_FIRST)  # what left the context just now
            found = self._search(state, text[:_QUERY])
        except DiskError as error:  # the conversation can go on without
            _log.warning("process %d is not reminded of anything: %s", state.pid, error)
            return None
        quoted = {
            number
            for page in state.context
            if page.kind is PageKind.RECALLED
            for number in page.stands_for
        }
        found = [one for one in _bearing(text, found) if one.page_id not in quoted]
        chosen: list[Recalled] = []
        for one in found[:_REMINDED]:
            if chosen and sum(len(c.text) for c in (*chosen, one)) > _REMINDED_CHARACTERS:
                break
            chosen.append(one)
        if not chosen:
            return None
        chosen.sort(key=lambda one: one.page_id)
        chosen += self._followed(state, chosen, quoted)
        lines = ["[This was said earlier, and left the context:]", *map(str, chosen)]
        label = join_all(one.label for one in chosen)
        return Reminder("\n".join(lines), label, tuple(one.page_id for one in chosen))

    def _followed(
        self, state: ProcessState, found: list[Recalled], quoted: set[int]
    ) -> list[Recalled]:
        """Passages that have a name which stands in those found, or in one followed before.

        Names are what people look up by its letters and digits: an order's or a key's. One that
        many passages have leads nowhere.
        """
        known = quoted | {one.page_id for one in found}
        names = dict.fromkeys(name for one in found for name in _names(one.text))
        asked: set[str] = set()
        followed: list[Recalled] = []
        while len(asked) < _LOOK_UPS and (name := next((n for n in names if n not in asked), "")):
            asked.add(name)
            having = [one for one in self._search(state, name) if name in _names(one.text)]
            if len(having) > _RARE:
                continue
            for one in having:
                if one.page_id not in known and len(one.text) <= _REMINDED_CHARACTERS // 2:
                    known.add(one.page_id)
                    followed.append(one)
                    names |= dict.fromkeys(_names(one.text))
        return followed[:_FOLLOWED]

    def _search(self, state: ProcessState, query: str) -> list[Recalled]:
        """The best passage of each page that fits."""
        own = {_path(page): page for page in state.evicted if page.kind in SAID}
        if not own or not query.strip():
            return []
        kinds = map(_kind, (state.pid, *state.ancestors))
        found: dict[int, Recalled] = {}
        for hit in self._index.search(query, state.owner, limit=_CANDIDATES, kinds=kinds):
            page = own.get(hit.path)
            if page is not None and page.id not in found:
                found[page.id] = Recalled(
                    page_id=page.id,
                    kind=page.kind,
                    text=hit.text,
                    score=hit.score,
                    similarity=hit.similarity,
                    label=page.label,
                    by_user=page.sender == "user",
                )
        return list(found.values())

    def _embed(self, owner: str) -> None:
        self._queued.discard(owner)  # first, so that what comes meanwhile is not forgotten
        try:
            self._index.embed(owner, _EMBEDDED)
        except DiskError as error:  # found by words until the next try
            _log.warning("evicted pages of %s are not embedded: %s", owner, error)


def _bearing(text: str, found: list[Recalled]) -> list[Recalled]:
    """Of what a search for a message found, what clearly bears on it; what is to be quoted, first.

    That is what fits nearly as well as the best. In a message about oneself it is also what oneself
    has said of oneself, right behind the best: a question about my coffee finds all that was ever
    said of coffee.
    """
    best = max((one.score for one in found), default=0.0)
    near = [
        one for one in found if (one.similarity or 0.0) >= RELEVANT and one.score >= _NEARLY * best
    ]
    if not _ONESELF.search(text):
        return near
    own = [
        one
        for one in found
        if one.by_user
        and _ONESELF.search(one.text)
        and "?" not in one.text
        and (one.similarity or 0.0) >= RELEVANT_OF_ONESELF
        and one.score >= _NEARLY_OF_ONESELF * best
    ]
    return list({one.page_id: one for one in (*near[:1], *own, *near[1:])}.values())


def _names(text: str) -> list[str]:
    """Words of letters and digits, with what joins their parts: an order's number, a key."""
    return [
        word
        for word in _NAME.findall(text)
        if len(word) >= _SHORTEST_NAME and re.search("[A-Za-z]", word) and re.search("[0-9]", word)
    ]


def _kind(pid: int) -> str:
    """The kind of document that a process's evicted pages are."""
    return f"process:{pid}"


def _path(page: Page) -> str:
    """Names a page and its content: a fork's pages have numbers that its parent gives to others."""
    return f"message {page.id} ({page.message[:16]})"


def _content(disk: Disk, path: str) -> bytes | None:
    """A file's bytes; None: there is none."""
    folder = path.rpartition("/")[0]
    try:
        there = any(entry.path == path for entry in disk.list(folder))
    except DiskError:  # there is no such folder
        return None
    return disk.read(path) if there else None
