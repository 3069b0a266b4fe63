"""Which texts of the journal may be erased: those that nothing else needs."""

from __future__ import annotations

import re

import sqlalchemy as sa

from oneiros.kernel import events as e
from oneiros.kernel.journal_schema import BLOB, EVENT

# Hashes are the only such strings in events: names that look like one keep a text, never lose one.
_HASH = re.compile(rb'"([0-9a-f]{64})"')


def is_fork_state(connection: sa.Connection, blob: str) -> bool:
    """Whether a blob is the state that a process was forked with, which its fold needs."""
    return blob in _fork_states(connection).values()


def erasable_blobs(connection: sa.Connection, pid: int) -> set[str]:
    """The hashes of all texts that events of one process name, and those of no other.

    Reads every event, as no list is kept: appending is frequent, and erasing is not.
    """
    forks = _fork_states(connection)
    own = _hashes(connection, EVENT.c.pid == pid, forks.get(pid))
    others = _hashes(connection, EVENT.c.pid != pid, None)
    for other, state in forks.items():
        if other != pid:
            others |= _hashes_of_state(connection, state)
    return own - others - set(forks.values())


def _hashes(
    connection: sa.Connection, where: sa.ColumnElement[bool], fork_state: str | None
) -> set[str]:
    found: set[str] = set()
    for body in connection.execute(sa.select(EVENT.c.body).where(where)).scalars():
        found.update(match.decode() for match in _HASH.findall(body))
    if fork_state is not None:
        found |= _hashes_of_state(connection, fork_state)
    return found


def _hashes_of_state(connection: sa.Connection, blob: str) -> set[str]:
    row = sa.select(BLOB.c.data).where(BLOB.c.hash == bytes.fromhex(blob))
    data = connection.execute(row).scalar_one_or_none()
    return {match.decode() for match in _HASH.findall(data or b"")}


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
