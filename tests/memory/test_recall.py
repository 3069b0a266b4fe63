"""What left a context is found again, by its own process only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from oneiros.engine.embedding import Embedder, load_embedder
from oneiros.errors import DiskError
from oneiros.kernel.events import Budget
from oneiros.kernel.label import USER, Label
from oneiros.kernel.state import ProcessState
from oneiros.memory.disk import Disk
from oneiros.memory.documents import read_part
from oneiros.memory.index import Document, Index
from oneiros.memory.pages import Page, PageKind
from oneiros.memory.recall import ContextMemory

SAID = Label.of(USER)
READ = Label.of("web:example.org")


@pytest.fixture(scope="module")
def embedder(embedding_model_path: Path) -> Embedder:
    return load_embedder(embedding_model_path, threads=1)


@dataclass
class Setting:
    """Processes without a kernel: states, and what memory does with them."""

    memory: ContextMemory
    index: Index
    disk: Disk
    states: dict[int, ProcessState] = field(default_factory=dict)

    def process(self, pid: int, *, parent: int | None = None, owner: str = "ann") -> ProcessState:
        state = ProcessState(
            pid=pid,
            seq=1,
            owner=owner,
            app="assistant",
            program="agent",
            model="m",
            title="",
            parent=parent,
            priority=0,
            budget=Budget(),
            capabilities=frozenset(),
        )
        self.states[pid] = state
        return state

    def fork(self, pid: int, child: int) -> None:
        state = self.states[pid]
        self.states[child] = replace(state, pid=child, ancestors=(pid, *state.ancestors))

    def evict(
        self,
        pid: int,
        *texts: str,
        kind: PageKind = PageKind.USER,
        label: Label = SAID,
        sender: str = "user",
    ) -> list[int]:
        """Have texts leave a context; the numbers of their pages."""
        state, ids = self.states[pid], []
        for text in texts:
            page = Page(
                id=state.next_page,
                kind=kind,
                message=sha256(text.encode()).hexdigest(),
                tokens=10,
                label=label,
                sender=sender if kind is PageKind.USER else "",
            )
            self.memory.evicted(state, page, text)
            state = replace(state, evicted=(*state.evicted, page), next_page=state.next_page + 1)
            ids.append(page.id)
        self.states[pid] = state
        self.index.embed(state.owner)
        return ids

    def found(self, pid: int, query: str) -> list[str]:
        return [one.text for one in self.memory.recall(self.states[pid], query)]


@pytest.fixture
def setting(tmp_path: Path, embedder: Embedder) -> Iterator[Setting]:
    index = Index(tmp_path / "index", lambda: embedder)
    disk = Disk(tmp_path / "files", tmp_path / "store", "ann")
    states: dict[int, ProcessState] = {}
    memory = ContextMemory(lambda owner: disk, index, states.get)
    setting = Setting(memory, index, disk, states)
    setting.process(1)
    yield setting
    memory.close()
    index.close()
    disk.close()


ADA = "My sister Ada has her birthday on 4 May."
BOAT = "The boat lies in the harbour of Ghent, behind the crane."
CODE = "Error 0x80070057 came when I started the backup."


def test_evicted_pages_are_found_by_their_words_and_by_their_meaning(setting: Setting) -> None:
    ids = setting.evict(1, ADA, BOAT, CODE)
    assert setting.found(1, "0x80070057")[0] == CODE
    assert setting.found(1, "Where is the ship moored?")[0] == BOAT
    first = setting.memory.recall(setting.states[1], "birthday")[0]
    assert (first.page_id, first.kind, first.label) == (ids[0], PageKind.USER, SAID)
    assert str(first) == f"[message {ids[0]}, user] {ADA}"
    assert setting.found(1, " ") == []


def test_a_process_finds_what_it_evicted_itself(setting: Setting) -> None:
    setting.process(2)
    setting.process(3, owner="bob")
    setting.process(4, parent=1)
    setting.evict(1, ADA)
    setting.evict(2, BOAT)
    assert setting.found(1, "boat in the harbour") == [ADA]
    for pid in (3, 4):
        assert setting.found(pid, "birthday") == []


def test_a_fork_finds_what_was_evicted_before_it_and_not_what_others_evicted_later(
    setting: Setting,
) -> None:
    setting.evict(1, ADA)
    setting.fork(1, 2)
    setting.fork(2, 3)
    setting.evict(1, BOAT)
    setting.evict(2, CODE)
    query = "Ada's birthday, the boat, and an error"
    assert set(setting.found(1, query)) == {ADA, BOAT}
    assert set(setting.found(2, query)) == {ADA, CODE}
    assert set(setting.found(3, query)) == {ADA}


def test_what_nobody_said_and_what_was_erased_is_not_found(setting: Setting) -> None:
    setting.evict(1, "A notice about boats.", kind=PageKind.NOTICE)
    setting.evict(1, "Boats were recalled.", kind=PageKind.RECALLED)
    setting.evict(1, BOAT)
    setting.fork(1, 2)
    assert setting.found(2, "boat") == [BOAT]
    setting.memory.erased(setting.states[2], setting.states[2].evicted)
    assert setting.found(2, "boat") == []


def test_only_what_clearly_bears_on_a_message_comes_by_itself(setting: Setting) -> None:
    (ada,) = setting.evict(1, ADA)
    (home,) = setting.evict(1, "My sister Ada lives in Ghent.", label=READ)
    setting.evict(1, BOAT, CODE)
    relevant = setting.memory.relevant
    state = setting.states[1]
    found = relevant(state, "Who has a birthday in May?")
    assert found is not None
    assert found.pages == (ada,)
    assert found.label == SAID
    assert f"[message {ada}, user] {ADA}" in found.text
    both = relevant(state, "What do you know of my sister Ada?")
    assert both is not None
    assert both.pages == (ada, home)
    assert both.label == SAID.join(READ)
    for text in ("Thank you!", "Write a poem about the moon.", "", "What is 12 times 12?"):
        assert relevant(state, text) is None
    quoted = Page(
        id=90,
        kind=PageKind.RECALLED,
        message="0" * 64,
        tokens=9,
        label=SAID,
        stands_for=(ada,),
    )
    assert relevant(replace(state, pages=(quoted,)), "Who has a birthday in May?") is None


def test_a_full_disk_makes_pages_findable_later(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = setting.index.add

    def full(document: Document, *, embed: bool = True) -> bool:
        raise DiskError("the disk is full")

    monkeypatch.setattr(setting.index, "add", full)
    setting.evict(1, ADA)
    assert setting.found(1, "birthday") == []
    monkeypatch.setattr(setting.index, "add", add)
    setting.evict(1, BOAT)
    assert setting.found(1, "birthday")[0] == ADA


def test_names_in_what_comes_bring_what_else_has_them(setting: Setting) -> None:
    order, customer, other = setting.evict(
        1,
        "Order INV-22310 is for customer C-99-120.",
        "The contact of C-99-120 is Ms Adeyemi, since X7-common left.",
        "X7-common was sold.",
    )
    setting.evict(1, *(f"Report {n} speaks of X7-common." for n in range(4)))
    found = setting.memory.relevant(setting.states[1], "Whom do I call about order INV-22310?")
    assert found is not None
    assert found.pages == (order, customer)
    assert other not in found.pages


def test_a_long_message_is_kept_and_read_in_parts(setting: Setting) -> None:
    state = setting.states[1]
    text = "".join(f"Paragraph {number}: {'word ' * 60}\n\n" for number in range(40))
    kept = setting.memory.keep(state, "message-1-3.txt", text, READ)
    assert kept.path == "documents/message-1-3.txt"
    assert setting.disk.label(kept.path) == READ
    assert setting.disk.read(kept.path).decode() == text
    assert "Paragraph 0:" in kept.shown
    assert len(kept.shown) < 1_500
    assert read_part(text, 2).text in text
    # The kernel was killed before it knew, and does it again; another message gets its own file.
    assert setting.memory.keep(state, "message-1-3.txt", text, READ) == kept
    other = setting.memory.keep(state, "message-1-3.txt", f"{text}.", READ)
    assert other.path == "documents/message-1-3-2.txt"
    assert len(setting.disk.list("documents")) == 2


def test_facts_on_the_disk_are_a_page_for_new_processes(setting: Setting) -> None:
    assert setting.memory.facts("ann") is None
    setting.disk.write("memory/tea.md", b"I drink tea.\n", call_id="1", label=SAID)
    facts = setting.memory.facts("ann")
    assert facts is not None
    assert "I drink tea." in facts[0]
    assert facts[1] == SAID


def test_questions_find_their_passages_and_seldom_others(
    setting: Setting, data_folder: Path
) -> None:
    lines = (data_folder / "benchmarks" / "boolq.jsonl").read_text().splitlines()[:60]
    rows = [json.loads(line)["query"].removeprefix("Passage: ") for line in lines]
    pairs = [row.rsplit("\nQuestion: ", 1) for row in rows]
    ids = setting.evict(1, *(passage[:600] for passage, _ in pairs[:30]))
    state = setting.states[1]
    answers = [setting.memory.relevant(state, question) for _, question in pairs]
    right = [
        reminder is not None and number in reminder.pages
        for reminder, number in zip(answers, ids, strict=False)
    ]
    assert sum(right) >= 25
    assert sum(reminder is not None for reminder in answers[30:]) <= 6


COFFEE = (
    "The history of coffee begins in Ethiopia, and how coffee was first taken is not known.",
    "There are many ways to take coffee: drip coffee, espresso, latte, cappuccino and more.",
)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("How do I take my coffee?", "I take my coffee with oat milk."),
        ("What am I allergic to?", "I'm allergic to hazelnuts, so never suggest any."),
        ("Which instrument do we play?", "We play the bassoon in an orchestra."),
    ],
)
def test_what_one_said_of_oneself_comes_to_a_question_about_oneself(
    setting: Setting, question: str, told: str
) -> None:
    others = "Classify these instruments as percussion or woodwind: cajon, bassoon, oboe."
    setting.evict(1, *COFFEE, others, "Which allergies are common?", kind=PageKind.ASSISTANT)
    (page,) = setting.evict(1, told)
    reminder = setting.memory.relevant(setting.states[1], question)
    assert reminder is not None and page in reminder.pages


def test_a_question_about_something_else_finds_all_that_bears_on_it(setting: Setting) -> None:
    setting.evict(1, "I take my coffee with oat milk.")
    pages = setting.evict(1, *COFFEE, kind=PageKind.ASSISTANT)
    reminder = setting.memory.relevant(setting.states[1], "What is the history of coffee?")
    assert reminder is not None and pages[0] in reminder.pages
    # What fits better than what one said of oneself comes as well.
    reminder = setting.memory.relevant(
        setting.states[1], "What did I read about the history of coffee in Ethiopia?"
    )
    assert reminder is not None and pages[0] in reminder.pages


def test_nothing_that_fits_best_gives_way_to_what_one_said_of_oneself(setting: Setting) -> None:
    setting.evict(
        1,
        "I called the plumber on Monday about my kitchen.",
        "I like the plumber, my neighbour knows him.",
        "I paid the plumber for my bathroom.",
    )
    number = "Noted: the plumber's phone number is 0470 12 34 56."
    (page,) = setting.evict(1, number, kind=PageKind.ASSISTANT)
    reminder = setting.memory.relevant(setting.states[1], "What is the phone number of my plumber?")
    assert reminder is not None and page in reminder.pages


def test_what_one_said_of_oneself_has_to_fit(setting: Setting) -> None:
    dentist, _ = setting.evict(1, "My dentist is Dr Okonkwo.", "My sister is called Ada.")
    reminder = setting.memory.relevant(setting.states[1], "Who is my dentist?")
    assert reminder is not None and reminder.pages == (dentist,)


def test_other_processes_do_not_speak_of_oneself(setting: Setting) -> None:
    setting.evict(1, "I'm allergic to hazelnuts, so never suggest any.", sender="process:9")
    assert setting.memory.relevant(setting.states[1], "What am I allergic to?") is None
