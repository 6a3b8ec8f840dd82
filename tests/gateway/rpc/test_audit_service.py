"""audit_service.py: what happened to keys, newest first, for the operator only."""

import grpc.aio
import pytest

from agentspace.v1 import audit_service_pb2 as pb
from agentspace.v1.audit_service_pb2_grpc import AuditServiceStub
from agentspace.v1.key_service_pb2 import ListKeysRequest
from agentspace.v1.key_service_pb2_grpc import KeyServiceStub
from tests.gateway.running import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_pages_newest_first(channel: grpc.aio.Channel, operator: tuple[tuple[str, str], ...]) -> None:
    for _ in range(3):
        await refused(KeyServiceStub(channel).ListKeys(ListKeysRequest()))
    audit = AuditServiceStub(channel)
    first = await audit.ListAuditEvents(pb.ListAuditEventsRequest(page_size=2), metadata=operator)
    request = pb.ListAuditEventsRequest(page_size=2, page_token=first.next_page_token)
    second = await audit.ListAuditEvents(request, metadata=operator)
    numbers = [event.event_id for event in [*first.events, *second.events]]
    assert len(numbers) >= 3
    assert numbers == sorted({*numbers}, reverse=True)
    assert first.events[0].created_at.seconds > 0


async def test_not_for_the_local_principal(channel: grpc.aio.Channel) -> None:
    assert await refused(AuditServiceStub(channel).ListAuditEvents(pb.ListAuditEventsRequest())) == "MISSING_SCOPE"
