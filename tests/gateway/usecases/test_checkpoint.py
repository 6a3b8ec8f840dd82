"""What a kill can cost: at most what came since the last checkpoint."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.domain.turn import COMPLETED, INTERRUPTED
from gateway.domain.turn_log import THINKING
from gateway.domain.usage import TokenCounts
from gateway.usecases import checkpoint
from gateway.usecases.ports import StoredAnswer
from tests.gateway.usecases.house import SECONDS, House, Weak, numbers


async def stored(house: House, turn_id: str) -> StoredAnswer | None:
    return await house.store.read(lambda tx: tx.turns.answer(turn_id))


async def test_a_checkpoint_holds_the_text_the_cuts_and_the_numbers(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    turn_id = reader.ack.turn_id
    await house.checkpoints.save()
    assert await stored(house, turn_id) is None
    call.sink.open_block(THINKING)
    call.say("hm", "")
    call.sink.close_block("s")
    call.sink.open_block(1)
    call.say("one ", "two ")
    await house.checkpoints.save()
    call.say("three")
    await house.checkpoints.save()
    found = await stored(house, turn_id)
    assert found is not None
    assert [block.text for block in found.content] == ["hm", "one two three"]
    assert found.chunk_lengths == ((2, 0), (4, 4, 5))
    turn = await house.store.read(lambda tx: tx.turns.get(turn_id))
    assert turn is not None
    assert (turn.positions.message, turn.positions.started, turn.positions.deltas) == (1, 2, ((3, 5),))


async def test_what_was_used_so_far_is_kept_as_partial(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.usage(TokenCounts(uncached_input=7))
    call.say("x")
    await house.checkpoints.save()
    turn = await house.store.read(lambda tx: tx.turns.get(reader.ack.turn_id))
    assert turn is not None
    assert (turn.usage.counts.input, turn.usage.attempts) == (7, 1)


async def test_what_was_used_is_kept_before_there_is_text(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.usage(TokenCounts(uncached_input=7))
    await house.checkpoints.save()
    turn = await house.store.read(lambda tx: tx.turns.get(reader.ack.turn_id))
    assert turn is not None
    assert turn.usage.counts.input == 7


async def test_the_end_of_a_block_is_kept_that_came_after_its_text(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.sink.open_block(THINKING)
    call.say("hm")
    await house.checkpoints.save()
    call.sink.close_block("signature")
    await house.checkpoints.save()
    found = await stored(house, reader.ack.turn_id)
    assert found is not None
    (block,) = found.content
    assert (block.text, block.signature, block.complete) == ("hm", "signature", True)
    assert found.chunk_lengths == ((2,),)


async def test_nothing_of_the_checkpoints_is_left_behind_the_end(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.say("text")
    await house.checkpoints.save()
    call.end()
    await reader.all()
    query = "SELECT count(*) FROM turn_chunks"
    (left,) = await house.store.read(lambda tx: tx.turns._link._execute(query).fetchone())  # type: ignore[attr-defined]
    assert left == 0


async def test_a_turn_whose_end_is_being_stored_is_left_alone(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    (live,) = house.live
    async with live.lock:
        call.end("text")
        for _ in range(5):
            await asyncio.sleep(0)
        await house.checkpoints.save()
        assert await stored(house, reader.ack.turn_id) is None
    await reader.all()


async def test_queued_messages_get_their_numbers_stored_with_it(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.say("x")
    queued = await house.send("more", reader.ack.session_id, on_busy="QUEUE")
    await house.checkpoints.save()
    turn = await house.store.read(lambda tx: tx.turns.get(queued.ack.turn_id))
    assert turn is not None
    assert turn.positions.message == queued.ack.seq == 4


async def test_a_failed_one_is_made_good_by_the_next(house: House, weak: Weak) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.say("one ")
    weak.refusing = True
    await house.checkpoints.save()
    assert await stored(house, reader.ack.turn_id) is None
    weak.refusing = False
    call.say("two")
    await house.checkpoints.save()
    found = await stored(house, reader.ack.turn_id)
    assert found is not None
    assert (found.content[0].text, found.chunk_lengths) == ("one two", ((4, 3),))


async def test_much_text_is_saved_without_waiting_for_the_interval(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    task = house.spawn(house.checkpoints.run())
    call.say("x" * (checkpoint.UNSAVED_CHARACTERS + 1))
    async with asyncio.timeout(checkpoint.INTERVAL_SECONDS * 0.9):
        while await stored(house, reader.ack.turn_id) is None:
            await asyncio.sleep(0)
    task.cancel()


async def test_the_interval_saves_what_is_little(house: House) -> None:
    reader = await house.send("hello")
    (await house.gate.next()).say("x")
    task = house.spawn(house.checkpoints.run())
    async with asyncio.timeout(SECONDS):
        while await stored(house, reader.ack.turn_id) is None:
            await asyncio.sleep(0)
    task.cancel()


async def test_the_end_of_a_queued_turn_is_stored_with_all_that_came_before_it(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    call.say("a", "b")
    second = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    call.say("c")
    await house.cancel.turn(second.ack.turn_id)
    call.say("d")
    third = await house.send("three", first.ack.session_id, on_busy="QUEUE")
    await house.checkpoints.save()
    # What is stored now has every number up to the last one, once.
    await house.kill()
    after = House(house.store, house.clock)
    await after.recover()
    watcher = await (await after.watch(first.ack.session_id, 0, 0)).until(lambda r: r.ends() >= 10)
    assert numbers(watcher.items)[:10] == list(range(1, 11))
    ended = await after.turns.get(second.ack.turn_id)
    assert (ended.positions.message, ended.positions.ended, third.ack.seq) == (5, 7, 9)
    assert (await after.turns.get(first.ack.turn_id)).state == INTERRUPTED
    await after.kill()


async def test_a_turn_that_cannot_be_stored_does_not_end_all_checkpoints(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    other = await house.send("hello")
    (await house.gate.next()).say("other text")
    call.sink.usage(TokenCounts(output=2**64))
    call.say("text")
    await house.checkpoints.save()
    assert await stored(house, reader.ack.turn_id) is None
    kept = await stored(house, other.ack.turn_id)
    assert kept is not None
    call.sink.usage(TokenCounts(output=5))
    await house.checkpoints.save()
    kept = await stored(house, reader.ack.turn_id)
    assert kept is not None
    assert kept.content[0].text == "text"


async def test_a_turn_that_ended_meanwhile_is_not_stored_once_more(house: House) -> None:
    bad = await house.send("hello")
    first = await house.gate.next()
    good = await house.send("hello")
    call = await house.gate.next()
    first.sink.usage(TokenCounts(output=2**64))
    first.say("text")
    call.say("other text")
    write, writes = house.store.write, 0
    committed, told = asyncio.Event(), asyncio.Event()

    async def the_end_comes_between(work: Callable[[Any], Any]) -> Any:
        nonlocal writes
        writes += 1
        if writes == 1:
            try:
                return await write(work)
            finally:
                call.end()
                await committed.wait()
        result = await write(work)
        if writes == 2:
            committed.set()
            await told.wait()
        return result

    house.store.write = the_end_comes_between  # type: ignore[method-assign]
    async with asyncio.timeout(SECONDS):
        assert not await house.checkpoints.save()
    told.set()
    await good.all()
    turn = await house.turns.get(good.ack.turn_id)
    assert (turn.state, turn.positions.ended, turn.usage.attempts) == (COMPLETED, 4, 1)
    bad.close()


async def test_a_database_that_refuses_is_not_asked_for_every_delta(
    house: House, weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "INTERVAL_SECONDS", SECONDS)
    await house.send("hello")
    call = await house.gate.next()
    weak.refusing = True
    tries = 0
    save = house.checkpoints.save

    async def counted() -> bool:
        nonlocal tries
        tries += 1
        return await save()

    monkeypatch.setattr(house.checkpoints, "save", counted)
    house.spawn(house.checkpoints.run())
    for _ in range(20):
        call.say("x" * (checkpoint.UNSAVED_CHARACTERS + 1))
        for _ in range(5):
            await asyncio.sleep(0)
    assert tries == 1
    weak.refusing = False
