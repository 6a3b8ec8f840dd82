"""Cancelling ends turns, keeps what they have, and frees the session."""

import asyncio

import pytest

from gateway.domain.turn import CANCELLED, COMPLETED
from gateway.usecases import live_sessions
from tests.gateway.usecases.house import SECONDS, House, Weak, numbers, story
from tests.gateway.usecases.rooms import refused


async def test_a_running_turn_ends_with_its_text_and_the_upstream_is_closed(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.say("half an ", "answer")
    turn = await house.cancel.turn(reader.ack.turn_id)
    assert (turn.state, turn.error, call.closed) == (CANCELLED, None, True)
    await reader.all()
    assert (reader.text, reader.last.state) == ("half an answer", CANCELLED)
    stored = await house.store.read(lambda tx: tx.turns.get(turn.turn_id))
    assert stored == turn
    history = await house.store.read(lambda tx: tx.messages.history(turn.session_id))
    assert [message.blocks[0].text for message in history] == ["hello", "half an answer"]


async def test_before_the_first_byte_and_before_the_first_step(house: House) -> None:
    for steps in (0, 1):
        reader = await house.send("hello")
        if steps:
            await house.gate.next()
        turn = await house.cancel.turn(reader.ack.turn_id)
        assert (turn.state, turn.answer_message_id) == (CANCELLED, "")
        await reader.all()
    assert len(house.gate.calls) == 1


async def test_the_session_is_free_at_once(house: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).say("x")
    await house.cancel.turn(reader.ack.turn_id)
    again = await house.answered("more", "yes", session=reader.ack.session_id)
    assert again.last.state == COMPLETED


async def test_twice_gives_the_same_end(house: House) -> None:
    reader = await house.send("hello")
    await house.gate.next()
    turn_id = reader.ack.turn_id
    first, second = await asyncio.gather(house.cancel.turn(turn_id), house.cancel.turn(turn_id))
    assert first == second == await house.cancel.turn(turn_id)


async def test_a_turn_that_has_ended_stays_as_it_ended(house: House) -> None:
    done = await house.answered("hello", "yes")
    assert (await house.cancel.turn(done.ack.turn_id)).state == COMPLETED


async def test_what_never_was_is_not_found(house: House) -> None:
    await refused(house.cancel.turn("turn_nowhere"), "TURN_NOT_FOUND")


async def test_a_queued_turn_ends_beside_the_running_one(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    session = first.ack.session_id
    second = await house.send("two", session, on_busy="QUEUE")
    watcher = await house.watch(session, first.ack.epoch, 0)
    ending = asyncio.create_task(house.cancel.turn(second.ack.turn_id))
    while not ending.done():  # deltas never wait for the commit of the end
        call.say("x")
        await asyncio.sleep(0)
    assert (await ending).state == CANCELLED
    call.end("y")
    await first.all()
    await second.all()
    assert second.last.seq == (await house.turns.get(second.ack.turn_id)).positions.ended
    await watcher.upto(first.last.seq)
    assert numbers(watcher.items) == list(range(1, first.last.seq + 1))
    for reader in (first, second, watcher):
        reader.close()
    replayed = await (await house.watch(session, first.ack.epoch, 0)).upto(first.last.seq)
    assert story(replayed.items) == story(watcher.items)
    assert numbers(replayed.items) == numbers(watcher.items)


async def test_a_session_is_cancelled_with_its_queue_and_nothing_starts_in_between(house: House) -> None:
    first = await house.send("one")
    await house.gate.next()
    for word in ("two", "three"):
        await house.send(word, first.ack.session_id, on_busy="QUEUE")
    live = house.live.find(first.ack.session_id)
    assert live is not None
    turns = await house.cancel.session(live)
    assert [turn.state for turn in turns] == [CANCELLED] * 3
    assert (len(house.gate.calls), house.live.turns) == (1, {})


async def test_while_the_database_refuses_the_caller_is_told_and_the_turn_ends_later(
    house: House, weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sessions, "LOCK_SECONDS", 0.05)
    first = await house.send("one")
    call = await house.gate.next()
    second = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    weak.refusing = True
    await refused(house.cancel.turn(second.ack.turn_id), "STORAGE_UNAVAILABLE")
    assert (await house.turns.get(second.ack.turn_id)).ended_ms == 0
    await refused(house.cancel.turn(first.ack.turn_id), "STORAGE_UNAVAILABLE")
    assert call.closed
    await refused(house.send("three", first.ack.session_id, on_busy="INTERRUPT"), "STORAGE_UNAVAILABLE")
    await refused(house.watch(first.ack.session_id), "STORAGE_UNAVAILABLE")
    weak.refusing = False
    await first.all()
    assert first.last.state == CANCELLED
    (await house.gate.next()).end("2")  # the queue goes on
    async with asyncio.timeout(SECONDS):
        await second.all()
    assert second.last.state == COMPLETED


async def test_a_session_with_a_queue_is_not_generated_for_while_the_database_refuses(house: House, weak: Weak) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    await house.send("two", first.ack.session_id, on_busy="QUEUE")
    live = house.live.find(first.ack.session_id)
    assert live is not None
    weak.refusing = True
    await refused(house.cancel.session(live), "STORAGE_UNAVAILABLE")
    await asyncio.sleep(0)
    assert call.closed
    weak.refusing = False
    assert (await house.gate.next()).question == "two"
