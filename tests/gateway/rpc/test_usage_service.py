"""usage_service.py: totals are the sum of the rows, for one session and for all."""

import grpc.aio
import pytest

from agentspace.v1 import usage_service_pb2 as pb
from agentspace.v1.chat_service_pb2 import SendMessageRequest
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from agentspace.v1.usage_service_pb2_grpc import UsageServiceStub
from tests.gateway.running import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_totals_are_the_rows(channel: grpc.aio.Channel) -> None:
    usage, chat = UsageServiceStub(channel), ChatServiceStub(channel)
    before = len((await usage.ListUsageRecords(pb.ListUsageRecordsRequest())).records)
    sessions = []
    for model in ("scripted/echo", "scripted/story"):
        request = SendMessageRequest(content="one two three", model=model)
        created, *_ = [event async for event in chat.SendMessage(request)]
        sessions.append(created.session_created.session_id)
    for session in ("", *sessions):
        records = (await usage.ListUsageRecords(pb.ListUsageRecordsRequest(session_id=session))).records
        sums = await usage.QueryUsage(pb.QueryUsageRequest(session_id=session))
        assert len(records) == sums.grand_total.request_count == (1 if session else before + 2)
        assert sums.grand_total.total_tokens == sum(record.usage.total_tokens for record in records) > 0
        assert sums.grand_total.total_tokens == sum(model.total_tokens for model in sums.per_model.values())
        assert set(sums.per_model) == {record.model for record in records}
        assert sums.grand_total.HasField("total_cost")


async def test_unknown_session(channel: grpc.aio.Channel) -> None:
    usage = UsageServiceStub(channel)
    assert await refused(usage.QueryUsage(pb.QueryUsageRequest(session_id="none"))) == "SESSION_NOT_FOUND"
    assert await refused(usage.ListUsageRecords(pb.ListUsageRecordsRequest(session_id="none"))) == "SESSION_NOT_FOUND"
