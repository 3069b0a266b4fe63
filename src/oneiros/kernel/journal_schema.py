"""The journal's tables, and how a file of an older version becomes one of this version."""

from __future__ import annotations

import struct
import zlib

import sqlalchemy as sa

from oneiros.errors import JournalError
from oneiros.kernel.journal_database import APPLICATION, Database, copy_database

# Every version's statements, from an empty file on; a list that only grows. A file's version is
# how many of them it has seen. The tables below are what all of them together make.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION}",
        "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL)",
        "INSERT INTO meta VALUES ('version', 1), ('next_pid', 1)",
        "CREATE TABLE process (pid INTEGER NOT NULL PRIMARY KEY, ended BOOLEAN NOT NULL)",
        "CREATE INDEX process_live ON process (pid) WHERE NOT ended",
        """CREATE TABLE event (id INTEGER NOT NULL PRIMARY KEY, pid INTEGER NOT NULL,
            seq INTEGER NOT NULL, time FLOAT NOT NULL, version INTEGER NOT NULL,
            body BLOB NOT NULL, checksum INTEGER NOT NULL, UNIQUE (pid, seq))""",
        """CREATE TABLE blob (id INTEGER NOT NULL PRIMARY KEY, hash BLOB NOT NULL UNIQUE,
            data BLOB)""",
        """CREATE TABLE checkpoint (pid INTEGER NOT NULL PRIMARY KEY, seq INTEGER NOT NULL,
            shape TEXT NOT NULL, state BLOB NOT NULL, checksum INTEGER NOT NULL)""",
    ),
    (
        """CREATE TABLE damaged (id INTEGER NOT NULL PRIMARY KEY, found FLOAT NOT NULL,
            why TEXT NOT NULL, pid INTEGER NOT NULL, seq INTEGER NOT NULL, time FLOAT,
            version INTEGER, body BLOB, checksum INTEGER)""",
    ),
)
VERSION = len(MIGRATIONS)

METADATA = sa.MetaData()
# Numbers about the whole file: "version", and "next_pid", which no process had yet.
META = sa.Table(
    "meta",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)
PROCESS = sa.Table(
    "process",
    METADATA,
    sa.Column("pid", sa.Integer, primary_key=True),
    sa.Column("ended", sa.Boolean, nullable=False),
)
EVENT = sa.Table(
    "event",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),  # `events.VERSION` of the body
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.Integer, nullable=False),
    sa.UniqueConstraint("pid", "seq"),
)
BLOB = sa.Table(
    "blob",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),  # SHA-256
    sa.Column("data", sa.LargeBinary),  # NULL: erased
)
# A process's state at one of its events. Only ever a shortcut: each can be made from the events.
CHECKPOINT = sa.Table(
    "checkpoint",
    METADATA,
    sa.Column("pid", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("shape", sa.Text, nullable=False),  # of the state: others are not read
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("checksum", sa.Integer, nullable=False),
)
# Events that were set aside, as they were found.
DAMAGED = sa.Table(
    "damaged",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("found", sa.Float, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("time", sa.Float),
    sa.Column("version", sa.Integer),
    sa.Column("body", sa.LargeBinary),
    sa.Column("checksum", sa.Integer),
)


def event_checksum(pid: int, seq: int, time: float, version: int, body: bytes) -> int:
    """CRC-32 of an event's row: finds damage, not forgery."""
    return zlib.crc32(body, zlib.crc32(struct.pack("<qqdq", pid, seq, time, version)))


def migrate(database: Database) -> None:
    """Bring a file to this version; an older one is copied beside it first.

    Raises:
        JournalError: it is of a newer version, or the copy cannot be written.
    """
    version = _version(database)
    if version > VERSION:
        raise JournalError(
            f"{database.path} is of version {version}, and this Oneiros knows versions up to "
            f"{VERSION}: use the newer Oneiros that wrote it, or another data folder."
        )
    if 0 < version < VERSION:
        backup = database.path.with_suffix(f".version-{version}.sqlite")
        # A copy that is there already is of an earlier attempt, before any change.
        if not backup.exists():
            copy_database(database.path, backup)
    for number in range(version + 1, VERSION + 1):
        with database.transaction(durable=True) as connection:
            for statement in MIGRATIONS[number - 1]:
                connection.exec_driver_sql(statement)
            connection.execute(sa.update(META).where(META.c.key == "version").values(value=number))


def _version(database: Database) -> int:
    with database.transaction() as connection:
        if not sa.inspect(connection).has_table(META.name):
            return 0
        found = sa.select(META.c.value).where(META.c.key == "version")
        return int(connection.execute(found).scalar_one())
