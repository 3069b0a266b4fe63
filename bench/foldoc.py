"""The Free On-line Dictionary of Computing as a retrieval task: entries, queries, what is relevant.

The data are Debian's package dict-foldoc (GNU Free Documentation License), fetched with
`apt-get download` and unpacked, never installed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

DOCUMENTS = 10_000
QUERIES = 400  # of each sort, over both halves

_SENTENCE_END = re.compile(r"(?<=[a-z)\]\"'][.!?])\s+(?=[A-Z(\"{])")
_DATE = re.compile(r"\(\d{4}-\d\d-\d\d\)\s*$")  # when an entry was changed last
_FIELDS = re.compile(r"^(?:<[^>]*>\s*)+")  # "<programming, language>" before a definition
_SENSE = re.compile(r"^\d+\.\s*")
_REDIRECT = re.compile(
    r"^(?:(?:<[^>]*>|\d+\.|see|Synonym|An? synonym for)\s*)*\{([^{}]+)\}\.?$", re.S
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the dictionary."""

    headword: str
    body: str  # paragraphs with "\n\n" between


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and the one document that answers it."""

    text: str
    relevant: str  # its headword
    sort: str  # "definition" or "synonym"


@dataclass(frozen=True, slots=True)
class Task:
    """Documents by their headwords, and queries in two halves."""

    documents: dict[str, str]
    dev: list[Query]  # what settings may be chosen with
    test: list[Query]  # what is reported


def foldoc_task() -> Task:
    """The task: 10,000 entries, and queries of two sorts that are made from the data.

    "definition": the first sentence of an entry without its headword. That sentence is taken out of
    the document, so that the query is about the document but not part of it (the inverse cloze task
    of Lee et al. 2019, "Latent Retrieval for Weakly Supervised Open Domain Question Answering").
    Entries with at least three sentences are taken.

    "synonym": the headword of an entry that says nothing but to see another one, which is the
    answer; entries of that kind are no documents.

    All choices are by the hash of the headword; the halves are too.
    """
    entries = {entry.headword: entry for entry in _entries(_dictionary())}
    names = {headword.casefold(): headword for headword in entries}
    redirects = {}
    for entry in entries.values():
        found = _REDIRECT.match(_DATE.sub("", entry.body).strip())
        target = found and _target(found[1], names)
        if target:
            redirects[entry.headword] = target
    real = sorted(
        (e for e in entries.values() if e.headword not in redirects and len(e.body.split()) >= 8),
        key=lambda entry: _hash(entry.headword),
    )[:DOCUMENTS]
    documents = {entry.headword: _text(entry.body) for entry in real}
    queries = [
        Query(alias, target, "synonym")
        for alias, target in sorted(redirects.items(), key=lambda pair: _hash(pair[0]))
        if target in documents and _words(alias) != _words(target)
    ][:QUERIES]
    count = 0
    for entry in real:
        sentences = _SENTENCE_END.split(_text(entry.body))
        first = _SENSE.sub("", _FIELDS.sub("", sentences[0]))
        text = _masked(first, entry.headword)
        if count == QUERIES or len(sentences) < 3 or not 6 <= len(text.split()) <= 60:
            continue
        documents[entry.headword] = " ".join(sentences[1:])
        queries.append(Query(text, entry.headword, "definition"))
        count += 1
    halves: tuple[list[Query], list[Query]] = ([], [])
    for query in queries:
        halves[int(_hash(query.relevant)[-1], 16) % 2].append(query)
    return Task(documents, *halves)


def _dictionary() -> str:
    """The text of the dictionary, fetched where it is not there."""
    folder = Path(os.environ.get("ONEIROS_FOLDOC", user_cache_path("oneiros") / "bench" / "foldoc"))
    path = folder / "usr/share/dictd/foldoc.dict.dz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            fetch = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", "dict-foldoc"]
            subprocess.run(fetch, cwd=place, check=True, stdout=sys.stderr)
            (package,) = Path(place).glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return gzip.decompress(path.read_bytes()).decode(errors="replace")


def _entries(text: str) -> Iterator[Entry]:
    """Headwords stand at the margin, what is said of them does not."""
    headword, body = "", []
    for line in text.split("\n"):
        if line.strip() and not line.startswith((" ", "\t")):
            if any(body) and headword:
                yield Entry(headword, "\n".join(body).strip())
                headword, body = "", []
            headword = headword or line.strip()  # of several spellings the first
            body = [] if not any(body) else body
        else:
            body.append(line.strip())
    if headword and any(body):
        yield Entry(headword, "\n".join(body).strip())


def _text(body: str) -> str:
    """What is said, without marks of links, and the date of the entry."""
    body = _DATE.sub("", body)
    body = re.sub(r"\{([^{}]*?)(?:\s*\(http[^{}]*)?\}", r"\1", body)
    return " ".join(body.split())


def _target(link: str, names: dict[str, str]) -> str | None:
    """The headword that a link leads to: "text", "text (headword)" or "headword (http://…)"."""
    name = " ".join(link.split()).rstrip(".").casefold()
    for one in (name, re.sub(r".*\(([^()]*)\)$", r"\1", name), re.sub(r"\s*\(.*\)$", "", name)):
        if one in names:
            return names[one]
    return None


def _masked(sentence: str, headword: str) -> str:
    """A sentence without the words of its headword."""
    hidden = _words(headword)
    return " ".join(word for word in sentence.split() if not _words(word) & hidden)


def _words(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower()) if len(word) > 1}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
