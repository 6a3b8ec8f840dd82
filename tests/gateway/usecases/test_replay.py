"""What storage gives back is what was announced, event for event."""

import pytest

from gateway.domain.turn import QUEUE_DEPTH
from gateway.domain.turn_log import THINKING, TOOL_USE
from gateway.usecases.replay import TURNS_AT_ONCE
from tests.gateway.usecases.house import House, numbers, story


async def test_every_kind_of_event_comes_back_from_every_position(house: House) -> None:
    reader = await house.send("hello")
    session, epoch = reader.ack.session_id, reader.ack.epoch
    watcher = await house.watch(session, epoch, 0)
    call = await house.gate.next()
    call.sink.open_block(THINKING)
    call.say("hm ", "hm")
    call.sink.close_block("signed")
    call.sink.open_block(1)
    call.say("Let ", "me ", "look.")
    call.sink.close_block()
    call.sink.open_block(TOOL_USE, "toolu_1", "look")
    call.end("", '{"at"', ": 1}", stop_reason="tool_use")
    await reader.all()
    last = reader.last.seq
    await watcher.upto(last)
    for each in (reader, watcher):
        each.close()
    singles = await (await house.watch(session, epoch, 0)).upto(last, limit=1)
    assert story(singles.items) == story(watcher.items)
    for after in range(last):
        again = await (await house.watch(session, epoch, after)).upto(last)
        assert numbers(again.items) == list(range(after + 1, last + 1))
        again.close()
    tool = singles.items[-2]
    assert (tool.tool_use_id, tool.tool_name, tool.block) == ("toolu_1", "look", 2)


async def test_a_long_session_comes_back_a_few_turns_at_a_time(house: House) -> None:
    first = await house.answered("0", "zero", " zero")
    session = first.ack.session_id
    for number in range(1, 2 * TURNS_AT_ONCE + 2):
        last = await house.answered(str(number), "x", "y", session=session)
    watcher = await (await house.watch(session, 1, 1)).upto(last.last.seq)
    assert numbers(watcher.items) == list(range(2, last.last.seq + 1))


@pytest.mark.parametrize("after", [0, 5, QUEUE_DEPTH + 2, QUEUE_DEPTH + 4])
async def test_many_turns_that_waited_at_once_do_not_stand_in_the_way(house: House, after: int) -> None:
    first = await house.send("0")
    call = await house.gate.next()
    session, epoch = first.ack.session_id, first.ack.epoch
    watcher = await house.watch(session, epoch, 0)
    readers = [first]
    for number in range(1, QUEUE_DEPTH + 1):
        call.say("x")
        readers.append(await house.send(str(number), session, on_busy="QUEUE"))
    call.end("y")
    for _ in range(QUEUE_DEPTH):
        (await house.gate.next()).end("z")
    for reader in readers:
        await reader.all()
        reader.close()
    last = readers[-1].last.seq
    await watcher.upto(last)
    watcher.close()
    again = await (await house.watch(session, epoch, after)).upto(last)
    assert numbers(again.items) == list(range(after + 1, last + 1))
    if after == 0:
        assert story(again.items) == story(watcher.items)
