"""The journal's file: one connection kept open, its transactions, and what its errors mean."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

import sqlalchemy as sa

from oneiros.errors import JournalError

# Marks the file as a journal of Oneiros (`PRAGMA application_id`): "ONEI".
APPLICATION = 0x4F4E4549
WAIT = 1.0  # seconds for another program's transaction to end; the kernel stands still meanwhile
# Pages of the write-ahead log after which it is copied into the database, with the only fsyncs
# that an append which need not be durable ever waits for.
LOG_PAGES = 4_000


class DamagedFileError(JournalError):
    """Pages of the journal's file are damaged; opening the journal again salvages the others."""


class Database:
    """An SQLite file in WAL mode. What is committed survives the process's death.

    It survives the machine's death too where the transaction was durable, or once the write-ahead
    log was synchronised after it.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make an empty one.

        Raises:
            JournalError: it cannot be opened, or is another program's database.
        """
        self.path = path
        engine = sa.create_engine(
            f"sqlite:///{path}",
            connect_args={"timeout": WAIT, "isolation_level": None, "check_same_thread": False},
            poolclass=sa.pool.StaticPool,
        )
        # The driver would begin transactions by itself, and only before some statements.
        sa.event.listen(engine, "begin", _begin)
        with self._explained():
            self.connection = engine.connect()
            self.driver = _driver(self.connection)
            try:
                self._prepare()
            except (sqlite3.Error, JournalError):
                self.close()
                raise

    def _prepare(self) -> None:
        (application,) = self.driver.execute("PRAGMA application_id").fetchone()
        (tables,) = self.driver.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != APPLICATION and (application or tables):
            raise JournalError(
                f"{self.path} is a database of another program: move it away, or name another "
                "data folder."
            )
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            f"PRAGMA wal_autocheckpoint = {LOG_PAGES}",
            "PRAGMA secure_delete = ON",  # erased texts are overwritten, not only forgotten
        ):
            self.driver.execute(statement)

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sa.Connection]:
        """A transaction: all of it is written, or, after any exception, nothing.

        One within another is a part of it.

        Args:
            durable: whether it has reached the disk, and not only the operating system, when the
                block is left.

        Raises:
            JournalError: the disk is full, another program holds a lock, the file is damaged.
        """
        if self.connection.in_transaction():
            yield self.connection
            return
        with self._explained():
            if durable:
                self.driver.execute("PRAGMA synchronous = FULL")
            try:
                with self.connection.begin():
                    yield self.connection
            finally:
                if durable:
                    self.driver.execute("PRAGMA synchronous = NORMAL")

    def flush_log(self) -> None:
        """Copy the write-ahead log into the database and empty it. Raises JournalError."""
        with self._explained():
            self.driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self, *, indexes: bool = False) -> None:
        """Read the whole file, which takes time in proportion to its size.

        Args:
            indexes: whether to look, too, if every index says what its table says.

        Raises:
            DamagedFileError: it is damaged.
        """
        kind = "integrity" if indexes else "quick"
        with self._explained():
            (found,) = self.driver.execute(f"PRAGMA {kind}_check(1)").fetchone()
        if found != "ok":
            raise DamagedFileError(f"{self.path} is damaged: {' '.join(found.split())}.")

    def close(self) -> None:
        """Close the file; the write-ahead log is copied into it."""
        self.connection.close()
        self.connection.engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            if not isinstance(error.orig, sqlite3.Error):
                raise
            raise self._noted(explained(error.orig, self.path)) from error
        except sqlite3.Error as error:
            raise self._noted(explained(error, self.path)) from error

    def _noted(self, error: JournalError) -> JournalError:
        if isinstance(error, DamagedFileError):
            suspect(self.path).touch()
        return error


def suspect(path: Path) -> Path:
    """The file that is there once a database was found to be damaged while it was used.

    The next opening then looks at all of it, however large it is.
    """
    return path.with_suffix(".suspect")


def _begin(connection: sa.Connection) -> None:
    _driver(connection).execute("BEGIN")


def _driver(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def copy_database(source: Path, target: Path) -> None:
    """Copy a database that may be in use, as it is at one moment.

    Raises:
        JournalError: the target exists or cannot be written, or the source cannot be read.
    """
    if target.exists():
        raise JournalError(f"{target} exists already: name another file for the copy.")
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as reader,
            closing(sqlite3.connect(unfinished)) as writer,
        ):
            reader.backup(writer)
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
    except sqlite3.Error as error:
        unfinished.unlink(missing_ok=True)
        raise explained(error, target) from error
    except OSError as error:
        raise JournalError(f"{source} cannot be copied to {target}: {error.strerror}.") from error


def explained(error: sqlite3.Error, path: Path) -> JournalError:
    """What an error of SQLite means for a user, and what to do about it."""
    # A primary result code is the low byte of an extended one (https://sqlite.org/rescode.html).
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return JournalError(
                f"{path}: the disk is full, and nothing of the last step was written. Free some "
                "space; nothing else has to be done."
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return JournalError(
                f"{path} is locked by another program, and nothing of the last step was written. "
                "Close what has it open (a database browser, a backup)."
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DamagedFileError(
                f"{path} is damaged ({error}). Stop Oneiros and start it again: it keeps the "
                "damaged file, and salvages into a new one what can be read."
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return JournalError(
                f"{path} cannot be written ({error}): check the permissions of the data folder "
                "and of the files in it."
            )
        case sqlite3.SQLITE_IOERR:
            return JournalError(
                f"{path} could not be read or written ({error}), and nothing of the last step was "
                "written. Check the disk, its free space and the limit on the size of files."
            )
    return JournalError(f"{path}: {error}.")


def lock(path: Path) -> IO[str]:
    """Lock a data folder for as long as the returned file is open, or this process lives.

    Raises:
        JournalError: another process, which is named, has it.
    """
    try:
        file = path.open("a+")
    except OSError as error:
        raise JournalError(f"{path} cannot be opened: {error.strerror}.") from error
    try:
        # The lock goes with its process, however that ends; the file's content is only a name.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise JournalError(
            f"The data folder {path.parent} is in use by the process with pid {holder}: use that "
            "one, stop it, or name another data folder."
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
