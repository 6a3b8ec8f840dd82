"""A session is in memory once, as long as somebody needs it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError
from gateway.storage.database import Database
from gateway.usecases import live_sessions
from gateway.usecases.live_sessions import LiveSessions, held
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from tests.gateway.usecases.house import SECONDS, House, Weak
from tests.gateway.usecases.rooms import refused


async def test_all_get_the_same_and_the_last_one_out_frees_it(live: LiveSessions, sessions: ManageSessions) -> None:
    made = await sessions.create("", SessionChange())
    one, two = await asyncio.gather(live.acquire(made.session_id), live.acquire(made.session_id))
    assert one is two is live.find(made.session_id)
    live.release(one)
    assert live.find(made.session_id) is two
    live.release(two)
    assert (live.find(made.session_id), list(live)) == (None, [])


async def test_it_begins_where_storage_ends(live: LiveSessions, sessions: ManageSessions, store: Database) -> None:
    made = await sessions.create("", SessionChange())
    await store.write(lambda tx: tx.sessions.set_position(made.session_id, 3, 17))
    found = await live.acquire(made.session_id)
    assert (found.log.epoch, found.log.last_seq, found.log.floor) == (3, 17, 17)


async def test_what_was_read_before_the_session_lived_is_not_used(house: House) -> None:
    done = await house.answered("hello", "yes")
    session = done.ack.session_id
    late = asyncio.create_task(house.live.acquire(session))
    await asyncio.sleep(0)  # its read has begun
    await house.answered("more", "yes", session=session)
    found = await late
    stored = await house.store.read(lambda tx: tx.sessions.get(session))
    assert stored is not None
    assert found.log.last_seq == stored.last_seq == 8
    house.live.release(found)


async def test_neither_unknown_nor_deleted_sessions_are_found(
    live: LiveSessions, house: House, sessions: ManageSessions
) -> None:
    await refused(live.acquire("V1StGXR8_Z5jdHi6B-myT"), "SESSION_NOT_FOUND")
    made = await sessions.create("", SessionChange())
    kept = await house.live.acquire(made.session_id)
    await house.deleting.delete(made.session_id)
    await refused(live.acquire(made.session_id), "SESSION_NOT_FOUND")
    await refused(house.live.acquire(made.session_id), "SESSION_NOT_FOUND")
    house.live.release(kept)
    assert list(live) == []


async def test_a_lock_that_is_stuck_is_told(
    live: LiveSessions, sessions: ManageSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sessions, "LOCK_SECONDS", 0.01)
    found = await live.acquire((await sessions.create("", SessionChange())).session_id)

    async def second() -> None:
        async with held(found):
            raise AssertionError

    async with held(found):
        await refused(second(), "STORAGE_UNAVAILABLE")
    async with held(found):
        pass


async def test_a_turn_keeps_its_session_alive_without_a_reader(house: House) -> None:
    reader = await house.send("hello")
    reader.close()
    call = await house.gate.next()
    assert len(list(house.live)) == 1
    call.end("yes")
    await house.settled()
    assert list(house.live) == []


class Gated:
    """A store whose reads are answered one by one, in any order."""

    def __init__(self, store: Database) -> None:
        self.write, self.check = store.write, store.check
        self.answers: list[asyncio.Event] = []
        self._read = store.read

    async def read(self, work: Callable[[Any], Any]) -> Any:
        result = await self._read(work)
        self.answers.append(asyncio.Event())
        await self.answers[-1].wait()
        return result

    async def asked(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.answers) < count:
                await asyncio.sleep(0)


async def test_an_old_read_is_not_used_because_a_newer_one_has_begun(house: House) -> None:
    session = (await house.answered("hello", "x")).ack.session_id
    await house.settled()
    real, gated = house.live._store, Gated(house.live._store)  # type: ignore[arg-type]
    house.live._store = gated
    old = asyncio.create_task(house.live.acquire(session))
    await gated.asked(1)
    other = asyncio.create_task(house.live.acquire(session))
    await gated.asked(2)
    gated.answers[1].set()
    house.live.release(await other)
    house.live._store = real
    await house.answered("more", "y", session=session)
    await house.settled()
    house.live._store = gated
    newer = asyncio.create_task(house.live.acquire(session))
    await gated.asked(3)
    gated.answers[0].set()
    await gated.asked(4)
    for answer in gated.answers:
        answer.set()
    stored = await real.read(lambda tx: tx.sessions.get(session))
    assert (await old).log.last_seq == (await newer).log.last_seq == stored.last_seq  # type: ignore[union-attr]
    for live in (old, newer):
        house.live.release(live.result())
    assert house.live._loads == {}


async def test_a_session_deleted_while_it_is_read_is_not_found(house: House) -> None:
    done = await house.answered("hello", "x")
    await house.settled()
    real, gated = house.live._store, Gated(house.live._store)  # type: ignore[arg-type]
    house.live._store = gated
    watch = asyncio.create_task(house.watch(done.ack.session_id, 1, 1))
    await gated.asked(1)
    await house.deleting.delete(done.ack.session_id)
    house.live._store = real
    gated.answers[0].set()
    await refused(watch, "SESSION_NOT_FOUND")


async def test_reads_that_fail_leave_nothing(house: House, weak: Weak) -> None:
    async def fails(work: object) -> None:
        raise GatewayError(error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE, "no")

    house.live._store = SimpleNamespace(read=fails)  # type: ignore[assignment]
    await refused(house.live.acquire("V1StGXR8_Z5jdHi6B-myT"), "STORAGE_UNAVAILABLE")
    assert house.live._loads == {}
