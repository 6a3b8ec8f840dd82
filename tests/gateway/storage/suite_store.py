"""What every store must do with transactions."""

import asyncio
import threading

import pytest

from gateway.domain.error import GatewayError, session_not_found
from gateway.usecases.ports import Store, Transaction
from tests.gateway.storage.samples import message, session


async def a_work_that_raises_leaves_nothing_and_harms_no_other(store: Store) -> None:
    def good(number: int):  # type: ignore[no-untyped-def]
        return lambda tx: tx.sessions.insert(session(f"good{number}"))

    def bad(number: int):  # type: ignore[no-untyped-def]
        def work(tx: Transaction) -> None:
            tx.sessions.insert(session(f"bad{number}"))
            raise session_not_found(f"bad{number}")

        return work

    works = [store.write((bad if number % 3 == 0 else good)(number)) for number in range(60)]
    results = await asyncio.gather(*works, return_exceptions=True)
    for number, result in enumerate(results):
        if number % 3 == 0:
            assert isinstance(result, GatewayError)
            assert result.metadata == {"sessionId": f"bad{number}"}
        else:
            assert result is None
    found = await store.read(lambda tx: tx.sessions.page(after=None, limit=99, agent_id="", deleted=False)[0])
    assert {s.session_id for s in found} == {f"good{number}" for number in range(60) if number % 3}


async def a_read_has_every_write_that_was_answered(store: Store) -> None:
    for number in range(50):
        await store.write(lambda tx, number=number: tx.sessions.insert(session(f"s{number}")))
        assert await store.read(lambda tx, number=number: tx.sessions.get(f"s{number}")) is not None


async def a_read_sees_one_moment(store: Store) -> None:
    await store.write(lambda tx: tx.sessions.insert(session("s1")))
    reading, written = threading.Event(), threading.Event()

    def work(tx: Transaction) -> tuple[int, int]:
        before = len(tx.messages.history("s1"))
        reading.set()
        assert written.wait(10)
        return before, len(tx.messages.history("s1"))

    task = asyncio.create_task(store.read(work))
    await asyncio.to_thread(reading.wait, 10)
    await store.write(lambda tx: tx.messages.insert(message()))
    written.set()
    assert await task == (0, 0)
    assert len(await store.read(lambda tx: tx.messages.history("s1"))) == 1


async def a_read_cannot_write(store: Store) -> None:
    with pytest.raises(GatewayError):
        await store.read(lambda tx: tx.sessions.insert(session("s1")))
    assert await store.read(lambda tx: tx.sessions.get("s1")) is None
    await store.write(lambda tx: tx.sessions.insert(session("s1")))


async def a_caller_that_goes_away_does_not_tear_its_work(store: Store) -> None:
    started, gone = threading.Event(), threading.Event()

    def work(tx: Transaction) -> None:
        tx.sessions.insert(session("s1"))
        started.set()
        assert gone.wait(10)
        tx.sessions.insert(session("s2"))

    task = asyncio.create_task(store.write(work))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gone.set()
    await store.check()
    assert await store.read(lambda tx: (tx.sessions.get("s1"), tx.sessions.get("s2"))) == (
        session("s1"),
        session("s2"),
    )


async def check_passes_while_all_is_well(store: Store) -> None:
    await store.check()
