"""A session is in memory once, as long as somebody needs it."""

import asyncio

import pytest

from gateway.storage.database import Database
from gateway.usecases import live_sessions
from gateway.usecases.live_sessions import LiveSessions, held
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from tests.gateway.usecases.house import House
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
