"""Sends of every kind, cancels, and watchers that come and go, in one session over both doors, in random order."""

import asyncio
import random

import pytest

from tests.journeys.conftest import House
from tests.journeys.doors import DOORS, ENDS, door, hear, ready
from tests.journeys.reader import Reader

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def sender(house: House, session: str, dice: random.Random, number: int) -> None:
    """Fifteen messages, most of them followed to the end."""
    for each in range(15):
        way = door(dice.choice(DOORS), house.stack)
        content = f"message {number}.{each} " + "word " * dice.randint(1, 30)
        busy = dice.choice(["queue", "queue", "queue", "interrupt", "reject"])
        async with way.open("chat.send", sessionId=session, content=content, onBusy=busy) as stream:
            await (stream.next() if dice.random() < 0.3 else hear(stream, *ENDS))
        if dice.random() < 0.05:
            await way.ask("turn.cancel", sessionId=session)


async def watcher(house: House, reader: Reader, dice: random.Random, number: int) -> None:
    """Drops its connection after a few events, again and again."""
    while True:
        await reader.watch(door(DOORS[number % 2], house.stack), frames=dice.randint(1, 25))


@pytest.mark.requirement("resume.gapless")
@pytest.mark.requirement("chat.one-writer")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed == 0 else pytest.mark.slow) for seed in range(10)]
)
async def test_everybody_sees_the_same(house: House, seed: int) -> None:
    house.upstream.pace = 0.001
    dice = random.Random(seed)
    way = door("grpc", house.stack)
    async with way.open("chat.send", content=f"begin {seed}") as stream:
        frames = await hear(stream, *ENDS)
    session, epoch = frames[0]["sessionId"], frames[-1]["epoch"]
    readers = [Reader(session, epoch, 0) for _ in range(4)]
    watchers = [asyncio.create_task(watcher(house, reader, dice, n)) for n, reader in enumerate(readers)]
    await asyncio.gather(*(sender(house, session, dice, number) for number in range(4)))
    async with way.open("chat.send", sessionId=session, content="the end", onBusy="queue") as stream:
        end = (await hear(stream, *ENDS))[-1]
    async with asyncio.timeout(30):
        while any(end["turnId"] not in reader.ends for reader in readers):
            assert not [task.exception() for task in watchers if task.done()]
            await asyncio.sleep(0)
    for task in watchers:
        task.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    first = readers[0]
    assert all((reader.text, reader.seq) == (first.text, first.seq) for reader in readers)
    assert first.asked == [*dict.fromkeys(first.asked)]
    history = (await way.ask("session.history", sessionId=session, pageSize=1000))["messages"]
    stored = {m["turnId"]: m["blocks"][0]["text"] for m in history if m["role"] == "assistant"}
    assert stored == {turn: said for turn, said in first.text.items() if said}
    assert [m["turnId"] for m in history if m["role"] == "user"] == first.asked
    for call in house.upstream.chats:
        users = [said for role, said in call.said() if role == "user"]
        assert len(users) == len(set(users))
    # The same events come from storage, after a restart too.
    await house.stack.restart_gateway()
    await ready(house.stack)
    for name in DOORS:
        again = Reader(session, epoch, 0)
        assert await again.watch(door(name, house.stack), until=end["turnId"])
        assert (again.text, again.asked, again.seq, again.resets) == (first.text, first.asked, first.seq, [])
