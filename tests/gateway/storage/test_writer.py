import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.storage import writer
from gateway.storage.database import Database
from gateway.storage.file import BUSY_SECONDS
from gateway.usecases.ports import Transaction
from tests.gateway.storage.samples import session


@asynccontextmanager
async def busy(store: Database) -> AsyncIterator[threading.Event]:
    """The writer has a work that ends when the event is set."""
    begun, go = threading.Event(), threading.Event()

    def work(tx: object) -> None:
        begun.set()
        assert go.wait(10)

    task = asyncio.create_task(store.write(work))
    await asyncio.to_thread(begun.wait, 10)
    yield go
    go.set()
    await task


@pytest.fixture
async def held(store: Database) -> AsyncIterator[threading.Event]:
    """The writer is busy until the event is set."""
    async with busy(store) as go:
        yield go


def trace(store: Database) -> list[str]:
    """The transactions that begin and end from now on."""
    log: list[str] = []
    connection = store._writer._connection
    assert connection is not None
    connection.set_trace_callback(lambda sql: log.append(sql) if sql in ("BEGIN IMMEDIATE", "COMMIT") else None)
    return log


async def test_what_waits_is_one_transaction(store: Database, held: threading.Event) -> None:
    works = [
        asyncio.create_task(store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}"))))
        for number in range(writer.BATCH + 10)
    ]
    await asyncio.sleep(0)
    log = trace(store)
    held.set()
    await asyncio.gather(*works)
    # The held one's COMMIT, then a full transaction, then the rest.
    assert log == ["COMMIT", *["BEGIN IMMEDIATE", "COMMIT"] * 2]


