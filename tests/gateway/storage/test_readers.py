import asyncio
import threading
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError, session_not_found
from gateway.storage import readers
from gateway.storage.database import Database
from tests.gateway.storage.samples import session


async def test_one_slow_read_does_not_hold_up_another(store: Database) -> None:
    go = threading.Event()
    slow = asyncio.create_task(store.read(lambda tx: go.wait(10)))
    async with asyncio.timeout(5):
        await store.read(lambda tx: tx.sessions.get("s1"))
    go.set()
    assert await slow


async def test_the_line_is_bounded(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "WAITING", 2)
    go, busy = threading.Event(), threading.Barrier(readers.THREADS + 1)

    def work(tx: object) -> None:
        busy.wait(10)
        assert go.wait(10)

    held = [asyncio.create_task(store.read(work)) for _ in range(readers.THREADS)]
    await asyncio.to_thread(busy.wait, 10)
    waiting = [asyncio.create_task(store.read(lambda tx: None)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError, match="2 reads are waiting already"):
        await store.read(lambda tx: None)
    go.set()
    await asyncio.gather(*held, *waiting)


async def test_what_a_work_raises_is_its_callers(store: Database) -> None:
    def work(tx) -> None:  # type: ignore[no-untyped-def]
        raise session_not_found("x")

    for _ in range(readers.THREADS * 2):
        with pytest.raises(GatewayError, match="there is no session 'x'"):
            await store.read(work)
    await store.write(lambda tx: tx.sessions.insert(session()))
    for _ in range(readers.THREADS * 2):
        assert await store.read(lambda tx: tx.sessions.get("s1")) is not None


async def test_a_read_that_meets_damage_fails_alone(damaged_store: Database, caplog: pytest.LogCaptureFixture) -> None:
    reads = [damaged_store.read(lambda tx, name=name: tx.messages.history(name)) for name in ("s1", "s2") * 3]
    results = await asyncio.gather(*reads, return_exceptions=True)
    for result in results[::2]:
        assert isinstance(result, GatewayError)
        assert result.reason == error_pb2.ERROR_REASON_INTERNAL
    assert [len(history) for history in results[1::2] if isinstance(history, list)] == [1] * 3
    # The log says where.
    assert "in history" in caplog.text


async def test_reads_that_wait_are_made_as_they_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "THREADS", 1)
    store = await Database.open(tmp_path / "gateway.db")
    go, made = threading.Event(), list[int]()
    slow = asyncio.create_task(store.read(lambda tx: go.wait(10)))
    waiting = [asyncio.create_task(store.read(lambda tx, n=n: made.append(n))) for n in range(5)]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(slow, *waiting)
    await store.close()
    assert made == [0, 1, 2, 3, 4]
