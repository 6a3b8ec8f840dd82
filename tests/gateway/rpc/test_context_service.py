"""context_service.py: sections and totals that agree; an unknown price is absent, not zero."""

import grpc.aio
import pytest

from agentspace.v1 import context_service_pb2 as pb
from agentspace.v1 import session_service_pb2
from agentspace.v1.context_service_pb2_grpc import ContextServiceStub
from agentspace.v1.session_service_pb2_grpc import SessionServiceStub
from tests.gateway.running import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("model", "priced"), [("claude-sonnet-5-5", True), ("local/some", True), ("claude-sonnet-99", False)]
)
async def test_sections_add_up(channel: grpc.aio.Channel, model: str, priced: bool) -> None:
    creation = session_service_pb2.CreateSessionRequest(model=model, system_prompt="Be brief.")
    session = (await SessionServiceStub(channel).CreateSession(creation)).session
    request = pb.InspectContextRequest(session_id=session.session_key)
    context = await ContextServiceStub(channel).InspectContext(request)
    assert context.model == model
    assert "Be brief." in {section.content for section in context.sections}
    for total in ("byte_count", "token_estimate"):
        assert getattr(context.totals, total) == sum(getattr(section, total) for section in context.sections) > 0
    assert all(section.token_method == "estimate:o200k" for section in context.sections if section.token_estimate)
    assert context.totals.priced is context.totals.HasField("cost_estimate") is priced
    assert all(section.HasField("cost_estimate") is priced for section in context.sections)


async def test_unknown_session(channel: grpc.aio.Channel) -> None:
    call = ContextServiceStub(channel).InspectContext(pb.InspectContextRequest(session_id="none"))
    assert await refused(call) == "SESSION_NOT_FOUND"
