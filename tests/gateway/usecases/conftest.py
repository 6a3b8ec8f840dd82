"""The fixtures of tests/gateway/usecases/rooms.py, and the house of all live use cases."""

from collections.abc import AsyncIterator

import pytest

from gateway.storage.database import Database
from tests.gateway.usecases.house import House, Weak
from tests.gateway.usecases.rooms import StillClock, clock, live, sessions, store, talk

__all__ = ["clock", "house", "live", "sessions", "store", "talk", "weak"]


@pytest.fixture
def weak(store: Database) -> Weak:
    return Weak(store)


@pytest.fixture
async def house(weak: Weak, clock: StillClock) -> AsyncIterator[House]:
    house = House(weak, clock)
    yield house
    await house.kill()