async def test_works_of_a_few_rounds_are_one_transaction(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GATHER_SECONDS", 60.0)
    log = trace(store)
    works = []
    for number in range(writer.ROUNDS // 2):
        works.append(asyncio.create_task(store.write(lambda tx, n=number: tx.sessions.insert(session(f"s{n}")))))
        await asyncio.sleep(0)
    await asyncio.gather(*works)
    assert log == ["BEGIN IMMEDIATE", "COMMIT"]


async def test_no_work_waits_for_long_rounds(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ROUNDS", 10**12)
    async with asyncio.timeout(10):
        await store.write(lambda tx: tx.sessions.insert(session()))


async def test_the_line_is_bounded(store: Database, held: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAITING", 3)
    works = [asyncio.create_task(store.write(lambda tx: None)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError, match="3 writes are waiting already"):
        await store.write(lambda tx: None)
    held.set()
    await asyncio.gather(*works)
    await store.write(lambda tx: None)


async def test_a_work_that_raises_is_taken_back_alone(store: Database, held: threading.Event) -> None:
    def refuses(tx) -> None:  # type: ignore[no-untyped-def]
        tx.sessions.insert(session("refused"))
        raise LookupError

    works = [
        asyncio.create_task(store.write(work))
        for work in (
            lambda tx: tx.sessions.insert(session("before")),
            refuses,
            lambda tx: tx.sessions.insert(session("after")),
        )
    ]
    await asyncio.sleep(0)
    held.set()
    results = await asyncio.gather(*works, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), LookupError, type(None)]
    stored = await store.read(lambda tx: tx.sessions.page(after=None, limit=9, agent_id="", deleted=False)[0])
    assert {found.session_id for found in stored} == {"before", "after"}


async def test_a_transaction_that_fails_is_nobodys(store: Database, held: threading.Event) -> None:
    """One work makes the database itself fail; those beside it in the transaction are told that they are not stored."""

    def breaks(tx) -> None:  # type: ignore[no-untyped-def]
        tx.sessions.insert(session("broken"))
        tx._link._execute("ROLLBACK")
        tx._link._execute("no such statement")

    works = [
        asyncio.create_task(store.write(lambda tx: tx.sessions.insert(session("before")))),
        asyncio.create_task(store.write(breaks)),
        asyncio.create_task(store.write(lambda tx: tx.sessions.insert(session("after")))),
    ]
    await asyncio.sleep(0)
    held.set()
    results = await asyncio.gather(*works, return_exceptions=True)
    assert [type(result) for result in results] == [GatewayError] * 3
    assert len({id(result) for result in results}) == 3
    assert await store.read(lambda tx: tx.sessions.page(after=None, limit=9, agent_id="", deleted=False)[0]) == []
    await store.write(lambda tx: tx.sessions.insert(session("later")))


async def test_checkpoints_keep_the_log_short(store: Database, path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_WORKS_PER_CHECKPOINT", 10)
    for number in range(200):
        await store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}", title="x" * 10_000)))
    log = path.with_name(path.name + "-wal")
    assert log.stat().st_size < 1_000_000
    assert path.stat().st_size > 1_500_000


async def test_somebody_elses_long_read_holds_up_no_write(
    store: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_WORKS_PER_CHECKPOINT", 10)
    monkeypatch.setattr(store._writer, "_large", 20)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM sessions").fetchone()
    began = time.monotonic()
    for number in range(100):
        await store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}", title="x" * 10_000)))
    assert time.monotonic() - began < BUSY_SECONDS
    reader.close()
    log = path.with_name(path.name + "-wal").stat().st_size
    for number in range(100, 400):
        await store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}", title="x" * 10_000)))
    assert path.with_name(path.name + "-wal").stat().st_size < 3 * log


async def test_a_work_that_stops_short_is_answered_as_are_its_neighbours(store: Database) -> None:
    outcomes = await asyncio.gather(
        *(store.write(lambda tx, n=n: next(iter(())) if n == 1 else n) for n in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [int, RuntimeError, int]


def adds(name: str):  # type: ignore[no-untyped-def]
    return lambda tx: tx.sessions.insert(session(name))


def needs_damage(tx: Transaction) -> None:
    tx.sessions.insert(session("beside damage"))
    tx.messages.history("s1")


def refuses(tx: Transaction) -> None:
    tx.sessions.insert(session("refused"))
    raise LookupError


async def stored(store: Database) -> set[str]:
    page = await store.read(lambda tx: tx.sessions.page(after=None, limit=99, agent_id="", deleted=False)[0])
    return {found.session_id for found in page}


@pytest.mark.parametrize("also", [adds("fifth"), refuses], ids=["sound", "refused"])
async def test_a_work_that_meets_damage_fails_alone(damaged_store: Database, also) -> None:
    works = [adds("first"), also, adds("third"), needs_damage, adds("fourth"), needs_damage]
    async with busy(damaged_store) as go:
        writes = [asyncio.create_task(damaged_store.write(work)) for work in works]
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*writes, return_exceptions=True)
    for result in (results.pop(3), results.pop()):
        assert isinstance(result, GatewayError)
        assert result.reason == error_pb2.ERROR_REASON_INTERNAL
        assert "a part of the database is damaged" in result.message
    assert [type(result) for result in results if result is not None] == ([LookupError] if also is refuses else [])
    kept = {"first", "third", "fourth"} | (set() if also is refuses else {"fifth"})
    assert await stored(damaged_store) == {"s1", "s2", "between"} | kept


async def test_a_lone_work_that_meets_damage_leaves_the_database_in_use(
    damaged_store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(GatewayError) as caught:
        await damaged_store.write(needs_damage)
    assert caught.value.reason == error_pb2.ERROR_REASON_INTERNAL
    # The log says where.
    assert "in needs_damage" in caplog.text
    await damaged_store.check()
    await damaged_store.write(adds("later"))
    assert await stored(damaged_store) == {"s1", "s2", "between", "later"}


async def test_damage_that_no_work_met_is_the_databases(store: Database, path: Path) -> None:
    """The first page is damaged, without which no transaction begins."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA user_version = 1")  # so that the writer looks at the page again
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    path.write_bytes(b"not a database " * 10 + path.read_bytes()[150:])
    for _ in range(2):
        with pytest.raises(GatewayError, match="not a database") as caught:
            await store.write(adds("third"))
        assert caught.value.reason == error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE
        with pytest.raises(GatewayError, match="not a database"):
            await store.check()
    other.close()
