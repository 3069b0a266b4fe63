"""What others saw of a run, and what was released to them: what noninterference is about."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from oneiros.kernel import events as e
from oneiros.kernel.readings import leaves
from tests.security.requests import ANN, BANK, BOB, Asked
from tests.security.world import Output, source_of

BY_PERSON = "person"
BY_WORDS = "words"


# Who stands in the fields that the world's tools vouch for.
_VOUCHED = (
    *map(str.casefold, (ANN, BOB, BANK)),
    "bank@b.example",
    "eve@evil.com",
    "bob stone",
    "ann lee",
)
# Of all tools that tell somebody something.
_FIELDS = frozenset(
    (
        *("amount", "body", "cc", "channel", "date", "day", "id", "limit", "participants", "path"),
        *("person", "prompt", "query", "recipient", "subject", "text", "title", "to", "url"),
    )
)


@dataclass(frozen=True, slots=True)
class Release:
    """A line of the journal by which somebody outside gets to know something."""

    process: str
    call_id: str
    tool: str
    readers: tuple[str, ...]
    by: str  # what the user wrote, or a person's answer
    said: str = ""  # what the person was shown


@dataclass(frozen=True, slots=True)
class Before:
    """What was so when a call was made."""

    messages: tuple[Asked, ...]  # of the user
    sources: frozenset[str]  # private ones that were read
    clean: bool  # whether nothing untrusted was


@dataclass(frozen=True, slots=True)
class Run:
    """What happened, as far as it matters to others."""

    outputs: tuple[Output, ...]
    releases: tuple[Release, ...]
    before: Mapping[tuple[str, str], Before]

    @property
    def steps(self) -> list[tuple[object, ...]]:
        """The releases as they are compared: to whom, by which tool and why, in order."""
        by_process = defaultdict(list)
        for one in self.releases:
            by_process[one.process].append((one.tool, one.readers, one.by, one.said))
        return sorted(by_process.items())


def observed(
    outputs: Iterable[Output],
    events: Iterable[tuple[str, e.Event]],
    requests: Iterable[Asked],
    load: Callable[[str], str],
) -> Run:
    """A run from its outputs and its journal.

    Args:
        outputs: in order.
        events: of all processes, with the process's name.
        requests: what the user wrote.
        load: reads a text by its hash.
    """
    known = {one.text: one for one in requests}
    releases = []
    ended = set()  # a process may be stopped before it makes a call
    always: dict[str, set[str]] = defaultdict(set)  # tools
    calls: dict[tuple[str, str], e.CallIntended] = {}
    messages: dict[str, tuple[Asked, ...]] = defaultdict(tuple)
    sources: dict[str, frozenset[str]] = defaultdict(frozenset)
    before = {}
    for process, event in events:
        match event:
            case e.Forked(parent=parent) if str(parent) in messages:
                messages[process] = messages[str(parent)]
                sources[process] = sources[str(parent)]
            case e.Received():
                for page in event.pages:
                    if page.sender == "user":
                        said = str(json.loads(load(page.message))["content"])
                        messages[process] += (known[said],)
            case e.CallIntended():
                calls[process, event.call_id] = event
                if event.decision == "allow":
                    before[process, event.call_id] = Before(
                        messages[process], sources[process], event.label.trusted
                    )
                    by = BY_PERSON if event.tool in always[process] else BY_WORDS
                    said = load(event.arguments) if by == BY_PERSON else ""
                    if event.released or by == BY_PERSON:
                        names = (process, event.call_id, event.tool, event.released)
                        releases.append(Release(*names, by, said))
            case e.CallAnswered(allowed=True):
                call = calls[process, event.call_id]
                said = load(call.arguments)
                releases.append(Release(process, event.call_id, call.tool, (), BY_PERSON, said))
                if event.always:  # and of the same meaning from now on
                    always[process].add(call.tool)
            case e.CallEnded(outcome="done" | "failed" | "unknown"):
                ended.add((process, event.call_id))
                source = source_of(calls[process, event.call_id].tool)
                if source is not None:
                    sources[process] |= {source}
    releases = [one for one in releases if (one.process, one.call_id) in ended]
    return Run(tuple(outputs), tuple(releases), before)


def unreleased(run: Run) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """What each reader saw by calls of each process that were not released to that reader."""
    released = {(one.process, one.call_id): one for one in run.releases}
    seen = defaultdict(list)
    for output in run.outputs:
        release = released.get((output.process, output.call_id))
        named = release is not None and (
            release.by == BY_PERSON or output.reader in map(str.casefold, release.readers)
        )
        if not named:
            seen[output.process, output.reader].append((output.tool, output.said))
    return dict(seen)


def occurrences(run: Run) -> dict[str, list[tuple[str, str]]]:
    """That outputs were there at all: reader and tool, in order, for each process."""
    seen = defaultdict(list)
    for output in run.outputs:
        seen[output.process].append((output.reader, output.tool))
    return dict(seen)


def beyond_the_request(run: Run) -> list[str]:
    """What left because of the user's words, and is not what any message of theirs asks for."""
    found = []
    outputs = defaultdict(list)
    for output in run.outputs:
        outputs[output.process, output.call_id].append(output)
    for one in run.releases:
        if one.by == BY_PERSON:
            continue
        then = run.before[one.process, one.call_id]
        messages, sources = then.messages, then.sources
        said = "\n".join(message.text for message in messages)
        tools = {name for message in messages for name in message.tools}
        readers = {name for message in messages for name in message.readers}
        meant = {name for message in messages for name in message.sources}
        for output in outputs[one.process, one.call_id]:
            # Words of the user's that are nobody's address reach nobody.
            named = output.reader in readers or output.reader in said.casefold()
            # Nobody else has had a say yet, so a name that a tool vouches for will do.
            named = named or (then.clean and output.reader in _VOUCHED)
            asked_for = output.tool in tools and named and sources <= meant
            if not asked_for and not _is_own_words(output.said, said):
                found.append(f"{output.tool} to {output.reader} after {sources}: {output.said}")
    return found


def _is_own_words(arguments: str, said: str) -> bool:
    """Whether arguments say nothing but words of a text, each as it stands there."""
    known = json.loads(arguments)
    flat = all(
        isinstance(value, str | int | float)
        or (isinstance(value, list) and all(isinstance(one, str) and one for one in value))
        for value in known.values()
    )
    stems = {word[:3].casefold() for word in re.findall(r"\w+", said)}
    numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", said)}

    def own(value: object) -> bool:
        if isinstance(value, bool):
            return False
        if isinstance(value, int | float):
            return float(value) in numbers
        text = str(value)
        if not text or text in said or text[0].swapcase() + text[1:] in said:
            return True
        if text.isalpha():
            return text[:3].casefold() in stems
        return bool(re.fullmatch(r"[\d\s:.,/+T-]{0,25}", text)) and bool(re.search(r"\d", said))

    return flat and known.keys() <= _FIELDS and all(own(value) for _, value in leaves(known))
