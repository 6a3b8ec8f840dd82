"""session_service.py: every method over gRPC, and what each refuses."""

import grpc.aio
import pytest

from agentspace.v1 import session_service_pb2 as pb
from agentspace.v1.chat_service_pb2 import SendMessageRequest
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from agentspace.v1.session_pb2 import Session
from agentspace.v1.session_service_pb2_grpc import SessionServiceStub
from tests.gateway.running import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def talked(channel: grpc.aio.Channel, *words: str) -> Session:
    session = (await SessionServiceStub(channel).CreateSession(pb.CreateSessionRequest(title="talk"))).session
    for word in words:
        request = SendMessageRequest(session_id=session.session_id, content=word)
        assert [event async for event in ChatServiceStub(channel).SendMessage(request)][-1].HasField("ended")
    return session


async def test_create_and_get(channel: grpc.aio.Channel) -> None:
    sessions = SessionServiceStub(channel)
    request = pb.CreateSessionRequest(agent_id="writer", model="scripted/story", title="t", system_prompt="p")
    created = (await sessions.CreateSession(request)).session
    assert (created.agent_id, created.model, created.title, created.system_prompt) == (
        *("writer", "scripted/story"),
        *("t", "p"),
    )
    for name in (created.session_id, created.session_key):
        assert (await sessions.GetSession(pb.GetSessionRequest(session_id=name))).session == created
    assert await refused(sessions.GetSession(pb.GetSessionRequest(session_id="none"))) == "SESSION_NOT_FOUND"
    assert await refused(sessions.CreateSession(pb.CreateSessionRequest(agent_id="a:b"))) == "INVALID_MESSAGE"


async def test_list_in_pages(channel: grpc.aio.Channel, server: str) -> None:
    sessions = SessionServiceStub(channel)
    made = [
        (await sessions.CreateSession(pb.CreateSessionRequest(agent_id=server))).session.session_id for _ in range(5)
    ]
    seen, token = [], ""
    while True:
        request = pb.ListSessionsRequest(page_size=2, page_token=token, agent_id=server)
        page = await sessions.ListSessions(request)
        seen += [session.session_id for session in page.sessions]
        if not (token := page.next_page_token):
            break
    assert sorted(seen) == sorted(made)
    assert await refused(sessions.ListSessions(pb.ListSessionsRequest(page_size=-1))) == "INVALID_MESSAGE"


async def test_update_by_mask_and_etag(channel: grpc.aio.Channel) -> None:
    sessions = SessionServiceStub(channel)
    session = await talked(channel)
    request = pb.UpdateSessionRequest(
        session_id=session.session_id,
        session=pb.SessionChange(title="new", system_prompt="ignored"),
        update_mask={"paths": ["title"]},
        etag=session.etag,
    )
    changed = (await sessions.UpdateSession(request)).session
    assert (changed.title, changed.system_prompt) == ("new", "")
    assert changed.etag != session.etag
    assert await refused(sessions.UpdateSession(request)) == "ETAG_MISMATCH"


async def test_delete_and_restore(channel: grpc.aio.Channel) -> None:
    sessions = SessionServiceStub(channel)
    session = await talked(channel, "one")
    deletion = pb.DeleteSessionRequest(session_id=session.session_id)
    for _ in range(2):
        assert (await sessions.DeleteSession(deletion)).session.HasField("deleted_at")
    assert (
        await refused(sessions.GetSession(pb.GetSessionRequest(session_id=session.session_id))) == "SESSION_NOT_FOUND"
    )
    listed = await sessions.ListSessions(pb.ListSessionsRequest(deleted=True))
    assert session.session_id in {gone.session_id for gone in listed.sessions}
    restored = (await sessions.RestoreSession(pb.RestoreSessionRequest(session_id=session.session_id))).session
    assert not restored.HasField("deleted_at")
    assert restored.message_count == 2


async def test_fork_compact_and_history(channel: grpc.aio.Channel) -> None:
    sessions = SessionServiceStub(channel)
    session = await talked(channel, "one", "two")

    async def history(session_id: str, **fields: int | bool) -> list[str]:
        request = pb.ListMessagesRequest(session_id=session_id, **fields)  # type: ignore[arg-type]
        return [message.blocks[0].text for message in (await sessions.ListMessages(request)).messages]

    assert await history(session.session_id) == ["one", "one", "two", "two"]
    assert await history(session.session_id, newest_first=True, page_size=1) == ["two"]
    messages = (await sessions.ListMessages(pb.ListMessagesRequest(session_id=session.session_id))).messages
    fork_request = pb.ForkSessionRequest(session_id=session.session_id, message_id=messages[1].message_id, title="f")
    fork = (await sessions.ForkSession(fork_request)).session
    assert (fork.forked_from, fork.title) == (session.session_id, "f")
    assert await history(fork.session_id) == ["one", "one"]
    compaction = pb.CompactSessionRequest(
        session_id=session.session_id, summary="they counted", keep_from_message_id=messages[2].message_id
    )
    compacted = (await sessions.CompactSession(compaction)).session
    assert compacted.generation == 2
    assert (await history(session.session_id))[-2:] == ["two", "two"]
    assert await history(session.session_id, generation=1) == ["one", "one", "two", "two"]
