"""A watcher gets every event in order, or an explicit new beginning; never a silent gap."""

import asyncio

import pytest

from agentspace.v1 import error_pb2, turn_pb2
from gateway.ids import NanoIds
from gateway.usecases.fork_session import ForkSession
from gateway.usecases.ports import PAGE_BYTES
from gateway.usecases.watch_session import HEARTBEAT_SECONDS
from tests.gateway.usecases.house import House, numbers, story
from tests.gateway.usecases.rooms import refused


async def test_without_a_position_it_begins_with_the_present(house: House) -> None:
    first = await house.answered("one", "1")
    session = first.ack.session_id
    second = await house.send("two", session)
    (await house.gate.next()).say("half ", "an")
    queued = await house.send("three", session, on_busy="QUEUE")
    watcher = await house.watch(session)
    (snapshot,) = watcher.take()
    assert isinstance(snapshot, turn_pb2.SessionSnapshot)
    assert [message.blocks[0].text for message in snapshot.messages] == ["one", "1", "two", "three"]
    assert (snapshot.active_turn.turn_id, snapshot.active_turn.blocks[0].text) == (second.ack.turn_id, "half an")
    assert (snapshot.epoch, snapshot.seq, list(snapshot.queued_turn_ids)) == (1, 9, [queued.ack.turn_id])
    house.gate.calls[1].say(" answer")
    (delta,) = watcher.take()
    assert (delta.from_seq, delta.delta) == (10, " answer")


