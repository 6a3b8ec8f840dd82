"""Database: the port `Store` over one SQLite file. Made and closed by app, called by use cases."""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gateway.storage.file import lock, prepare, unavailable
from gateway.storage.readers import Readers
from gateway.storage.transaction import SqlTransaction
from gateway.storage.writer import Writer
from gateway.usecases.ports import Transaction

T = TypeVar("T")


class Database:
    """See the port. `open` makes one; all calls come from the event loop it was opened on."""

    def __init__(self, path: Path, descriptor: int, connection: sqlite3.Connection) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._writer = Writer(path, connection, self._loop)
        self._readers = Readers(path, self._loop)
        self._closed = False
        self._writer.start()
        self._readers.start()

    @classmethod
    async def open(cls, path: Path) -> "Database":
        """Open the file, or make it (0600; its folder 0700), and bring its schema up to date.

        Raises DatabaseRefusedError when the file is damaged, newer than this program or in use by another gateway, and
        STORAGE_UNAVAILABLE when the system denies it.
        """
        return cls(path, *await asyncio.to_thread(_open, path))

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction and return after it is committed durably. If it raises, nothing of it is written.

        A caller that is cancelled meanwhile does not stop the work: it is written whole or not at all. Raises what the
        work raises, STORAGE_UNAVAILABLE, and INTERNAL when the work meets a damaged part of the file.
        """
        return await self._submitted(self._writer, work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one consistent snapshot, which has every write that was answered before. Raises as `write`."""
        return await self._submitted(self._readers, work)

    async def check(self) -> None:
        """Raises STORAGE_UNAVAILABLE unless the database can be written; writes a page to find out."""
        await self._submitted(self._writer, SqlTransaction.prove_writable)

    async def close(self) -> None:
        """Finish what waits, then let go of the file. Later calls raise STORAGE_UNAVAILABLE. Idempotent."""
        if not self._closed:
            self._closed = True
            self._writer.hand_over()
            await asyncio.to_thread(self._close)

    async def _submitted(self, threads: Writer | Readers, work: Callable[[Any], T]) -> T:
        if self._closed:
            raise unavailable("it is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        threads.submit(work, future)
        return await future

    def _close(self) -> None:
        # The last connection to close makes the last checkpoint; it must be the writer's.
        self._readers.stop()
        self._readers.join()
        self._writer.stop()
        self._writer.join()
        os.close(self._descriptor)


def _open(path: Path) -> tuple[int, sqlite3.Connection]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = lock(path)
    except OSError as error:
        raise unavailable(error) from error
    try:
        return descriptor, prepare(path)
    except BaseException:
        os.close(descriptor)
        raise
