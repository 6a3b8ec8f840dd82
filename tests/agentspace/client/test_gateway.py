"""The typed client's calls."""

import pytest

from agentspace.client.errors import DeniedError, InvalidRequestError, NotFoundError, UnreachableError
from agentspace.client.gateway import Gateway
from agentspace.v1 import chat_service_pb2
from tests.agentspace.grpc_door import TURN, grpc_door


async def test_text_is_the_whole_answer() -> None:
    async with grpc_door() as door, Gateway(door.target, token="secret") as gateway:
        assert await gateway.chat("hi", model="m", session_id="x").text() == "Hello world"
        sent = door.requests[0]
        assert (sent.content, sent.model, sent.session_id) == ("hi", "m", "x")
        assert sent.on_busy == chat_service_pb2.ON_BUSY_REJECT
        assert door.metadata["authorization"] == "Bearer secret"


async def test_a_token_is_sent_without_its_line_end_or_refused() -> None:
    async with grpc_door() as door:
        async with Gateway(door.target, token="secret\n") as gateway:
            await gateway.chat("hi").text()
            assert door.metadata["authorization"] == "Bearer secret"
        with pytest.raises(DeniedError):
            Gateway(door.target, token="s\u00e9cret")


async def test_lists_are_read_page_by_page() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        assert [session.session_id async for session in gateway.list_sessions()] == ["a", "b"]
        assert [message.message_id async for message in gateway.list_messages("x")] == ["old"]


async def test_errors_carry_what_the_server_said() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        with pytest.raises(NotFoundError) as caught:
            await gateway.get_session("x")
        assert (caught.value.reason, caught.value.message) == ("SESSION_NOT_FOUND", "no such session")
        assert caught.value.metadata == {"sessionId": "x"}
        assert (caught.value.retryable, caught.value.retry_after) == (False, 2.0)
        assert caught.value.execution == "not_started"


async def test_what_is_too_large_to_be_sent_is_an_invalid_request() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        for sending in (gateway.chat("x" * 5 * 1024 * 1024).text(), gateway.get_session("x" * 5 * 1024 * 1024)):
            with pytest.raises(InvalidRequestError, match="larger than max"):
                await sending


async def test_turns() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        assert (await gateway.get_turn(TURN)).turn_id == TURN
        assert [turn.turn_id for turn in await gateway.cancel(turn_id=TURN)] == [TURN]


async def test_a_method_the_server_lacks() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        with pytest.raises(InvalidRequestError):
            await gateway.usage()


async def test_without_a_server() -> None:
    async with Gateway("127.0.0.1:1") as gateway:
        with pytest.raises(UnreachableError):
            await gateway.list_keys()
