"""Facts that a user asks to remember: Markdown files that the user can read, edit and delete.

Each is a file of its own in the folder `memory` of the user's disk. All are read when a process
starts, into one page of its context; what is remembered later is in the context already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from oneiros.errors import DiskError
from oneiros.kernel.label import Label, join_all
from oneiros.memory.disk import Change, Disk, Entry

FOLDER = "memory"
LONGEST = 2_000  # characters of one fact
_PAGE = 6_000  # characters of facts in the context, about 1,500 tokens
_NAME_WORDS = 6
_NAME_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a user asked to remember."""

    path: str
    text: str
    label: Label


def read_facts(disk: Disk) -> list[Fact]:
    """All facts, those written last first.

    Raises:
        DiskError: a file cannot be read.
    """
    entries = sorted(_files(disk), key=lambda entry: (-entry.modified, entry.path))
    facts = []
    for entry in entries:
        if entry.path.endswith(".md") and entry.size:
            file = disk.get(entry.path)
            text = file.data.decode(errors="replace").strip()
            if text:
                facts.append(Fact(file.path, text, file.label))
    return facts


def facts_page(facts: Sequence[Fact]) -> tuple[str, Label] | None:
    """A page with the facts and its label; None: there are none.

    The user may have written more than a context should hold. Then the newest are shown, and the
    files of the others are named as far as that takes little.
    """
    shown: list[Fact] = []
    named: list[str] = []
    room = _PAGE
    for fact in facts:
        room -= len(fact.text) + len(fact.path)
        if room >= 0:
            shown.append(fact)
        else:
            named.append(fact.path)
    if not shown and not named:
        return None
    lines = [f"- {fact.text} [{fact.path}]" for fact in sorted(shown, key=lambda fact: fact.path)]
    text = "\n".join(["The user asked you to remember:", *lines])
    if named:
        some = ", ".join(sorted(named)[:10])
        text += f"\n{len(named)} more are in files that read_document reads, among them: {some}."
    return text, join_all(fact.label for fact in facts)


def remember(disk: Disk, text: str, *, call_id: str, label: Label, pid: int | None = None) -> Fact:
    """Keep a fact; what is known already is not kept twice.

    Raises:
        DiskError: it is empty or too long, or the file cannot be written.
    """
    text = " ".join(text.split())
    if not text:
        raise DiskError("There is nothing to remember: the text is empty.")
    if len(text) > LONGEST:
        raise DiskError(
            f"A fact has at most {LONGEST:,} characters, and this has {len(text):,}. Say it in a "
            "sentence or two, or write a file."
        )
    for fact in read_facts(disk):
        if fact.text == text:
            return fact
    path = _free_path(text, {entry.path for entry in _files(disk)})
    data = f"{text}\n".encode(errors="replace")
    disk.write(path, data, call_id=call_id, label=label, tool="remember", pid=pid)
    return Fact(path, text, label)


def forget(disk: Disk, path: str, *, call_id: str, pid: int | None = None) -> Change:
    """Delete a fact; undoing the change brings it back.

    Raises:
        DiskError: there is no such fact.
    """
    known = [fact.path for fact in read_facts(disk)]
    found = next(
        (name for name in (path, f"{FOLDER}/{path}", f"{FOLDER}/{path}.md") if name in known), None
    )
    if found is None:
        there = ", ".join(sorted(known)[:20]) or "none"
        raise DiskError(f"{path}: there is no such fact. There are: {there}.")
    return disk.delete(found, call_id=call_id, tool="forget", pid=pid)


def _files(disk: Disk) -> list[Entry]:
    if not any(entry.path == FOLDER and entry.kind == "folder" for entry in disk.list()):
        return []
    return [entry for entry in disk.list(FOLDER) if entry.kind == "file"]


def _free_path(text: str, taken: set[str]) -> str:
    """A name that tells the fact, and no other file has."""
    words = re.findall(r"\w+", text.lower())[:_NAME_WORDS]
    name = "-".join(words)[:_NAME_LENGTH] or "fact"
    names = [f"{FOLDER}/{name}.md"]
    while names[-1] in taken:
        names.append(f"{FOLDER}/{name}-{len(names) + 1}.md")
    return names[-1]
