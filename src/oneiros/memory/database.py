"""SQLite files as memory uses them: one connection for all threads, readers beside writers."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sql


def open_database(path: Path, *pragmas: str) -> sql.Engine:
    """An engine with one connection, whose users see to it that one thread has it at a time.

    Args:
        path: the file; it is made when the connection is first used.
        pragmas: further settings of the connection, such as "foreign_keys = ON".
    """
    engine = sql.create_engine(
        sql.URL.create("sqlite", database=str(path)),
        poolclass=sql.pool.StaticPool,
        connect_args={"check_same_thread": False, "timeout": 10},
    )

    def configure(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]  # a DBAPI connection, untyped
        for pragma in ("journal_mode = WAL", *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    sql.event.listen(engine, "connect", configure)
    return engine
