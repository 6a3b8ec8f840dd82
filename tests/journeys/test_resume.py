"""Watchers that lose their connection: what each saw, put together, is what the provider sent."""

import asyncio
import random
from typing import Any

import pytest

from tests.fixtures.script import text
from tests.journeys.conftest import House
from tests.journeys.doors import ENDS, Door, GoneError, door, hear, ready, said
from tests.journeys.reader import Reader

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def accepted(way: Door, content: str, **fields: Any) -> Reader:
    """Send, and leave as soon as the message is accepted."""
    async with way.open("chat.send", content=content, **fields) as stream:
        frames = await hear(stream, "chat.accepted", "error")
    assert frames[-1]["type"] == "chat.accepted", frames
    reader = Reader(frames[-1]["sessionId"])
    reader.take(frames[-1])
    return reader


@pytest.mark.requirement("resume.reset")
async def test_position_that_cannot_be_used_is_reset(way: Door) -> None:
    reader = await accepted(way, "hello reset")
    async with way.open("session.watch", sessionId=reader.session, epoch=reader.epoch, afterSeq=reader.seq) as stream:
        frames = await hear(stream, *ENDS)
    assert said(frames) == "You said: hello reset"
    epoch, last = reader.epoch, frames[-1]["seq"]
    cases = [
        ({"epoch": epoch + 1, "afterSeq": 1}, "epoch_changed"),
        ({"epoch": epoch, "afterSeq": last + 1}, "position_ahead"),
        ({"epoch": epoch, "afterSeq": 2**60}, "position_ahead"),
        ({"afterSeq": 1}, "epoch_unknown"),
    ]
    for position, reason in cases:
        async with way.open("session.watch", sessionId=reader.session, **position) as stream:
            reset, snapshot = await stream.next(), await stream.next()
        assert (reset["type"], reset["reason"], reset["epoch"], reset["seq"]) == ("session.reset", reason, epoch, last)
        assert (snapshot["type"], snapshot["epoch"], snapshot["seq"]) == ("session.snapshot", epoch, last)
        assert [m["blocks"][0]["text"] for m in snapshot["messages"]] == ["hello reset", "You said: hello reset"]
    async with way.open("session.watch", sessionId=reader.session) as stream:
        assert (await stream.next())["type"] == "session.snapshot"
    async with way.open("session.watch", sessionId=reader.session, epoch=epoch, afterSeq=0) as stream:
        frames = await hear(stream, *ENDS)
    assert [frame["type"] for frame in frames[:2]] == ["chat.message", "chat.stream.start"]
    assert [frames[0]["seq"], frames[-1]["seq"]] == [1, last]
    assert said(frames) == "You said: hello reset"
    async with way.open("session.watch", sessionId="x" * 21) as stream:
        assert (await stream.next())["code"] == "SESSION_NOT_FOUND"


@pytest.mark.requirement("resume.snapshot")
async def test_snapshot_in_the_middle_of_a_turn_goes_on_without_a_seam(house: House, way: Door) -> None:
    gates = {2: asyncio.Event(), 4: asyncio.Event()}
    house.upstream.play(text("a", "b", "c", "d", "e", "f", gates=gates))
    reader = await accepted(way, f"seam {way.name}")
    call = await house.upstream.chat(len(house.upstream.chats) - 1)
    async with asyncio.timeout(10):
        await call.reached(2)
        late = Reader(reader.session)
        async with way.open("session.watch", sessionId=reader.session) as stream:
            while late.text.get("", "") != "ab":
                late.take(await stream.next())
                late.text[""] = "".join(late.text.values())
            del late.text[""]
            assert late.snapshots[0]["activeTurn"]["phase"] in ("streaming", "waiting_first_token", "dispatching")
            gates[2].set()
            gates[4].set()
            while not late.ends:
                late.take(await stream.next())
    assert list(late.text.values()) == ["abcdef"]


async def dropped_and_resumed(house: House, dice: random.Random, number: int) -> int:
    """One turn of 40 deltas, its watcher dropped 1 to 5 times at random points. Returns how often it connected."""
    way = door(dice.choice(("websocket", "grpc")), house.stack)
    words = f"turn {number} " + " ".join(str(dice.randrange(10**6)) for _ in range(40))
    reader = await until_accepted(way, words, f"key {number} {dice.random()}")
    connected = 1
    async with asyncio.timeout(50):
        for _ in range(dice.randint(1, 5)):
            await reader.watch(way, frames=dice.randint(1, 12), until=reader.turn)
            connected += 1
        while not await reader.watch(way, until=reader.turn):
            connected += 1
        assert reader.text == {reader.turn: f"You said: {words}"}
        assert not reader.resets
        assert len(house.calls(words)) == 1
        # Later, from the very beginning, the same events come from storage.
        again = Reader(reader.session, reader.epoch, 0)
        while not await again.watch(way, until=reader.turn):
            connected += 1
    assert (again.text, again.seq) == (reader.text, reader.seq)
    return connected


async def until_accepted(way: Door, words: str, key: str) -> Reader:
    """Send until it is accepted: with a key, that is safe."""
    while True:
        try:
            return await accepted(way, words, idempotencyKey=key)
        except GoneError:
            await ready(way.stack)


@pytest.mark.requirement("resume.gapless")
@pytest.mark.requirement("failure.not-twice")
@pytest.mark.parametrize("turns", [pytest.param(30, id="few"), pytest.param(200, id="many", marks=pytest.mark.slow)])
async def test_watchers_dropped_at_random_miss_nothing(house: House, turns: int) -> None:
    dice = random.Random(turns)
    places, one_at_a_time = asyncio.Semaphore(10), asyncio.Lock()
    house.upstream.pace = 0.01

    async def one(number: int) -> int:
        async with places:
            if number % 10 == 5:
                async with one_at_a_time:
                    await house.stack.restart_bridge()
            return await dropped_and_resumed(house, random.Random(dice.random()), number)

    async with asyncio.timeout(50 + turns):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(turns)]
    assert sum(task.result() for task in tasks) > turns
