"""direct.py: what a gRPC client sees: responses, streams, statuses with their details, and who it is taken for."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentspace.v1 import chat_service_pb2, key_service_pb2, session_service_pb2, turn_pb2
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from agentspace.v1.key_service_pb2_grpc import KeyServiceStub
from agentspace.v1.session_service_pb2_grpc import SessionServiceStub
from gateway.app import App
from tests.gateway.running import bearer, dialled, token, told

pytestmark = pytest.mark.asyncio(loop_scope="module")


def send(content: str, **fields: Any) -> chat_service_pb2.SendMessageRequest:
    return chat_service_pb2.SendMessageRequest(content=content, **fields)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_stream_gives_the_turn_to_its_end(target: str) -> None:
    async with dialled(target) as channel:
        events = [event async for event in ChatServiceStub(channel).SendMessage(send("one two"))]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[:3] + kinds[-1:] == ["session_created", "accepted", "started", "ended"]
    assert "".join(event.text.delta for event in events) == "one two"


async def test_a_failed_turn_is_an_event_and_then_the_status(target: str) -> None:
    async with dialled(target) as channel:
        call = ChatServiceStub(channel).SendMessage(send("x", model="scripted/fail?after=1&with=truncated"))
        while not (event := await call.read()).HasField("failed"):
            pass
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    failed = event.failed
    code, info = told(caught.value)
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_TRUNCATED")
    assert info.metadata["turnId"] == failed.turn_id != ""
    assert info.metadata["execution"] == "may_have_executed"


async def test_refused_before_the_stream_begins(target: str) -> None:
    async with dialled(target) as channel:
        for request, reason in [
            (send(" "), "INVALID_MESSAGE"),
            (send("x", session_id="nowhere"), "SESSION_NOT_FOUND"),
            (send("x", model="nobody/knows"), "MODEL_NOT_FOUND"),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ChatServiceStub(channel).SendMessage(request).read()
            assert told(caught.value)[1].reason == reason


async def test_a_stream_that_is_left_ends_its_feed_and_not_its_turn(app: App, target: str) -> None:
    async with dialled(target) as channel:
        stub = ChatServiceStub(channel)
        call = stub.SendMessage(send("x", model="scripted/count?n=30&delay=10ms"))
        await call.read()
        turn_id = (await call.read()).accepted.turn_id
        live = app._live.turns[turn_id][0]
        call.cancel()
        waited = await stub.WaitTurn(chat_service_pb2.WaitTurnRequest(turn_id=turn_id))
        assert waited.turn.state == turn_pb2.TURN_STATE_COMPLETED
        assert not live.watchers


async def test_a_reader_that_goes_away_is_no_fault(app: App, caplog: pytest.LogCaptureFixture, target: str) -> None:
    async with dialled(target) as channel:
        session = (await SessionServiceStub(channel).CreateSession(session_service_pb2.CreateSessionRequest())).session
        async with dialled(target) as leaving:
            request = chat_service_pb2.WatchSessionRequest(session_id=session.session_id)
            watch = ChatServiceStub(leaving).WatchSession(request)
            await watch.read()
            live = app._live.find(session.session_id)
            assert live is not None
            long = send("x", session_id=session.session_id, model="scripted/count?n=1500&size=4000")
            # By its end more is written to the watch, which is read no more, than there is room for.
            async for _ in ChatServiceStub(channel).SendMessage(long):
                pass
            assert len(live.watchers) == 1
        while live.watchers:
            await asyncio.sleep(0)
    assert not errors(caplog)


async def test_a_request_that_cannot_be_read_is_refused(target: str, caplog: pytest.LogCaptureFixture) -> None:
    async with dialled(target) as channel:
        # A field that ends too early, and a title of bad UTF-8.
        for data in (b"\x0a\x05x", b"\x0a\x02\xff\xfe"):
            unary = channel.unary_unary("/agentspace.v1.SessionService/CreateSession")
            stream = channel.unary_stream("/agentspace.v1.ChatService/SendMessage")
            connect = channel.stream_stream("/agentspace.v1.GatewayService/Connect")
            for call in (unary(data), stream(data).read(), connect(iter([data])).read()):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                code, info = told(caught.value)
                assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert not errors(caplog)


async def test_a_watch_ends_when_its_session_is_deleted(target: str) -> None:
    async with dialled(target) as channel:
        sessions = SessionServiceStub(channel)
        session = (await sessions.CreateSession(session_service_pb2.CreateSessionRequest())).session
        watch = ChatServiceStub(channel).WatchSession(
            chat_service_pb2.WatchSessionRequest(session_id=session.session_key)
        )
        assert (await watch.read()).snapshot.session_id == session.session_id
        await sessions.DeleteSession(session_service_pb2.DeleteSessionRequest(session_id=session.session_id))
        assert (await watch.read()).failed.metadata["sessionId"] == session.session_id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert told(caught.value)[1].reason == "SESSION_DELETED"


async def test_who_a_caller_is(target: str, home: Path) -> None:
    async with dialled(target) as channel:
        keys = KeyServiceStub(channel)
        request = key_service_pb2.ListKeysRequest()
        await keys.ListKeys(request, metadata=bearer(token(home)))
        await keys.ListKeys(request, metadata=(("authorization", f"bearer  {token(home)} "),))
        for metadata, reason in [
            ((), "MISSING_SCOPE"),
            (bearer("wrong"), "UNAUTHENTICATED"),
            (bearer(""), "MISSING_SCOPE"),
            ((("authorization", f"Basic {token(home)}"),), "UNAUTHENTICATED"),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await keys.ListKeys(request, metadata=metadata)
            assert told(caught.value)[1].reason == reason
            assert token(home) not in str(caught.value)


async def test_many_calls_at_once_over_one_channel(target: str) -> None:
    async with dialled(target) as channel:
        stub = ChatServiceStub(channel)

        async def one(number: int) -> str:
            return "".join([event.text.delta async for event in stub.SendMessage(send(f"number {number}"))])

        said = await asyncio.gather(*(one(number) for number in range(20)))
    assert said == [f"number {number}" for number in range(20)]
