"""health.py: what is told of a service, and to whom when one of those who watch does not read."""

import asyncio
from typing import Any

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from gateway.rpc.health import Health

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


class Watcher:
    """A call of Watch that takes what it is told, or not."""

    def __init__(self, health: Health, service: str, *, reads: bool = True) -> None:
        self.told: asyncio.Queue[int] = asyncio.Queue()
        self._reads = reads
        self.task = asyncio.create_task(health.Watch(HealthCheckRequest(service=service), self))

    async def write(self, response: Any) -> None:
        if not self._reads:
            await asyncio.get_running_loop().create_future()
        self.told.put_nowait(response.status)


async def test_all_services_have_one_status() -> None:
    health = Health(["a", "b"])
    for serving, status in ((None, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)):
        if serving is not None:
            health.set_serving(serving)
        assert (await health.Check(HealthCheckRequest(service="a"), None)).status == status
        listed = (await health.List(None, None)).statuses
        assert {name: one.status for name, one in listed.items()} == {"a": status, "b": status}


async def test_who_watches_is_told_of_changes_whoever_else_does_not_read() -> None:
    health = Health(["a"])
    stuck, unknown, watcher = Watcher(health, "a", reads=False), Watcher(health, "x"), Watcher(health, "a")
    async with asyncio.timeout(5):
        assert await unknown.told.get() == HealthCheckResponse.SERVICE_UNKNOWN
        assert await watcher.told.get() == NOT_SERVING
        health.set_serving(True)
        assert await watcher.told.get() == SERVING
        health.set_serving(True)
        health.set_serving(False)
        assert await watcher.told.get() == NOT_SERVING
    assert watcher.told.empty()
    assert unknown.told.empty()
    for one in (stuck, unknown, watcher):
        one.task.cancel()
