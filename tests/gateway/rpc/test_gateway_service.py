"""gateway_service.py: who the caller is, whether the gateway is ready, and its metrics."""

import grpc.aio
import pytest

from agentspace.v1 import gateway_service_pb2 as pb
from agentspace.v1.gateway_service_pb2_grpc import GatewayServiceStub
from gateway.app import App, product_version
from gateway.usecases.send_message import MAX_CONTENT_BYTES, QUEUE_DEPTH
from tests.gateway.running import dialled, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_hello(channel: grpc.aio.Channel, operator: tuple[tuple[str, str], ...]) -> None:
    gateway = GatewayServiceStub(channel)
    hello = (await gateway.Hello(pb.HelloRequest())).hello
    assert (hello.protocol, hello.server_version) == ("agentspace.v2", product_version())
    assert (hello.principal, list(hello.scopes)) == ("local", ["chat", "sessions", "usage"])
    assert (hello.limits.max_content_bytes, hello.limits.queue_depth) == (MAX_CONTENT_BYTES, QUEUE_DEPTH)
    assert {"watch", "resume", "cancel", "idempotency"} <= set(hello.features)
    assert (await gateway.Hello(pb.HelloRequest(), metadata=operator)).hello.principal == "operator"
    unknown = (("authorization", "Bearer nobody"),)
    assert await refused(gateway.Hello(pb.HelloRequest(), metadata=unknown)) == "UNAUTHENTICATED"


async def test_readiness_follows_the_draining(fresh: App, fresh_target: str) -> None:
    async with dialled(fresh_target) as channel:
        gateway = GatewayServiceStub(channel)
        ready = await gateway.GetReadiness(pb.GetReadinessRequest())
        assert ready.ready
        assert all(part.ready and not part.detail for part in ready.parts)
        await fresh.drain()
        draining = await gateway.GetReadiness(pb.GetReadinessRequest())
        assert not draining.ready
        assert [part.name for part in draining.parts if not part.ready] == ["draining"]


async def test_metrics(channel: grpc.aio.Channel) -> None:
    gateway = GatewayServiceStub(channel)
    await gateway.Hello(pb.HelloRequest())
    text = (await gateway.GetMetrics(pb.GetMetricsRequest())).text
    assert 'agentspace_calls_total{code="OK",method="Hello"}' in text
