"""Turns can be read, waited for and listed."""

import asyncio

from gateway.domain.turn import COMPLETED, QUEUED, RUNNING
from tests.gateway.usecases.house import SECONDS, House
from tests.gateway.usecases.rooms import refused


async def test_a_turn_is_read_live_and_after_its_end(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    queued = await house.send("more", reader.ack.session_id, on_busy="QUEUE")
    assert (await house.turns.get(reader.ack.turn_id)).state == RUNNING
    assert (await house.turns.get(queued.ack.turn_id)).state == QUEUED
    call.end("yes")
    await reader.all()
    turn = await house.turns.get(reader.ack.turn_id)
    assert (turn.state, turn.stop_reason) == (COMPLETED, "end_turn")
    await refused(house.turns.get("turn_nowhere"), "TURN_NOT_FOUND")


async def test_waiting_ends_with_the_turn(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    waiting = asyncio.create_task(house.turns.wait(reader.ack.turn_id, 0))
    await asyncio.sleep(0)
    call.end("yes")
    async with asyncio.timeout(SECONDS):
        assert (await waiting).state == COMPLETED
    assert (await house.turns.wait(reader.ack.turn_id, 0)).state == COMPLETED


async def test_waiting_ends_with_the_time_given(house: House) -> None:
    reader = await house.send("hello")
    assert (await house.turns.wait(reader.ack.turn_id, 1)).state == RUNNING
    await refused(house.turns.wait(reader.ack.turn_id, -1), "INVALID_MESSAGE")
    await refused(house.turns.wait("turn_nowhere", 1), "TURN_NOT_FOUND")


async def test_a_session_lists_its_turns_newest_first_in_pages(house: House) -> None:
    first = await house.answered("1", "one")
    session, turns = first.ack.session_id, [first.ack.turn_id]
    for word in "23":
        house.clock.ms += 1
        turns.insert(0, (await house.answered(word, word, session=session)).ack.turn_id)
    page = await house.turns.list_turns(session, 2, "")
    rest = await house.turns.list_turns(session, 2, page.next_page_token)
    assert [turn.turn_id for turn in (*page.items, *rest.items)] == turns
    assert (len(page.items), rest.next_page_token) == (2, "")
    await refused(house.turns.list_turns("V1StGXR8_Z5jdHi6B-myT", 2, ""), "SESSION_NOT_FOUND")
