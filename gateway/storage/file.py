"""The database file: its lock, its connections, and the refusal of what this program must not touch.

`prepare` is called by database when the gateway starts; `connect` also by writer and readers, to go on after a fault.
SQLite before 3.51.3 can damage a file in which two connections write or make checkpoints at once. So there is exactly
one writing connection, which makes every checkpoint, and a lock that keeps a second gateway out.
"""

import fcntl
import logging
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.storage import migrate

BUSY_SECONDS = 3.0
"""How long to wait for a lock that another process holds."""

_log = logging.getLogger(__name__)
_CHECKED_BYTES = 32 << 20
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DatabaseRefusedError(Exception):
    """The file must not be used as it is. The text says why and what to do; the file was left alone."""


def unavailable(error: sqlite3.Error | OSError | str) -> GatewayError:
    """STORAGE_UNAVAILABLE for what the database or the system said."""
    return GatewayError(
        error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE, f"the database cannot be used: {error}; nothing was written"
    )


def met_damage(error: BaseException) -> bool:
    """Whether SQLite read a part of the file that makes no sense."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def damaged_part(error: BaseException) -> GatewayError:
    """INTERNAL for who needs a damaged part of the file: another try would not help, and all others can go on."""
    return GatewayError(
        error_pb2.ERROR_REASON_INTERNAL, f"a part of the database is damaged: {error}; nothing was written"
    )


def lock(path: Path) -> int:
    """Take the lock beside the database, which ends with the process or by os.close. Returns its descriptor.

    Raises DatabaseRefusedError when another gateway has it.
    """
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DatabaseRefusedError(f"{path} is in use by another gateway; stop it or choose another home") from error
    return descriptor


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection to a file that exists, in autocommit mode: transactions are begun in so many words."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA cache_size = -4000")
        if not read_only:
            # What a savepoint or a statement may have to take back needs no file.
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
            # The writer makes its checkpoints after it has answered; this is for a log that grows faster than that.
            connection.execute("PRAGMA wal_autocheckpoint = 16384")
            connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def close(connection: sqlite3.Connection | None) -> None:
    """Close a connection that may be broken."""
    if connection is not None:
        try:
            connection.close()
        except sqlite3.Error as error:
            _log.error("a connection could not be closed: %s", error)


def prepare(path: Path) -> sqlite3.Connection:
    """The writing connection to a file that is sound and has the present schema; makes a file where there is none.

    The lock must be held. Raises DatabaseRefusedError, or STORAGE_UNAVAILABLE where the cause may go away.
    """
    connection = None
    try:
        _look(path)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = connect(path, read_only=False)
        _prepare(path, connection)
    except (OSError, sqlite3.Error, DatabaseRefusedError) as error:
        close(connection)
        if met_damage(error):
            raise _damaged(path, str(error)) from error
        if isinstance(error, DatabaseRefusedError):
            raise
        raise unavailable(f"{path}: {error}") from error
    return connection


def _look(path: Path) -> None:
    """Raises DatabaseRefusedError for a file of which nothing may be changed, not even its mode, before it is."""
    log, journal = (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "journal"))
    size, logged, journaled = (file.stat().st_size if file.exists() else 0 for file in (path, log, journal))
    if journaled:
        # A change was broken off, and only a connection that may write can take it back. What it finds is looked at.
        return
    if size:
        # What has no log can be read without a lock and without a file made beside it.
        how = "mode=ro" if logged else "immutable=1"
        connection = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=BUSY_SECONDS)
        try:
            _version(path, connection)
        finally:
            close(connection)
    elif logged:
        # SQLite would take it for a new one, and throw away the log with all that is in it.
        raise _damaged(path, f"it is empty or missing, and {log.name} is not")


def _version(path: Path, connection: sqlite3.Connection) -> str | None:
    """The migration the file is at, None when there is nothing in it. Raises DatabaseRefusedError when that is not for
    this program."""
    version = migrate.version(connection)
    if version is None and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise DatabaseRefusedError(f"{path} is a database of another program; choose another home")
    if version is not None and version > migrate.HEAD:
        raise DatabaseRefusedError(
            f"{path} has schema {version}, and this program knows schemas up to {migrate.HEAD}; "
            "use the newer program that wrote it"
        )
    return version


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise DatabaseRefusedError(
            f"{path} lies where SQLite cannot keep a write-ahead log; choose a home on a local disk"
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    (page_count,) = connection.execute("PRAGMA page_count").fetchone()
    size = path.stat().st_size
    if size < page_size * page_count:
        raise _damaged(path, f"it should have {page_size * page_count} bytes and has {size}")
    if size <= _CHECKED_BYTES:
        (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise _damaged(path, " ".join(finding.split()))
    version = _version(path, connection)
    if version is None:
        migrate.create(connection)
    elif version < migrate.HEAD:
        migrate.upgrade(connection)


def _damaged(path: Path, finding: str) -> DatabaseRefusedError:
    return DatabaseRefusedError(
        f"{path} is damaged ({finding}); it was left as it is: put a backup in its place, or move it away, "
        "and its -wal with it"
    )
