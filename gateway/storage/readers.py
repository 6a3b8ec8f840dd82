"""Readers: threads that read, each with its own read-only connection, each work on a snapshot. Called by database."""

import asyncio
import logging
import sqlite3
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from gateway.storage.file import close, connect, damaged_part, met_damage, unavailable
from gateway.storage.statement import Link
from gateway.storage.transaction import SqlTransaction
from gateway.storage.writer import WAITING, Job, Outcome, Work, deliver, storage_failure

THREADS = 2

_Opened = tuple[sqlite3.Connection, SqlTransaction]

_log = logging.getLogger(__name__)


class Readers:
    """Take works from one line; one that is submitted wakes one thread, the one that was busy last."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop
        # A queue that several threads wait at wakes all of them for each work.
        self._lock = Lock()
        self._line: deque[Job | None] = deque()
        self._idle: list[SimpleQueue[Job | None]] = []
        self._threads = [
            Thread(target=self._run, name=f"storage-reader-{number}", daemon=True) for number in range(THREADS)
        ]

    def start(self) -> None:
        """Begin to take works."""
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, future: "asyncio.Future[Any]") -> None:
        """Put a work in line; `future` gets its outcome. Raises STORAGE_UNAVAILABLE when too many wait."""
        if len(self._line) >= WAITING:
            raise unavailable(f"{WAITING} reads are waiting already")
        self._put((work, future))

    def stop(self) -> None:
        """Finish what waits, then close the connections. Nothing may be submitted afterwards."""
        for _ in self._threads:
            self._put(None)

    def join(self) -> None:
        """Wait for the end of `stop`."""
        for thread in self._threads:
            thread.join()

    def _put(self, job: Job | None) -> None:
        with self._lock:
            if not self._idle:
                self._line.append(job)
                return
            inbox = self._idle.pop()
        inbox.put(job)

    def _next(self, inbox: "SimpleQueue[Job | None]") -> Job | None:
        with self._lock:
            if self._line:
                return self._line.popleft()
            self._idle.append(inbox)
        return inbox.get()

    def _run(self) -> None:
        opened: _Opened | None = None
        inbox: SimpleQueue[Job | None] = SimpleQueue()
        while (job := self._next(inbox)) is not None:
            opened = self._read(*job, opened)
            del job  # or it would keep what was read until the next one comes
        if opened is not None:
            close(opened[0])

    def _read(self, work: Work, future: "asyncio.Future[Any]", opened: _Opened | None) -> _Opened | None:
        """Run a work and answer it. Returns the connection to go on with."""
        try:
            opened = opened or self._open()
            connection, transaction = opened
            connection.execute("BEGIN")
            answer: list[Outcome] = [(future, work(transaction), None)]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - it belongs to the one who sent the work
            answer = [(future, None, error)]
            if storage_failure(error):
                damage = met_damage(error)
                _log.error("a read failed: %s", error, exc_info=damage)
                answer = [(future, None, damaged_part(error) if damage else unavailable(str(error)))]
                if opened is not None:
                    close(opened[0])
                opened = None
            elif opened is not None and opened[0].in_transaction:
                opened[0].execute("ROLLBACK")
        try:
            self._loop.call_soon_threadsafe(deliver, answer)
        except RuntimeError:
            _log.warning("the event loop ended before a read was answered")
        return opened

    def _open(self) -> _Opened:
        connection = connect(self._path, read_only=True)
        return connection, SqlTransaction(Link(connection))
