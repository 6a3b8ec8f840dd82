"""Writer: the one thread that writes: all works that wait in one transaction, and their answers after COMMIT.

Called by database. One commit, and so one wait for the disk, serves all works that came in during the commit before,
and at least those of a few rounds of the event loop.
A work that raises takes back its own rows only: then all works of the transaction are taken back and run again, each
under a savepoint. One that meets damage in the file ends its transaction; the halves of the batch are then tried each
in one of its own, until the work is alone. After the answers, never before, the same connection makes checkpoints.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from gateway.storage.file import BUSY_SECONDS, close, connect, damaged_part, met_damage, unavailable
from gateway.storage.statement import Link
from gateway.storage.transaction import SqlTransaction

BATCH = 512
"""Most works in one transaction."""
WAITING = 10_000
"""Most works that may wait; the next one is refused."""
ROUNDS = 8
"""How many rounds of the event loop a work waits for others before the thread is woken. A busy loop finds some in them,
and is not interrupted for each; to one that has nothing else to do they are some microseconds."""
GATHER_SECONDS = 0.002
"""When the rounds end at the latest."""

_WORKS_PER_CHECKPOINT = 500
_LARGE_LOG = 16_384
"""Pages in the write-ahead log from which on a checkpoint waits for the readers, so that the log starts again."""
_READERS_MS = 50
"""How long it waits for them. After that one of another process holds the log, and the log may double meanwhile."""

Work = Callable[[SqlTransaction], Any]
Job = tuple[Work, "asyncio.Future[Any]"]
Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_log = logging.getLogger(__name__)


def deliver(outcomes: list[Outcome]) -> None:
    """Resolve futures; runs on their event loop. A future whose caller has gone is left alone."""
    for future, value, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        elif isinstance(error, StopIteration):
            # A future takes no such exception.
            future.set_exception(RuntimeError("a work raised StopIteration"))
        else:
            future.set_exception(error)


def storage_failure(error: BaseException) -> bool:
    """Whether the database failed, and not the work: then its whole transaction is lost."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


class Writer:
    """Owns the writing connection from `start` to the end of `join`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._gathered: list[Job] = []
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="storage-writer", daemon=True)
        self._works = 0
        self._large = _LARGE_LOG
        self._connection: sqlite3.Connection | None = None
        self._use(connection)

    def _use(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._transaction = SqlTransaction(Link(connection))

    def start(self) -> None:
        """Begin to take works."""
        self._thread.start()

    def submit(self, work: Work, future: "asyncio.Future[Any]") -> None:
        """Put a work in line; `future` gets its outcome. Raises STORAGE_UNAVAILABLE when too many wait."""
        if self._jobs.qsize() + len(self._gathered) >= WAITING:
            raise unavailable(f"{WAITING} writes are waiting already")
        self._gathered.append((work, future))
        if len(self._gathered) == 1:
            self._loop.call_soon(self._gather, ROUNDS, self._loop.time() + GATHER_SECONDS)

    def _gather(self, left: int, until: float) -> None:
        if left > 1 and self._loop.time() < until:
            self._loop.call_soon(self._gather, left - 1, until)
        else:
            self.hand_over()

    def hand_over(self) -> None:
        """Let the thread have what waits for others."""
        jobs, self._gathered = self._gathered, []
        for job in jobs:
            self._jobs.put(job)

    def stop(self) -> None:
        """Finish what was handed over, then close the connection. Nothing may be submitted afterwards."""
        self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end of `stop`."""
        self._thread.join()

    def _run(self) -> None:
        while self._next():
            if self._works >= _WORKS_PER_CHECKPOINT and self._jobs.empty():
                self._checkpoint()
        close(self._connection)

    def _next(self) -> bool:
        """Wait for works, commit all there are and answer them. Returns whether more may come."""
        jobs = [self._jobs.get()]
        jobs += [self._jobs.get() for _ in range(min(self._jobs.qsize(), BATCH - 1))]
        batch = [job for job in jobs if job is not None]
        if batch:
            outcomes = self._commit(batch)
            self._works += len(batch)
            try:
                self._loop.call_soon_threadsafe(deliver, outcomes)
            except RuntimeError:
                _log.warning("the event loop ended before %d writes were answered", len(outcomes))
        return len(batch) == len(jobs)

    def _commit(self, batch: list[Job]) -> list[Outcome]:
        try:
            if self._connection is None:
                self._use(connect(self._path, read_only=False))
            connection = self._connection
            assert connection is not None
            connection.execute("BEGIN IMMEDIATE")
            try:
                outcomes = self._together(batch, connection)
            except Exception as error:
                # Damage is the work's own: only of what it looks for is it known.
                if storage_failure(error) and not met_damage(error):
                    raise
                connection.execute("ROLLBACK")
                self._transaction.forget()
                if len(batch) > 1:
                    middle = len(batch) // 2
                    return self._commit(batch[:middle]) + self._commit(batch[middle:])
                if met_damage(error):
                    _log.error("a work met damage in the database", exc_info=error)
                    error = damaged_part(error)
                return [(batch[0][1], None, error)]
            # What fails from here on, be it for damage, is no work's own.
            connection.execute("COMMIT")
            return outcomes
        except sqlite3.Error as error:
            _log.error("a transaction of %d works failed: %s", len(batch), error)
            self._heal()
            return [(future, None, unavailable(error)) for _, future in batch]

    def _together(self, batch: list[Job], connection: sqlite3.Connection) -> list[Outcome]:
        """Run works in the transaction that has begun. Raises what a lone work raises, and the error with which the
        database itself fails or shows damage: SQLite writes nothing more in such a transaction, savepoints or not."""
        transaction = self._transaction
        try:
            return [(future, work(transaction), None) for work, future in batch]
        except Exception as error:
            if len(batch) == 1 or storage_failure(error):
                raise
        connection.execute("ROLLBACK")
        transaction.forget()
        connection.execute("BEGIN IMMEDIATE")
        return self._apart(batch, connection)

    def _apart(self, batch: list[Job], connection: sqlite3.Connection) -> list[Outcome]:
        """Run works one of which raises. Savepoints cost a copy of every page, so the works of nearly all transactions
        do without. Raises the error with which the database itself fails or shows damage."""
        outcomes: list[Outcome] = []
        for work, future in batch:
            connection.execute("SAVEPOINT work")
            try:
                value = work(self._transaction)
            except Exception as error:
                if storage_failure(error):
                    raise
                connection.execute("ROLLBACK TO work")
                self._transaction.forget()
                outcomes.append((future, None, error))
            else:
                outcomes.append((future, value, None))
            connection.execute("RELEASE work")
        return outcomes

    def _heal(self) -> None:
        """Take back the transaction. The connection goes on: it knows how much of the log counts, and writes over the
        rest. A new one could find a commit in the log that was refused because its fsync failed."""
        connection = self._connection
        self._transaction.forget()
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            _log.error("a rollback failed, a new connection is made: %s", error)
            close(connection)
            self._connection = None

    def _checkpoint(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self._works = 0
        try:
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > self._large:
                connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
                (held, _, _) = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                connection.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}")
                self._large = pages * 2 if held else _LARGE_LOG
        except sqlite3.Error as error:
            _log.error("a checkpoint failed: %s", error)
