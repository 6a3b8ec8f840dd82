"""Readers: threads that read, each with its own read-only connection, each work on a snapshot. Called by database."""

import asyncio
import logging
import sqlite3
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from gateway.storage.file import close, connect, damaged_part, met_damage, unavailable
from gateway.storage.statement import Link
from gateway.storage.transaction import SqlTransaction
from gateway.storage.writer import WAITING, Job, Outcome, Work, deliver, storage_failure

THREADS = 2

_log = logging.getLogger(__name__)


class Readers:
    """Take works from one line."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            Thread(target=self._run, name=f"storage-reader-{number}", daemon=True) for number in range(THREADS)
        ]

    def start(self) -> None:
        """Begin to take works."""
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, future: "asyncio.Future[Any]") -> None:
        """Put a work in line; `future` gets its outcome. Raises STORAGE_UNAVAILABLE when too many wait."""
        if self._jobs.qsize() >= WAITING:
            raise unavailable(f"{WAITING} reads are waiting already")
        self._jobs.put((work, future))

    def stop(self) -> None:
        """Finish what waits, then close the connections. Nothing may be submitted afterwards."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self) -> None:
        """Wait for the end of `stop`."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (job := self._jobs.get()) is not None:
            connection = self._read(*job, connection)
            del job  # or it would keep what was read until the next one comes
        close(connection)

    def _read(
        self, work: Work, future: "asyncio.Future[Any]", connection: sqlite3.Connection | None
    ) -> sqlite3.Connection | None:
        """Run a work and answer it. Returns the connection to go on with."""
        try:
            connection = connection or connect(self._path, read_only=True)
            connection.execute("BEGIN")
            answer: list[Outcome] = [(future, work(SqlTransaction(Link(connection))), None)]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it belongs to the one who sent the work
            answer = [(future, None, error)]
            if storage_failure(error):
                damage = met_damage(error)
                _log.error("a read failed: %s", error, exc_info=damage)
                answer = [(future, None, damaged_part(error) if damage else unavailable(str(error)))]
                close(connection)
                connection = None
            elif connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        try:
            self._loop.call_soon_threadsafe(deliver, answer)
        except RuntimeError:
            _log.warning("the event loop ended before a read was answered")
        return connection
