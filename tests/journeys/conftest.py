"""The house that the journeys of one file share: one fake provider, one gateway, one bridge."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.fixtures.stack import Stack, running_stack
from tests.fixtures.upstream import Call, Upstream
from tests.journeys.doors import GrpcDoor, WebSocketDoor, door


@dataclass(slots=True)
class House:
    """Everything that runs."""

    upstream: Upstream
    stack: Stack

    def calls(self, content: str) -> list[Call]:
        """The provider's calls that answer a message of exactly this content."""
        return [call for call in self.upstream.chats if call.said()[-1] == ("user", content)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """For journeys that leave everything running."""
    async with Upstream().serve() as upstream, running_stack(upstream.url) as stack:
        yield House(upstream, stack)


@pytest.fixture(params=["websocket", "grpc"])
def way(request: pytest.FixtureRequest, house: House) -> WebSocketDoor | GrpcDoor:
    """Each door in turn."""
    return door(request.param, house.stack)
