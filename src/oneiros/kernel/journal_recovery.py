"""A journal's file that is damaged: what can be read of it goes into a new one."""

from __future__ import annotations

from pathlib import Path

from oneiros.kernel.journal_database import Database
from oneiros.kernel.journal_schema import migrate


def open_sound(path: Path) -> tuple[Database, list[str]]:
    """Open a journal's file, of this version when this returns."""
    database = Database(path)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database, []
