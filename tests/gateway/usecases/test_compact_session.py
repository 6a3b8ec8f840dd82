"""Compaction: a summary in the place of the older messages, the older generation kept."""

import pytest

from gateway.domain.context import SUMMARY_INTRODUCTION, SUMMARY_REPLY, sendable
from gateway.domain.turn import COMPLETED, QUEUED, RUNNING
from gateway.ids import NanoIds
from gateway.storage.database import Database
from gateway.usecases.compact_session import CompactSession
from gateway.usecases.live_sessions import LiveSessions
from gateway.usecases.manage_sessions import ManageSessions, SessionChange
from tests.gateway.usecases.house import House
from tests.gateway.usecases.rooms import StillClock, Talk, a_turn, refused, texts


@pytest.fixture
def compact_session(store: Database, live: LiveSessions, clock: StillClock) -> CompactSession:
    return CompactSession(store=store, live=live, clock=clock, ids=NanoIds(clock))


async def test_the_summary_replaces_what_is_before_the_kept(
    sessions: ManageSessions, compact_session: CompactSession, store: Database, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange())
    messages = await store.write(lambda tx: talk(tx, made, "a b c"))
    await store.write(lambda tx: tx.sessions.set_position(made.session_id, 1, 12))
    compacted = await compact_session(made.key, "They spelt.", messages[4].message_id)
    assert (compacted.generation, compacted.epoch, compacted.last_seq, compacted.message_count) == (2, 2, 12, 3)
    assert compacted == await sessions.get(made.session_id)
    present = (await sessions.list_messages(made.session_id, 0, "")).items
    assert texts(present) == "They spelt. c C"
    assert texts((await sessions.list_messages(made.session_id, 0, "", generation=1)).items) == "a A b B c C"
    sent = [f"{SUMMARY_INTRODUCTION}\n\nThey spelt.", SUMMARY_REPLY, "c", "C"]
    assert [entry.text for entry in sendable(present)] == sent


async def test_nothing_kept_and_the_talk_goes_on(
    sessions: ManageSessions, compact_session: CompactSession, store: Database, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange())
    await store.write(lambda tx: talk(tx, made, "a b"))
    assert (await compact_session(made.session_id, "First.")).message_count == 1
    more = await store.write(lambda tx: talk(tx, made, "c d"))
    assert texts((await sessions.list_messages(made.session_id, 0, "")).items) == "First. c C d D"
    again = await compact_session(made.session_id, "Second.", more[2].message_id)
    assert (again.generation, again.epoch, again.message_count) == (3, 3, 3)
    assert texts((await sessions.list_messages(made.session_id, 0, "")).items) == "Second. d D"
    assert texts((await sessions.list_messages(made.session_id, 0, "", generation=2)).items) == "First. c C d D"
    assert texts((await sessions.list_messages(made.session_id, 0, "", generation=1)).items) == "a A b B"


async def test_pages_stay_with_the_generation_of_the_first(
    sessions: ManageSessions, compact_session: CompactSession, store: Database, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange())
    await store.write(lambda tx: talk(tx, made, "a b"))
    first = await sessions.list_messages(made.session_id, 1, "")
    await compact_session(made.session_id, "All.")
    assert texts((await sessions.list_messages(made.session_id, 9, first.next_page_token)).items) == "A b B"


async def test_watchers_begin_anew(
    sessions: ManageSessions, compact_session: CompactSession, store: Database, live: LiveSessions, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange())
    await store.write(lambda tx: talk(tx, made, "a"))
    held = await live.acquire(made.session_id)
    woken: list[int] = []

    class Watcher:
        def wake(self, soon: bool) -> None:
            woken.append(held.log.epoch)

        def pulse(self, now: float) -> None: ...

    held.watchers.add(Watcher())
    await compact_session(made.session_id, "All.")
    assert woken == [2]
    assert held.log.last_seq == held.log.floor == 0
    live.release(held)
    assert live.find(made.session_id) is None


@pytest.mark.parametrize("state", [QUEUED, RUNNING])
async def test_not_while_a_turn_runs_or_waits(
    sessions: ManageSessions, compact_session: CompactSession, store: Database, talk: Talk, state: int
) -> None:
    made = await sessions.create("", SessionChange())
    await store.write(lambda tx: talk(tx, made, "a"))
    ended, turn = a_turn(made, COMPLETED), a_turn(made, state)
    await store.write(lambda tx: [tx.turns.insert(ended), tx.turns.insert(turn)])
    error = await refused(compact_session(made.session_id, "All."), "STREAM_IN_PROGRESS")
    assert error.metadata == {"sessionId": made.session_id, "turnId": turn.turn_id}
    assert await sessions.get(made.session_id) == await store.read(lambda tx: tx.sessions.get(made.session_id))
    assert texts((await sessions.list_messages(made.session_id, 0, "")).items) == "a A"


async def test_what_makes_no_sense_is_refused(
    sessions: ManageSessions, compact_session: CompactSession, store: Database, live: LiveSessions, talk: Talk
) -> None:
    made = await sessions.create("", SessionChange())
    await refused(compact_session(made.session_id, "Nothing."), "INVALID_MESSAGE")
    messages = await store.write(lambda tx: talk(tx, made, "a b"))
    for summary in ("", " \n", "ä" * 600_000):
        await refused(compact_session(made.session_id, summary), "INVALID_MESSAGE")
    for keep in (messages[0], messages[1]):  # nothing before it; an answer
        await refused(compact_session(made.session_id, "All.", keep.message_id), "INVALID_MESSAGE")
    await refused(compact_session(made.session_id, "All.", "msg_other"), "MESSAGE_NOT_FOUND")
    await refused(compact_session("V1StGXR8_Z5jdHi6B-myT", "All."), "SESSION_NOT_FOUND")
    assert (await sessions.get(made.session_id)).generation == 1
    assert live.find(made.session_id) is None


async def test_no_answer_that_is_kept_loses_its_question(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    second = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    call.end("1")
    (await house.gate.next()).end("2")
    await house.settled()
    # The history is: one, two, 1, 2.
    await refused(house.compact(first.ack.session_id, "so far", second.ack.message_id), "INVALID_MESSAGE")
