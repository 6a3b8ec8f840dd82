"""GatewayService without Connect: who the caller is, whether the gateway is ready, and its metrics."""

from collections.abc import Callable

from agentspace.v1 import frame_pb2
from agentspace.v1 import gateway_service_pb2 as pb
from gateway.domain.access import Principal
from gateway.domain.turn import QUEUE_DEPTH
from gateway.usecases.check_readiness import CheckReadiness
from gateway.usecases.send_message import MAX_CONTENT_BYTES

FEATURES = ("watch", "resume", "cancel", "queue", "interrupt", "idempotency", "fork", "compact", "thinking", "tools")
HEARTBEAT_MS = 15_000


class GatewayService:
    """Answers the unary methods of agentspace.v1.GatewayService."""

    def __init__(self, readiness: CheckReadiness, metrics: Callable[[], str], version: str) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._version = version

    async def hello(self, request: pb.HelloRequest, caller: Principal) -> pb.HelloResponse:
        """Who the caller is and what holds here."""
        return pb.HelloResponse(
            hello=frame_pb2.Hello(
                protocol="agentspace.v2",
                server_version=self._version,
                limits=frame_pb2.Limits(
                    max_content_bytes=MAX_CONTENT_BYTES, heartbeat_ms=HEARTBEAT_MS, queue_depth=QUEUE_DEPTH
                ),
                features=FEATURES,
                principal=caller.name,
                scopes=caller.scopes,
            )
        )

    async def get_readiness(self, request: pb.GetReadinessRequest, caller: Principal) -> pb.GetReadinessResponse:
        """Whether a chat would work."""
        parts = [
            pb.ReadinessPart(name=part.name, ready=not part.detail, detail=part.detail)
            for part in await self._readiness()
        ]
        return pb.GetReadinessResponse(ready=all(part.ready for part in parts), parts=parts)

    async def get_metrics(self, request: pb.GetMetricsRequest, caller: Principal) -> pb.GetMetricsResponse:
        """Prometheus' text format."""
        return pb.GetMetricsResponse(text=self._metrics())
