"""Waiting between attempts."""

import pytest

from agentspace.client.errors import UnreachableError, unreachable
from agentspace.client.pace import Pace


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


def pace(time: Time, patience: float) -> Pace:
    return Pace(patience, sleep=time.sleep, clock=lambda: time.now, jitter=lambda: 1.0)


async def test_delays_double_up_to_a_ceiling_and_start_again_after_progress() -> None:
    time = Time()
    waiting = pace(time, 100)
    for _ in range(7):
        await waiting.wait(unreachable("gone"))
    waiting.progress()
    await waiting.wait(unreachable("gone"))
    assert time.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 0.1]


async def test_it_gives_up_with_the_last_error() -> None:
    waiting = pace(Time(), 0.5)
    await waiting.wait(unreachable("first"))
    await waiting.wait(unreachable("second"))
    with pytest.raises(UnreachableError, match="third"):
        await waiting.wait(unreachable("third"))


async def test_the_servers_advice_counts() -> None:
    time = Time()
    await pace(time, 10).wait(UnreachableError("SHUTTING_DOWN", "", retry_after=3.0))
    assert time.waits == [3.0]
