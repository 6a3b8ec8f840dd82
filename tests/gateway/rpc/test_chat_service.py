"""chat_service.py: what a request may say, and turns read, listed, waited for and cancelled over gRPC."""

import grpc.aio
import pytest

from agentspace.v1 import chat_service_pb2 as pb
from agentspace.v1 import turn_pb2
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from tests.gateway.running import refused

pytestmark = pytest.mark.asyncio(loop_scope="module")
HANG = "scripted/fail?with=hang"


async def begun(chat: ChatServiceStub, **fields: str) -> turn_pb2.MessageAccepted:
    """A turn that is running and watched no more."""
    call = chat.SendMessage(pb.SendMessageRequest(content="x", **fields))  # type: ignore[arg-type]
    async for event in call:
        if event.HasField("accepted"):
            call.cancel()
            return event.accepted
    raise AssertionError("never accepted")


async def test_unknown_choices_are_named(channel: grpc.aio.Channel) -> None:
    chat = ChatServiceStub(channel)
    for request in (pb.SendMessageRequest(content="x", on_busy=9), pb.SendMessageRequest(content="x", on_disconnect=9)):  # type: ignore[arg-type]
        assert await refused(chat.SendMessage(request).read()) == "INVALID_MESSAGE"


async def test_cancel_names_a_turn_or_a_session(channel: grpc.aio.Channel) -> None:
    chat = ChatServiceStub(channel)
    for request in (pb.CancelTurnRequest(), pb.CancelTurnRequest(turn_id="t", session_id="s")):
        assert await refused(chat.CancelTurn(request)) == "INVALID_MESSAGE"
    assert await refused(chat.CancelTurn(pb.CancelTurnRequest(turn_id="t"))) == "TURN_NOT_FOUND"
    assert await refused(chat.CancelTurn(pb.CancelTurnRequest(session_id="s"))) == "SESSION_NOT_FOUND"


async def test_cancel_a_turn(channel: grpc.aio.Channel) -> None:
    chat = ChatServiceStub(channel)
    accepted = await begun(chat, model=HANG)
    for _ in range(2):
        (turn,) = (await chat.CancelTurn(pb.CancelTurnRequest(turn_id=accepted.turn_id))).turns
        assert (turn.turn_id, turn.state) == (accepted.turn_id, turn_pb2.TURN_STATE_CANCELLED)


async def test_cancel_a_sessions_turns(channel: grpc.aio.Channel) -> None:
    chat = ChatServiceStub(channel)
    first = await begun(chat, model=HANG)
    call = chat.SendMessage(pb.SendMessageRequest(session_id=first.session_id, content="y", on_busy=pb.ON_BUSY_QUEUE))
    queued = (await call.read()).accepted
    turns = (await chat.CancelTurn(pb.CancelTurnRequest(session_id=first.session_id))).turns
    assert {turn.turn_id for turn in turns} == {first.turn_id, queued.turn_id}
    assert {turn.state for turn in turns} == {turn_pb2.TURN_STATE_CANCELLED}
    assert not (await chat.CancelTurn(pb.CancelTurnRequest(session_id=first.session_id))).turns


async def test_get_list_and_wait(channel: grpc.aio.Channel) -> None:
    chat = ChatServiceStub(channel)
    accepted = await begun(chat, model=HANG)
    waiting = await chat.WaitTurn(pb.WaitTurnRequest(turn_id=accepted.turn_id, timeout_ms=1))
    assert waiting.turn.state == turn_pb2.TURN_STATE_RUNNING
    await chat.CancelTurn(pb.CancelTurnRequest(turn_id=accepted.turn_id))
    ended = (await chat.WaitTurn(pb.WaitTurnRequest(turn_id=accepted.turn_id))).turn
    assert (await chat.GetTurn(pb.GetTurnRequest(turn_id=accepted.turn_id))).turn == ended
    listed = (await chat.ListTurns(pb.ListTurnsRequest(session_id=accepted.session_id))).turns
    assert list(listed) == [ended]
    assert await refused(chat.GetTurn(pb.GetTurnRequest(turn_id="none"))) == "TURN_NOT_FOUND"
    assert await refused(chat.WaitTurn(pb.WaitTurnRequest(turn_id="none"))) == "TURN_NOT_FOUND"
    assert await refused(chat.ListTurns(pb.ListTurnsRequest(session_id="none"))) == "SESSION_NOT_FOUND"


async def test_watch_without_a_position_and_from_the_start(channel: grpc.aio.Channel) -> None:
    chat = ChatServiceStub(channel)
    call = chat.SendMessage(pb.SendMessageRequest(content="one two three"))
    created, *_ = [event async for event in call]
    session = created.session_created.session_id
    snapshot = (await chat.WatchSession(pb.WatchSessionRequest(session_id=session)).read()).snapshot
    assert [message.blocks[0].text for message in snapshot.messages] == ["one two three"] * 2
    watch = chat.WatchSession(pb.WatchSessionRequest(session_id=session, epoch=snapshot.epoch, after_seq=0))
    kinds = []
    async for event in watch:
        kinds.append(event.WhichOneof("event"))
        if event.HasField("ended"):
            break
    assert (kinds[:2], set(kinds[2:-1])) == (["message", "started"], {"text"})
