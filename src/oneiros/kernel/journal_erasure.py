"""Which texts of the journal may be erased: those that nothing else needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import sqlalchemy as sa

from oneiros.kernel import events as e
from oneiros.kernel.journal_schema import BLOB, EVENT
from oneiros.kernel.state import STATE, ProcessState
from oneiros.memory.pages import Page, PageKind

# Hashes are the only such strings in events: names that look like one keep a text, never lose one.
_HASH = re.compile(rb'"([0-9a-f]{64})"')
# What a process runs with: a fold, or its program, needs them for as long as there are events.
_SETTING = re.compile(rb'"(?:state|sampling|tools|options)":"([0-9a-f]{64})"')


def is_fork_state(connection: sa.Connection, blob: str) -> bool:
    """Whether a blob is the state that a process was forked with, which its fold needs."""
    return blob in _fork_states(connection).values()


def texts_of_page(events: Iterable[e.Event], inbox: Iterable[str], number: int) -> set[str]:
    """The hashes of all texts that a page was made of, and of copies of it.

    They are what was delivered; the pieces of a reply, its token ids and the arguments of its
    calls; a result, its data and the arguments that it answers. A reply goes with the results of
    its calls, and with the process's result where that repeats it; any page, with the pages that
    quote it.

    Args:
        events: of the process, in their order.
        inbox: texts that it began with.
        number: the page's.
    """
    waiting, pieces = list(inbox), set[str]()
    made: dict[int, set[str]] = {}  # texts by page
    goes_with: dict[int, set[int]] = {}  # other pages by page
    calls: dict[str, set[str]] = {}  # texts by call
    asked: dict[str, int] = {}  # by call: the reply that asks for it
    reply: int | None = None  # the last one, until something else is answered
    for event in events:
        pages: tuple[Page, ...] = ()
        texts: set[str | None] = set()
        match event:
            case e.Started():
                pages = event.pages
            case e.Delivered():
                waiting.append(event.text)
            case e.Received():
                for page in event.pages:
                    made.setdefault(page.id, set()).update(waiting[:1])
                    del waiting[:1]
                pages, reply = event.pages, None
            case e.Noticed():
                pages = (event.page,)
                if event.page.kind is PageKind.RECALLED:
                    for quoted in event.page.stands_for:
                        goes_with.setdefault(quoted, set()).add(event.page.id)
            case e.Generated():
                pieces.add(event.text)
            case e.GenerationEnded(page=Page() as page):
                pages, reply = (page,), page.id
                texts, pieces = {*pieces}, set()
            case e.CallIntended():
                calls[event.call_id] = {event.arguments, *([event.why] if event.why else [])}
                if reply is not None:
                    asked[event.call_id] = reply
                    made[reply] |= calls[event.call_id]
            case e.CallSuspended(wake=wake):
                said = {text for text in (wake.question, wake.schema) if text is not None}
                calls.setdefault(event.call_id, set()).update(said)
            case e.CallEnded():
                pages = (event.page,)
                texts = {event.data, event.held, *waiting[: event.received]}
                texts |= calls.get(event.call_id, set())
                del waiting[: event.received]
                if event.call_id in asked:
                    goes_with.setdefault(asked[event.call_id], set()).add(event.page.id)
            case e.Ended() if reply is not None and event.result is not None:
                made[reply].add(event.result)
        for page in pages:
            own = {page.message, page.reply, *texts}
            made.setdefault(page.id, set()).update(text for text in own if text is not None)
    numbers, found = {number}, set[str]()
    for _ in range(2):  # the results of a reply's calls, and what quotes them
        numbers |= {other for one in numbers for other in goes_with.get(one, ())}
    return found.union(*(made.get(one, ()) for one in numbers))


def under_way(state: ProcessState) -> set[str]:
    """The hashes of texts that a process needs for what is not over yet."""
    over = replace(state, pages=(), evicted=(), readings=(), made=())
    needed = STATE.dump_json(over)
    return {found.decode() for found in _HASH.findall(needed)}


def erasable_blobs(connection: sa.Connection, state: ProcessState) -> set[str]:
    """The hashes of all texts of a process that neither it nor another one needs.

    Reads every event, as no list is kept: appending is frequent, and erasing is not.

    Args:
        connection: in a transaction.
        state: of the process, after its last event.
    """
    own, others = set[bytes](), set[bytes]()
    for body in _bodies(connection, EVENT.c.pid == state.pid):
        own.update(_HASH.findall(body))
        others.update(_SETTING.findall(body))
    for body in _bodies(connection, EVENT.c.pid != state.pid):
        others.update(_HASH.findall(body))
    for pid, blob in _fork_states(connection).items():
        snapshot = connection.execute(
            sa.select(BLOB.c.data).where(BLOB.c.hash == bytes.fromhex(blob))
        ).scalar_one_or_none()
        (own if pid == state.pid else others).update(_HASH.findall(snapshot or b""))
        others.update(_SETTING.findall(snapshot or b""))
    if state.end is None:
        others.update(text.encode() for text in under_way(state))
    return {found.decode() for found in own - others}


def _bodies(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Iterator[bytes]:
    yield from connection.execute(sa.select(EVENT.c.body).where(where)).scalars()


def _fork_states(connection: sa.Connection) -> dict[int, str]:
    """By process: the hash of the state that it was forked with."""
    states = {}
    for pid, body in connection.execute(
        sa.select(EVENT.c.pid, EVENT.c.body).where(EVENT.c.seq == 1)
    ):
        event = e.from_json(body)
        if isinstance(event, e.Forked):
            states[pid] = event.state
    return states