async def test_a_long_history_is_cut_and_says_so(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.usecases.watch_session.SNAPSHOT_MESSAGES", 2)
    first = await house.answered("one", "1")
    second = await house.answered("two", "2", session=first.ack.session_id)
    (snapshot,) = (await house.watch(second.ack.session_id)).take()
    assert [message.blocks[0].text for message in snapshot.messages] == ["two", "2"]
    assert snapshot.truncated


@pytest.mark.parametrize(
    ("epoch", "after_seq", "reason"),
    [(2, 1, "EPOCH_CHANGED"), (0, 1, "EPOCH_UNKNOWN"), (1, 99, "POSITION_AHEAD"), (1, -1, "POSITION_AHEAD")],
)
async def test_a_position_that_cannot_be_used_is_reset(house: House, epoch: int, after_seq: int, reason: str) -> None:
    first = await house.answered("one", "1")
    watcher = await house.watch(first.ack.session_id, epoch, after_seq)
    reset, snapshot = watcher.take()
    assert reset.reason == turn_pb2.ResetReason.Value(f"RESET_REASON_{reason}")
    assert (reset.epoch, reset.seq) == (snapshot.epoch, snapshot.seq) == (1, 4)
    assert watcher.take() == []


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("how", ["fork", "compaction"])
async def test_the_beginning_of_what_events_do_not_tell_is_a_reset(house: House, how: str, live: bool) -> None:
    first = await house.answered("one", "1")
    session = first.ack.session_id
    if how == "fork":
        forking = ForkSession(store=house.store, clock=house.clock, ids=NanoIds(house.clock))
        session = (await forking(session)).session_id
        await house.answered("two", "2", session=session)
    else:
        kept = await house.watch(session)
        await house.compact(session, "They met.")
        if not live:
            kept.close()
    watcher = await house.watch(session, 0, 0)
    reset, snapshot = watcher.take()
    assert reset.reason == turn_pb2.RESET_REASON_EPOCH_CHANGED
    assert snapshot.messages[0].content in ("one", "They met.")
    watcher.close()


async def test_a_position_before_the_first_event_of_a_fork_is_one(house: House) -> None:
    first = await house.answered("one", "1")
    forking = ForkSession(store=house.store, clock=house.clock, ids=NanoIds(house.clock))
    session = (await forking(first.ack.session_id)).session_id
    (snapshot,) = (await house.watch(session)).take()
    assert (snapshot.epoch, snapshot.seq) == (1, 0)
    await house.answered("two", "2", session=session)
    watcher = await (await house.watch(session, snapshot.epoch, snapshot.seq)).upto(4)
    assert numbers(watcher.items) == [1, 2, 3, 4]


async def test_a_snapshot_has_fewer_messages_beside_a_large_answer(house: House) -> None:
    first = await house.answered("one", "1")
    await house.send("two", first.ack.session_id)
    call = await house.gate.next()
    (snapshot,) = (await house.watch(first.ack.session_id)).take()
    assert (len(snapshot.messages), snapshot.truncated) == (3, False)
    call.say("ä" * (PAGE_BYTES // 2))
    (snapshot,) = (await house.watch(first.ack.session_id)).take()
    assert (len(snapshot.messages), snapshot.truncated) == (0, True)
    assert len(snapshot.active_turn.content) == PAGE_BYTES // 2


async def test_from_any_position_there_is_neither_gap_nor_repeat_at_the_seam(house: House) -> None:
    done = await house.answered("one", "a", "b", "c")
    session = done.ack.session_id
    running = await house.send("two", session)
    call = await house.gate.next()
    call.say("d", "e")
    watchers = [await house.watch(session, 1, after) for after in range(running.feed.after_seq + 1)]
    for watcher in watchers:
        watcher.take()
    call.end("f")
    await running.all()
    for after, watcher in enumerate(watchers):
        await watcher.upto(running.last.seq)
        assert numbers(watcher.items) == list(range(after + 1, running.last.seq + 1))


async def test_a_slow_reader_gets_longer_stretches_and_all_of_it(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    slow = await house.watch(reader.ack.session_id, 1, 0)
    quick = await house.watch(reader.ack.session_id, 1, 0)
    for number in range(100):
        call.say(f"{number} ")
        quick.take()
    call.end()
    for each in (slow, quick, reader):
        await each.upto(103)
    assert story(slow.items) == story(quick.items)
    assert (len(slow.items), len(quick.items)) == (4, 103)


async def test_a_taker_of_little_is_woken_until_it_has_all(house: House) -> None:
    reader = await house.answered("hello", *(f"{number} " for number in range(30)))
    watcher = await (await house.watch(reader.ack.session_id, 1, 0)).upto(reader.last.seq, limit=1)
    assert numbers(watcher.items) == list(range(1, reader.last.seq + 1))


async def test_several_blocks_and_messages_in_between_keep_their_order(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    session = first.ack.session_id
    watcher = await house.watch(session, 1, 0)
    call.say("a")
    await house.send("two", session, on_busy="QUEUE")
    call.end("b")
    (await house.gate.next()).end("c")
    await watcher.upto(9)
    names = [line[0] for line in story(watcher.items)]
    begin = ["MessageCommitted", "TurnStarted", "TextDelta", "MessageCommitted", "TextDelta", "ended"]
    assert names == [*begin, "TurnStarted", "TextDelta", "ended"]


async def test_a_compaction_begins_anew_for_watchers_and_not_for_who_follows_a_turn(house: House) -> None:
    reader = await house.send("hello")
    session = reader.ack.session_id
    watcher = await house.watch(session, 1, 0)
    (await house.gate.next()).end("yes")
    await house.settled()
    await house.compact(session, "They met.")
    await watcher.until(lambda each: bool(each.of(turn_pb2.SessionSnapshot)))
    reset, snapshot = watcher.items
    assert (reset.reason, snapshot.epoch) == (turn_pb2.RESET_REASON_EPOCH_CHANGED, 2)
    await reader.all()
    assert [line[0] for line in story(reader.items)] == ["TurnStarted", "TextDelta", "ended"]
    assert reader.of(turn_pb2.SessionReset) == []


async def test_a_deleted_session_ends_its_watches_after_its_last_event(house: House) -> None:
    reader = await house.send("hello")
    await house.gate.next()
    watcher = await house.watch(reader.ack.session_id, 1, 0)
    await house.deleting.delete(reader.ack.session_id)
    await watcher.all()
    assert [line[0] for line in story(watcher.items)] == ["MessageCommitted", "TurnStarted", "ended", "failed"]
    assert watcher.last.code == error_pb2.ERROR_REASON_SESSION_DELETED
    watcher.close()
    await refused(house.watch(reader.ack.session_id), "SESSION_NOT_FOUND")


async def test_nothing_is_said_of_a_database_that_fails_but_its_error(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await house.answered("one", "1")
    watcher = await house.watch(done.ack.session_id, 1, 0)

    async def fails(work: object) -> object:
        return await refused(house.compact(done.ack.session_id, ""), "INVALID_MESSAGE")

    async def refuse(work: object) -> object:
        raise await fails(work)  # type: ignore[misc]

    monkeypatch.setattr(house.store, "read", refuse)
    await watcher.all()
    assert isinstance(watcher.last, error_pb2.Error)


async def test_a_bug_ends_the_watch_and_does_not_leave_it_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done = await house.answered("one", "1")
    watcher = await house.watch(done.ack.session_id, 1, 0)

    async def breaks(work: object) -> object:
        raise OverflowError

    monkeypatch.setattr(house.store, "read", breaks)
    await watcher.all()
    assert watcher.last.code == error_pb2.ERROR_REASON_INTERNAL
    assert "OverflowError" in caplog.text


async def test_a_feed_is_quiet_until_a_beat_is_due(house: House) -> None:
    done = await house.answered("one", "1")
    watcher = await house.watch(done.ack.session_id)
    watcher.take()
    house.clock.ms += int(HEARTBEAT_SECONDS * 1000) - 1
    house.pulse.beat()
    assert watcher.take() == []
    house.clock.ms += 1
    house.pulse.beat()
    (beat,) = watcher.take()
    assert (beat.session_id, beat.turn_id) == (done.ack.session_id, "")


async def test_closing_twice_lets_go_once_also_while_it_loads(house: House) -> None:
    done = await house.answered("one", "1")
    watcher = await house.watch(done.ack.session_id, 1, 0)
    watcher.take()
    watcher.close()
    watcher.close()
    assert list(house.live) == []
    await asyncio.gather(*house.tasks, return_exceptions=True)
    assert not house.tasks
