"""Claim: hybrid search finds more than BM25 alone and than embeddings alone.

    python bench/retrieval.py [--quick] [--json]

10,000 entries of a dictionary of computing, and some 270 queries made from it (`foldoc.py` says
how). Ours is `oneiros.memory.index` as it is in use. The peers are bm25s with English stemming and
stop words, over whole entries, and the same embedder and passages without the words. The settings
of ours and the form of the peer's were chosen on the dev half of the queries; the table is of the
test half. `--quick` takes 500 entries, which claims nothing.

nDCG@10 (Järvelin and Kekäläinen 2002): each query has one relevant entry, so it is the mean of
1 / log2(1 + rank), and 0 where the entry is not among the first ten.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import bm25s
import numpy as np
import Stemmer
from foldoc import Query, Task, foldoc_task
from platformdirs import user_cache_path
from report import Row, report

from oneiros.engine.embedding import load_embedder
from oneiros.kernel.label import PUBLIC
from oneiros.memory.index import Document, Index
from oneiros.memory.passages import Passages

CASE = "retrieval foldoc"
OWNER, KIND = "bench", "foldoc"
DEPTH = 10
SLOWEST = 50.0  # milliseconds
QUICK_DOCUMENTS = 500

Search = Callable[[str], list[str]]  # headwords, the best first


def ndcg(search: Search, queries: Sequence[Query]) -> float:
    """The mean nDCG@10."""
    gains = []
    for query in queries:
        found = list(dict.fromkeys(search(query.text)))[:DEPTH]
        rank = found.index(query.relevant) + 1 if query.relevant in found else math.inf
        gains.append(1 / math.log2(1 + rank))
    return statistics.mean(gains)


def built_index(task: Task, folder: Path) -> Index:
    """The index with all documents, from a folder where it may be already."""
    index = Index(folder, load_embedder)
    for path in index.known(OWNER, KIND).keys() - task.documents.keys():
        index.remove(OWNER, KIND, path)
    for headword, text in task.documents.items():
        document = Document(
            owner=OWNER, kind=KIND, path=headword, text=text, label=PUBLIC, title=headword
        )
        index.add(document, embed=False)
    while done := index.embed(OWNER, limit=800):
        print(f"embedded {done} passages", file=sys.stderr)
    return index


def hybrid(index: Index) -> Search:
    """Ours: entries by their best passages."""
    return lambda query: [hit.path for hit in index.search(query, OWNER, limit=3 * DEPTH)]


def words_alone(task: Task) -> Search:
    """bm25s over headword and text; k1 and b are the best of three pairs on the dev half."""
    stemmer = Stemmer.Stemmer("english")
    headwords = list(task.documents)
    texts = [f"{headword}\n{text}" for headword, text in task.documents.items()]
    model = bm25s.BM25(k1=0.9, b=0.4)
    model.index(bm25s.tokenize(texts, stemmer=stemmer, show_progress=False), show_progress=False)

    def search(query: str) -> list[str]:
        tokens = bm25s.tokenize([query], stemmer=stemmer, show_progress=False)
        places, _ = model.retrieve(tokens, k=DEPTH, show_progress=False)
        return [headwords[place] for place in places[0]]

    return search


def vectors_alone(folder: Path) -> Search:
    """The embedder over the passages of the index, and all cosines."""
    embedder = load_embedder()
    passages = Passages(folder / f"{OWNER}.sqlite", "all-minilm-l6-v2")
    found = passages.vectors()
    rows = np.stack([vector for *_, vector in found]).astype(np.float32)
    path_of: dict[int, str] = {}
    for first in range(0, len(found), 1000):
        numbers = [number for _, number, _ in found[first : first + 1000]]
        path_of |= {key: one.path for key, one in passages.passages(numbers).items()}
    paths = [path_of[number] for _, number, _ in found]
    passages.close()

    def search(query: str) -> list[str]:
        cosines = rows @ embedder.embed([query], truncate=True)[0]
        return [paths[place] for place in np.argsort(-cosines)[: 3 * DEPTH]]

    return search


def milliseconds(search: Search, queries: Sequence[Query]) -> list[float]:
    """What each search took, the first ones left out: they load the vectors."""
    times = []
    for query in queries:
        begun = time.perf_counter()
        search(query.text)
        times.append(1000 * (time.perf_counter() - begun))
    return sorted(times[5:])


def rows(quick: bool = False) -> list[Row]:
    """The measurements."""
    task = foldoc_task()
    if quick:
        wanted = {query.relevant for query in task.test}
        kept = sorted(task.documents, key=lambda headword: headword not in wanted)
        task = replace(task, documents={key: task.documents[key] for key in kept[:QUICK_DOCUMENTS]})
    name = "foldoc-index-quick" if quick else "foldoc-index"
    folder = user_cache_path("oneiros") / "bench" / name
    index = built_index(task, folder)
    search = hybrid(index)
    ours = ndcg(search, task.test)
    peers = {
        "bm25s": ndcg(words_alone(task), task.test),
        "MiniLM": ndcg(vectors_alone(folder), task.test),
    }
    times = milliseconds(search, task.test)
    index.close()
    case = f"{CASE} quick" if quick else CASE
    goal = None if quick else 1.0
    found = [
        Row(case, "ndcg@10", ours, max(peers.values()), "mean", "higher", goal),
        *(
            Row(case, f"ndcg@10 against {name}", ours, peer, "mean", "higher", goal)
            for name, peer in peers.items()
        ),
    ]
    for name, at in (("median", 0.5), ("95th percentile", 0.95)):
        value = times[int(at * len(times))]
        limit = None if quick else SLOWEST
        found.append(Row(case, f"search {name}", value, None, "ms", "lower", limit, absolute=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="500 entries, which claims nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    report("retrieval", rows(options.quick), options.json)


if __name__ == "__main__":
    main()
