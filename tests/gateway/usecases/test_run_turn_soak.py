"""Many short turns with cancels and drops leave nothing behind: no task, no live session, no memory."""

import asyncio
import gc
import random
import sys

import pytest

from gateway.domain.turn import CANCELLED, COMPLETED, Turn
from gateway.domain.turn_log import TurnLog
from gateway.providers.scripted import ScriptedProvider
from gateway.usecases.live_sessions import ActiveTurn, LiveSession
from gateway.usecases.watch_session import Feed
from tests.gateway.usecases.house import House, Weak
from tests.gateway.usecases.rooms import StillClock

AT_ONCE = 20
KEPT = (ActiveTurn, Feed, LiveSession, TurnLog, Turn)
SESSIONS = 50


def kept() -> int:
    """How many things of turns are in memory; tests before this one may have left some."""
    gc.collect()
    return sum(isinstance(each, KEPT) for each in gc.get_objects())


async def talk(house: House, sessions: list[str], dice: random.Random) -> None:
    """One turn, whose reader stays, leaves, comes back under its key, or cancels; sometimes somebody watches."""
    session = dice.choice(["", *sessions])
    way = dice.choice(["stay", "leave", "cancel", "repeat", "watch"])
    key = f"{dice.random()}" if way == "repeat" else ""
    reader = await house.send("a b c d", session, key=key, on_busy="QUEUE")
    if not session and len(sessions) < SESSIONS:
        sessions.append(reader.ack.session_id)
    if way == "stay":
        await reader.all()
    elif way == "cancel":
        assert (await house.cancel.turn(reader.ack.turn_id)).state in (CANCELLED, COMPLETED)
    elif way == "repeat":
        again = await house.send("a b c d", session, key=key, on_busy="QUEUE")
        assert again.ack.duplicate
        await again.all()
        again.close()
    elif way == "watch":
        watcher = await house.watch(reader.ack.session_id, 1, dice.choice([None, 0]))
        watcher.take()
        watcher.close()
    reader.close()


async def some(house: House, sessions: list[str], dice: random.Random, turns: int) -> None:
    for _ in range(turns // AT_ONCE):
        await asyncio.gather(*(talk(house, sessions, dice) for _ in range(AT_ONCE)))
        await house.checkpoints.save()
        house.pulse.beat()
    await house.settled()
    while house.tasks:
        await asyncio.gather(*house.tasks)


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param(300, id="few"),
        pytest.param(10_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
async def test_nothing_is_left_of_turns_that_are_over(weak: Weak, clock: StillClock, turns: int) -> None:
    house = House(weak, clock, ScriptedProvider(sleep=lambda seconds: asyncio.sleep(0)))
    sessions: list[str] = []
    dice = random.Random(1)
    before, others = len(asyncio.all_tasks()), kept()
    counts = []
    for part in (turns // 3, turns // 3, turns // 3):
        await some(house, sessions, dice, part)
        house.ended.clear()
        assert (house.live.turns, list(house.live), house.live._loads) == ({}, [], {})
        assert len(asyncio.all_tasks()) == before
        assert kept() <= others
        counts.append(sys.getallocatedblocks())
    # Caches come and go; nothing may grow with the turns.
    assert counts[2] - counts[1] < 4000 + turns // 6, counts
