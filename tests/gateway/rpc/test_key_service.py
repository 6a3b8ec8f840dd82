"""key_service.py: a key is stored, shown masked, read back by the operator only, and removed."""

import grpc.aio
import pytest

from agentspace.v1 import audit_service_pb2
from agentspace.v1 import key_service_pb2 as pb
from agentspace.v1.audit_service_pb2_grpc import AuditServiceStub
from agentspace.v1.key_service_pb2_grpc import KeyServiceStub
from gateway.app import App
from gateway.domain.access import OPERATOR
from gateway.rpc.methods import Method
from tests.gateway.running import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = "sk-ant-secret-0123456789"
Operator = tuple[tuple[str, str], ...]


async def test_a_keys_life(channel: grpc.aio.Channel, operator: Operator) -> None:
    keys = KeyServiceStub(channel)
    put = await keys.PutKey(pb.PutKeyRequest(provider="anthropic", key=KEY), metadata=operator)
    assert (put.key.provider, put.key.masked) == ("anthropic", "…6789")
    listed = await keys.ListKeys(pb.ListKeysRequest(), metadata=operator)
    assert list(listed.keys) == [put.key]
    read = await keys.ReadKey(pb.ReadKeyRequest(provider="anthropic"), metadata=operator)
    assert (read.provider, read.key) == ("anthropic", KEY)
    deletion = pb.DeleteKeyRequest(provider="anthropic")
    assert (await keys.DeleteKey(deletion, metadata=operator)).existed
    assert not (await keys.DeleteKey(deletion, metadata=operator)).existed
    assert await refused(keys.ReadKey(pb.ReadKeyRequest(provider="anthropic"), metadata=operator)) == (
        "PROVIDER_KEY_MISSING"
    )
    assert await refused(keys.TestKey(pb.TestKeyRequest(provider="nobody"), metadata=operator)) == "PROVIDER_NOT_FOUND"


async def test_the_local_principal_gets_nothing_and_it_is_on_record(
    channel: grpc.aio.Channel, operator: Operator
) -> None:
    keys = KeyServiceStub(channel)
    for call in (
        keys.PutKey(pb.PutKeyRequest(provider="anthropic", key=KEY)),
        keys.ListKeys(pb.ListKeysRequest()),
        keys.TestKey(pb.TestKeyRequest(provider="anthropic")),
        keys.DeleteKey(pb.DeleteKeyRequest(provider="anthropic")),
        keys.ReadKey(pb.ReadKeyRequest(provider="anthropic")),
    ):
        assert await refused(call) == "MISSING_SCOPE"
    request = audit_service_pb2.ListAuditEventsRequest(page_size=5)
    events = (await AuditServiceStub(channel).ListAuditEvents(request, metadata=operator)).events
    # The calls were made at once.
    assert sorted(event.subject.split()[0] for event in events) == [
        *("key.delete", "key.list", "key.put", "key.read", "key.test")
    ]
    assert {(event.principal, event.action, event.outcome) for event in events} == {
        ("local", "key.denied", "MISSING_SCOPE")
    }


async def test_no_message_shows_a_key_when_printed(app: App) -> None:
    def shown(method: Method) -> set[str]:
        fields = [*method.request.DESCRIPTOR.fields, *method.response.DESCRIPTOR.fields]
        return {field.full_name for field in fields if field.GetOptions().debug_redact}

    redacted = {name for method in app.methods for name in shown(method)}
    assert {"agentspace.v1.PutKeyRequest.key", "agentspace.v1.ReadKeyResponse.key"} <= redacted
    assert "keys:read" in OPERATOR.scopes
