"""Hybrid search: by words, by meaning, with citations; incremental, per owner, after any kill."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneiros.errors import DiskError
from oneiros.kernel.label import Label
from oneiros.memory.disk import Disk
from oneiros.memory.extraction import ExtractedText
from oneiros.memory.index import FILE, Document, Index, fuse
from oneiros.memory.indexing import sync_disk
from oneiros.memory.passages import query_terms, searchable
from oneiros.memory.vectors import VectorSet
from tests.memory.embedders import TopicEmbedder

LABEL = Label.of("web:example.org", readers=["eva"])


@pytest.fixture
def embedder() -> TopicEmbedder:
    return TopicEmbedder()


@pytest.fixture
def index(tmp_path: Path, embedder: TopicEmbedder) -> Iterator[Index]:
    index = Index(tmp_path / "index", lambda: embedder)
    yield index
    index.close()


def document(
    path: str, text: str | ExtractedText, owner: str = "eva", kind: str = FILE
) -> Document:
    return Document(owner=owner, kind=kind, path=path, text=text, label=LABEL)


def found(index: Index, query: str, owner: str = "eva", **options: object) -> list[str]:
    return [hit.path for hit in index.search(query, owner, **options)]  # type: ignore[arg-type]


def test_passages_are_found_by_words_and_by_meaning(index: Index) -> None:
    index.add(document("a.md", "The vehicle is in the yard."))
    index.add(document("b.md", "Blossoms everywhere."))
    index.add(document("c.md", "Nothing of the sort, but a zymurgist."))
    assert found(index, "which car")[0] == "a.md"  # no word in common
    assert found(index, "zymurgist")[0] == "c.md"
    assert found(index, "Zymurgists?")[0] == "c.md"
    hit = index.search("flowers", "eva")[0]
    assert (hit.path, hit.label, hit.citation) == ("b.md", LABEL, "b.md, line 1")
    assert hit.similarity is not None and hit.similarity > 0.9


def test_citations_name_lines_headings_and_pages(index: Index) -> None:
    text = "# Garden\n\nIntroduction.\n\n## Roses\n\nPrune them.\nIn March.\n\n## Tulips\n\nDo not."
    index.add(document("g.md", text))
    hit = index.search("prune", "eva")[0]
    assert (hit.citation, hit.heading, hit.text) == (
        "g.md, lines 7-8",
        "Garden > Roses",
        "Prune them.\nIn March.",
    )
    pages = ExtractedText("one engine\n\ntwo\n\nthree money", "plain", "", (1, 3, 5))
    index.add(document("p.pdf", pages))
    assert index.search("money", "eva")[0].citation == "p.pdf, pages 1-3"


def test_an_unchanged_document_costs_nothing_and_a_changed_one_its_changes(
    index: Index, embedder: TopicEmbedder
) -> None:
    sections = [f"# Section {number}\n\n{'word ' * 20}{number}" for number in range(5)]
    assert index.add(document("a.md", "\n\n".join(sections)))
    assert not index.add(document("a.md", "\n\n".join(sections)))
    assert len(embedder.embedded) == 5
    sections[2] = "# Section 2\n\nabout roses"
    assert index.add(document("a.md", "\n\n".join(sections)))
    assert embedder.embedded[5:] == ["Section 2\nabout roses"]
    assert index.search("roses", "eva")[0].text == "about roses"
    assert index.remove("eva", FILE, "a.md")
    assert not index.remove("eva", FILE, "a.md")
    assert found(index, "roses") == []


def test_owners_and_kinds_are_apart(index: Index) -> None:
    index.add(document("a.md", "roses of Eva"))
    index.add(document("b.md", "roses of Tom", owner="../tom"))
    index.add(document("3", "roses said", kind="page"))
    assert sorted(found(index, "roses")) == ["3", "a.md"]
    assert found(index, "roses", kinds=["page"]) == ["3"]
    assert found(index, "flowers", kinds=["web"]) == []
    assert found(index, "roses", "../tom") == ["b.md"]
    assert found(index, "roses", "nobody") == []
    assert sorted(index.known("eva", FILE)) == ["a.md"]


def test_it_survives_a_restart_and_other_users_of_the_folder(
    index: Index, tmp_path: Path, embedder: TopicEmbedder
) -> None:
    index.add(document("a.md", "about roses"))
    assert found(index, "flowers") == ["a.md"]
    other = Index(tmp_path / "index", lambda: embedder)
    other.add(document("b.md", "about blossoms"))
    assert sorted(found(index, "flowers")) == ["a.md", "b.md"]
    other.close()
    changed = Index(tmp_path / "index", lambda: embedder, model="another")
    assert changed.search("flowers", "eva") == []  # vectors of another model say nothing
    changed.embed("eva")
    assert len(changed.search("flowers", "eva")) == 2
    changed.close()


def test_a_killed_process_loses_nothing_that_was_added(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        index = Index(tmp_path / "index", TopicEmbedder)
        for number in range(1_000):
            index.add(document(f"{number}", f"roses {number}"), embed=number % 2 == 0)
            os.write(write, b".")
        os._exit(0)
    assert len(os.read(read, 1)) == 1
    for _ in range(20):
        os.read(read, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(write)
    added = 21 + len(os.read(read, 2_000))
    index = Index(tmp_path / "index", TopicEmbedder)
    index.embed("eva")
    assert len(index.known("eva", FILE)) in (added, added + 1)
    assert {f"{number}" for number in range(added)} <= set(found(index, "roses", limit=2_000))
    index.close()


def test_without_an_embedder_words_are_searched(tmp_path: Path) -> None:
    index = Index(tmp_path / "index", None)
    index.add(document("a.md", "about roses"))
    index.add(document("b.md", "about money"))
    hits = index.search("roses and thorns", "eva")
    assert [(hit.path, hit.similarity) for hit in hits] == [("a.md", None)]
    index.close()


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("read_file", "def read_file(path):"),
        ("readFile", "let x = readFile(path)"),
        ("http request", "class HTTPRequestParser"),
        ("京都", "私は京都に住んでいます"),
        ("Ζεύς", "ΖΕΥΣ was a god"),
        ("cafe", "Café au lait"),
        ("running", "they run"),
    ],
)
def test_words_are_found_in_other_forms(tmp_path: Path, query: str, text: str) -> None:
    index = Index(tmp_path / "index", None)
    index.add(document("a", text))
    assert found(index, query) == ["a"]
    index.close()


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=40))
def test_any_query_is_a_query(tmp_path_factory: pytest.TempPathFactory, query: str) -> None:
    """Nothing in it is an operator of the search engine's own language."""
    index = Index(tmp_path_factory.getbasetemp() / "any-query", None)
    index.add(document("a", 'NEAR AND OR NOT "quoted" heading: * ^ ( )'))
    index.search(query, "eva")
    assert all(term in searchable(query) for term in query_terms(query))
    index.close()


