"""Which texts of the journal may be erased: those that nothing else needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import sqlalchemy as sa

from oneiros.kernel import events as e
from oneiros.kernel.journal_schema import BLOB, EVENT
from oneiros.kernel.state import STATE, ProcessState

# Hashes are the only such strings in events: names that look like one keep a text, never lose one.
_HASH = re.compile(rb'"([0-9a-f]{64})"')
# What a process runs with: a fold, or its program, needs them for as long as there are events.
_SETTING = re.compile(rb'"(?:state|sampling|tools|options)":"([0-9a-f]{64})"')


def is_fork_state(connection: sa.Connection, blob: str) -> bool:
    """Whether a blob is the state that a process was forked with, which its fold needs."""
    return blob in _fork_states(connection).values()


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
        others.update(_HASH.findall(STATE.dump_json(replace(state, pages=(), evicted=()))))
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
