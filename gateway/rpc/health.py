"""Health: grpc.health.v1.Health, which tells of every service whether it is served.

Built by server. In place of the library's servicer, which holds a lock while it writes to a watcher: one that does not
read would keep the news from all others, and the gateway from stopping.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer


class Health(HealthServicer):
    """Of `services`, by name; all of them have the same status. They are not served until `set_serving`."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._status: int = HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Tell this from now on, and to those who watch."""
        self._status = HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: HealthCheckRequest, context: Any) -> HealthCheckResponse:  # noqa: N802
        """Tell the status of one."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return HealthCheckResponse(status=self._status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the status of all."""
        statuses = {name: HealthCheckResponse(status=self._status) for name in self._services}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]

    async def Watch(self, request: HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Tell the status of one, and again whenever it changes."""
        known = request.service in self._services
        told = None
        while True:
            changed = self._changed
            status = self._status if known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                await context.write(HealthCheckResponse(status=status))
                told = status
            await changed.wait()