def test_fusion_prefers_what_both_lists_have() -> None:
    words, vectors = fuse([1, 2, 3]), fuse([4, 2, 5])
    both = {key: words.get(key, 0) + vectors.get(key, 0) for key in words.keys() | vectors}
    assert max(both, key=lambda key: both[key]) == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=60), st.integers(0, 2**32))
def test_nearest_vectors_are_those_of_a_plain_computation(
    steps: list[tuple[bool, int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors, plain = VectorSet(16), {}
    for adding, key in steps:
        if adding and key not in plain:
            row = random.standard_normal(16)
            plain[key] = (row / np.linalg.norm(row)).astype(np.float16)
            vectors.add([key], plain[key][None])
        elif not adding:
            vectors.remove([key])
            plain.pop(key, None)
    query = random.standard_normal(16).astype(np.float32)
    query /= np.linalg.norm(query)
    expected = sorted((-float(row.astype(np.float32) @ query), key) for key, row in plain.items())
    near = vectors.nearest(query, 5)
    assert len(near) == min(5, len(plain))
    for (_, cosine), (wanted, _) in zip(near, expected, strict=False):
        assert cosine == pytest.approx(-wanted, abs=5e-3)


def test_many_vectors_are_searched_in_a_graph() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((2_000, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    exact, graph = VectorSet(32), VectorSet(32, exact=100)
    for one in (exact, graph):
        one.add(range(1_500), rows[:1_500])
        one.nearest(rows[0].astype(np.float32), 1)
        one.add(range(1_500, 2_000), rows[1_500:])
        one.remove(range(200))
    found = expected = 0
    for row in rows[:100].astype(np.float32):
        wanted = {key for key, _ in exact.nearest(row, 10)}
        found += len(wanted & {key for key, _ in graph.nearest(row, 10)})
        expected += len(wanted)
    assert found > 0.95 * expected


def test_a_folder_is_kept_in_step(index: Index, tmp_path: Path, embedder: TopicEmbedder) -> None:
    disk = Disk(tmp_path / "files", tmp_path / "store", "eva")
    disk.write("a/garden.md", b"# Roses\n\nPrune them.", call_id="c", label=LABEL)
    for name, data in {
        "car.txt": b"A vehicle.",
        ".hidden/x.txt": b"roses",
        "node_modules/x.js": b"roses",
        "broken.pdf": b"%PDF-1.4 nothing",
    }.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    synced = sync_disk(index, disk)
    assert (synced.added, synced.unchanged, list(synced.problems)) == (3, 0, ["broken.pdf"])
    assert [hit.label for hit in index.search("roses", "eva", limit=1)] == [LABEL]
    assert found(index, "motor", limit=1) == ["car.txt"]
    computed = len(embedder.embedded)
    synced = sync_disk(index, disk)
    assert (synced.added, synced.unchanged, list(synced.problems)) == (0, 3, ["broken.pdf"])
    disk.move("a/garden.md", "b.md", call_id="d")
    (tmp_path / "files/car.txt").unlink()
    synced = sync_disk(index, disk)
    assert (synced.added, synced.removed) == (1, 2)
    assert set(found(index, "roses motor")) == {"b.md"}
    assert len(embedder.embedded) <= computed + 3  # the moved file under its new name, and queries
    disk.close()


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "eva.sqlite").write_bytes(b"not a database" * 100)
    index = Index(tmp_path, None)
    with pytest.raises(DiskError, match=r"eva\.sqlite"):
        index.search("x", "eva")
