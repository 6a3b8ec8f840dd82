"""After a kill at any moment every session is usable again, and nothing is generated twice."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from agentspace.v1 import error_pb2, turn_pb2, usage_pb2
from gateway.domain.error import MAY_HAVE_EXECUTED, GatewayError
from gateway.domain.price import Price
from gateway.domain.turn import CANCELLED, COMPLETED, INTERRUPTED, QUEUED, Turn
from gateway.domain.usage import TokenCounts
from gateway.usecases import recover_turns
from gateway.usecases.ports import Model, Transaction
from tests.gateway.usecases.house import HOUR_MS, House, Weak, numbers, story
from tests.gateway.usecases.rooms import StillClock, refused, texts


@pytest.fixture
async def after(weak: Weak, clock: StillClock) -> AsyncIterator[House]:
    """The gateway that is started after the kill of `house`."""
    house = House(weak, clock)
    yield house
    await house.kill()


async def test_a_running_turn_is_interrupted_with_its_text_to_the_last_checkpoint(house: House, after: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.usage(TokenCounts(uncached_input=7))
    call.say("kept ", "too ")
    await house.checkpoints.save()
    call.say("lost")
    await house.kill()
    assert await after.recover() == 1
    turn = await after.turns.get(reader.ack.turn_id)
    assert turn.error is not None
    assert (turn.state, turn.error.reason) == (INTERRUPTED, error_pb2.ERROR_REASON_TURN_INTERRUPTED)
    assert turn.error.execution == MAY_HAVE_EXECUTED
    history = await after.store.read(lambda tx: tx.messages.history(turn.session_id))
    assert texts(history) == "hello kept too "
    (row,) = await after.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert (row.counts.input, row.status, row.outcome) == (7, usage_pb2.USAGE_STATUS_PARTIAL, "TURN_INTERRUPTED")
    assert after.gate.calls == []
    session = await after.store.read(lambda tx: tx.sessions.get(turn.session_id))
    assert session is not None
    assert (session.message_count, session.epoch) == (2, 2)


async def test_before_the_first_checkpoint_the_message_is_kept(house: House, after: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).say("lost")
    await house.kill()
    await after.recover()
    session = reader.ack.session_id
    watcher = await (await after.watch(session, 0, 0)).upto(3)
    assert [line[0] for line in story(watcher.items)] == ["MessageCommitted", "TurnStarted", "failed"]
    assert numbers(watcher.items) == [1, 2, 3]
    assert {item.epoch for item in watcher.items} == {2}
    again = await after.answered("more", "yes", session=session)
    assert again.last.state == COMPLETED
    assert await after.store.read(lambda tx: tx.usage.page(None, after=1, limit=9)) == []


async def test_positions_from_before_are_reset(house: House, after: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).say("a")
    await house.kill()
    await after.recover()
    reset, snapshot = (await after.watch(reader.ack.session_id, 1, 3)).take()
    assert (reset.reason, snapshot.epoch) == (turn_pb2.RESET_REASON_EPOCH_CHANGED, 2)


async def test_where_nothing_was_unfinished_positions_stay_good(house: House, after: House) -> None:
    done = await house.answered("hello", "a", "b")
    await house.kill()
    assert await after.recover() == 0
    watcher = await (await after.watch(done.ack.session_id, 1, 3)).upto(done.last.seq)
    assert numbers(watcher.items) == [4, 5]


async def test_what_waited_runs_in_its_order(house: House, after: House) -> None:
    first = await house.send("one")
    (await house.gate.next()).say("half")
    session = first.ack.session_id
    queued = [await house.send(word, session, on_busy="QUEUE", key=word) for word in ("two", "three")]
    await house.kill()
    assert await after.recover() == 3
    again = await after.send("two", session, on_busy="QUEUE", key="two")
    assert (again.ack.turn_id, again.ack.duplicate) == (queued[0].ack.turn_id, True)
    last = await after.send("four", session, on_busy="QUEUE")
    watcher = await after.watch(session, 0, 0)
    for word in ("two", "three", "four"):
        call = await after.gate.next()
        assert call.question == word
        call.end("ok")
    for reader in (again, last):
        await reader.all()
        assert reader.last.state == COMPLETED
    await watcher.upto(last.last.seq)
    assert numbers(watcher.items) == list(range(1, last.last.seq + 1))
    # One that reads what is stored by now is told the same.
    watcher.close()
    replayed = await (await after.watch(session, 2, 0)).upto(last.last.seq)
    assert story(replayed.items) == story(watcher.items)


async def test_only_queued_and_stored_positions_keep_the_epoch(house: House, after: House, weak: Weak) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    queued = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    house.run.draining = True
    call.end("1")
    await first.all()
    await house.kill()
    await after.recover()
    call = await after.gate.next()
    follower = await after.watch(first.ack.session_id, 1, first.last.seq)
    call.end("2")
    await follower.upto(first.last.seq + 3)
    assert [line[0] for line in story(follower.items)] == ["TurnStarted", "TextDelta", "ended"]
    assert (await after.turns.get(queued.ack.turn_id)).state == COMPLETED


async def test_what_waited_in_a_deleted_session_is_cancelled(house: House, after: House) -> None:
    first = await house.send("one")
    await house.gate.next()
    queued = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    session = await house.store.read(lambda tx: tx.sessions.get(first.ack.session_id))
    assert session is not None
    await house.kill()
    await after.store.write(lambda tx: after.deleting._set_deleted(tx, first.ack.session_id, 1))
    await after.recover()
    states = [(await after.turns.get(reader.ack.turn_id)).state for reader in (first, queued)]
    assert (states, after.gate.calls) == ([INTERRUPTED, CANCELLED], [])


async def test_recovery_itself_can_be_killed_and_begun_again(house: House, after: House, weak: Weak) -> None:
    first = await house.send("one")
    (await house.gate.next()).say("half")
    queued = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    await house.checkpoints.save()
    await house.kill()
    await after.recover()
    (await after.gate.next()).say("half of two")
    await after.kill()
    third = House(weak, after.clock)
    assert await third.recover() == 1
    assert [(await third.turns.get(each.ack.turn_id)).state for each in (first, queued)] == [INTERRUPTED] * 2
    watcher = await (await third.watch(first.ack.session_id, 0, 0)).until(lambda each: len(story(each.items)) >= 6)
    assert numbers(watcher.items) == list(range(1, 8))
    assert (watcher.items[0].epoch, third.gate.calls) == (3, [])


async def test_a_turn_of_a_model_that_is_gone_does_not_stop_the_start(house: House, after: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.usage(TokenCounts(uncached_input=7))
    call.say("x")
    await house.checkpoints.save()
    await house.kill()
    await after.store.write(
        lambda tx: tx.turns._link._execute("UPDATE turns SET model = 'gone/gone'")  # type: ignore[attr-defined]
    )
    await after.recover()
    assert (await after.turns.get(reader.ack.turn_id)).state == INTERRUPTED
    (row,) = await after.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert (row.charge.priced, row.counts.input) == (False, 7)


async def test_nothing_is_left_in_memory_where_nothing_waited(house: House, after: House) -> None:
    await house.send("hello")
    await house.gate.next()
    await house.kill()
    await asyncio.sleep(0)
    await after.recover()
    assert (list(after.live), after.live.turns, QUEUED) == ([], {}, 1)


@pytest.mark.parametrize(
    ("counts", "said", "used", "status"),
    [
        (TokenCounts(7, output=1), "one two three", TokenCounts(7, output=3), usage_pb2.USAGE_STATUS_PARTIAL),
        (TokenCounts(7, output=9), "one two three", TokenCounts(7, output=9), usage_pb2.USAGE_STATUS_PARTIAL),
        (TokenCounts(7), "", TokenCounts(7), usage_pb2.USAGE_STATUS_PARTIAL),
        (None, "one two three", TokenCounts(3, output=3), usage_pb2.USAGE_STATUS_ESTIMATED),
        (None, "", TokenCounts(3), usage_pb2.USAGE_STATUS_ESTIMATED),
    ],
)
async def test_the_ledger_has_what_the_text_that_is_kept_comes_to(
    house: House, after: House, counts: TokenCounts | None, said: str, used: TokenCounts, status: int
) -> None:
    before = await house.answered("who are you", "me")
    reader = await house.send("hello", before.ack.session_id)
    call = await house.gate.next()
    if counts is not None:
        call.sink.usage(counts)
    if said:
        call.say(said)
    await house.checkpoints.save()
    await house.kill()
    await after.recover()
    row, _ = await after.store.read(lambda tx: tx.usage.page(reader.ack.session_id, after=None, limit=9))
    assert (row.counts, row.status, row.outcome) == (used, status, "TURN_INTERRUPTED")


async def test_an_attempt_costs_what_it_cost_on_its_day(house: House, after: House) -> None:
    await house.send("hello")
    (await house.gate.next()).sink.usage(TokenCounts(7))
    await house.checkpoints.save()
    await house.kill()
    prices = Price("", 2, 0, 0, 0, 0), Price("2026-09-22", 3, 0, 0, 0, 0)
    after.recover._model = lambda name: Model(name, name, "scripted", 9, 9, prices)  # type: ignore[method-assign]
    after.clock.ms += 36 * HOUR_MS
    await after.recover()
    (row,) = await after.store.read(lambda tx: tx.usage.page(None, after=None, limit=9))
    assert row.charge.input_pico == 14


async def test_a_recovered_turn_is_counted_and_named_in_its_error(house: House, after: House) -> None:
    reader = await house.send("hello")
    await house.gate.next()
    await house.kill()
    await after.recover()
    (turn,) = after.ended
    assert (turn.turn_id, turn.state) == (reader.ack.turn_id, INTERRUPTED)
    assert turn.error is not None
    assert dict(turn.error.metadata) == {"turnId": turn.turn_id}


async def test_the_storage_is_not_given_all_sessions_at_once(
    house: House, weak: Weak, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await house.send(str(number))
    await house.kill()
    monkeypatch.setattr(recover_turns, "AT_ONCE", 2)
    after = House(weak, clock)
    under_way, most = 0, 0
    write = weak.write

    async def counted(work: Callable[[Transaction], object]) -> object:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await write(work)
        finally:
            under_way -= 1

    monkeypatch.setattr(weak, "write", counted)
    assert await after.recover() == 5
    assert most == 2


@pytest.mark.parametrize("fault", [OverflowError(), GatewayError(error_pb2.ERROR_REASON_INTERNAL, "damage")])
async def test_a_session_that_cannot_be_repaired_keeps_nobody_away(
    house: House, after: House, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    readers = [await house.send(str(n)) for n in range(2)]
    await house.checkpoints.save()
    await house.kill()
    broken = readers[0].ack.session_id
    repair = after.recover._repair

    def fails(tx: Transaction, session_id: str, turns: list[Turn]) -> object:
        if session_id == broken:
            raise fault
        return repair(tx, session_id, turns)

    monkeypatch.setattr(after.recover, "_repair", fails)
    assert await after.recover() == 2
    # What it announced may not all be stored: nobody goes on with it.
    await refused(after.send("again", broken), "INTERNAL")
    turn = await after.store.read(lambda tx: tx.turns.get(readers[1].ack.turn_id))
    assert turn is not None
    assert turn.state == INTERRUPTED
