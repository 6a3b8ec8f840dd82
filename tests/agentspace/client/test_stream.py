"""The resume loop over gRPC."""

import asyncio

import pytest

from agentspace.client.errors import (
    NotFoundError,
    ProviderError,
    ServerError,
    StreamGapError,
    TurnInterruptedError,
    UnreachableError,
)
from agentspace.client.gateway import Gateway
from agentspace.client.stream import ChatEvent
from agentspace.v1 import message_pb2, turn_pb2
from agentspace.v1.error_pb2 import (
    ERROR_REASON_SESSION_DELETED,
    ERROR_REASON_STORAGE_UNAVAILABLE,
    ERROR_REASON_UPSTREAM_OVERLOADED,
    EXECUTION_NOT_STARTED,
    Error,
)
from tests.agentspace.grpc_door import SESSION, TURN, GrpcDoor, grpc_door

TEXT = "Hello world"
BUSY = Error(code=ERROR_REASON_STORAGE_UNAVAILABLE, message="busy", retryable=True)


def text(events: list[ChatEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, turn_pb2.TextDelta))


@pytest.mark.parametrize("first", range(9))
async def test_chat_survives_a_break_after_any_event(first: int) -> None:
    async with grpc_door() as door:
        door.drops = [first, 1, 1, 2]
        async with Gateway(door.target) as gateway:
            events = [event async for event in gateway.chat("hi")]
    assert text(events) == TEXT
    positions = [getattr(event, "seq", 0) for event in events]
    assert positions == [0, *range(1, 8)]
    assert isinstance(events[-1], turn_pb2.TurnEnded)
    assert door.executed == 1
    assert len({request.idempotency_key for request in door.requests}) == 1


async def test_a_failed_turn_raises_its_error() -> None:
    async with grpc_door() as door:
        door.failure = Error(
            code=ERROR_REASON_UPSTREAM_OVERLOADED,
            message="busy",
            retryable=True,
            retry_after_ms=1500,
            execution=EXECUTION_NOT_STARTED,
        )
        for drops in ([], [3]):
            door.drops = drops
            async with Gateway(door.target) as gateway:
                with pytest.raises(ProviderError) as caught:
                    await gateway.chat("hi").text()
            error = caught.value
            assert (error.reason, error.retryable, error.retry_after) == ("UPSTREAM_OVERLOADED", True, 1.5)
            assert (error.execution, error.turn_id) == ("not_started", TURN)


async def after_crash(door: GrpcDoor, snapshot: turn_pb2.SessionSnapshot) -> list[ChatEvent]:
    """A chat that lost its server after "Hel", "lo ", met a new epoch, and lost it again when it asked for the turn."""
    door.drops = [5, -1, 0]
    events: list[ChatEvent] = []
    async with Gateway(door.target, patience=5) as gateway:
        async for event in gateway.chat("hi"):
            events.append(event)
            if text(events) == "Hello " and door.epoch == 1:
                snapshot.epoch, snapshot.seq = 2, 9
                door.epoch, door.snapshot, door.log = 2, snapshot, [None] * 9 + door.log[9:]
    return events


def message(text: str, id_: str = "m2") -> message_pb2.Message:
    return message_pb2.Message(
        message_id=id_, blocks=[message_pb2.ContentBlock(kind=message_pb2.BLOCK_KIND_TEXT, text=text)]
    )


@pytest.mark.parametrize("drop", [None, BUSY])
@pytest.mark.parametrize("answer_id", ["m2", "old"])
async def test_a_turn_completed_before_the_crash_is_given_to_its_end(answer_id: str, drop: Error | None) -> None:
    async with grpc_door() as door:
        door.drop = drop
        door.turn.state = turn_pb2.TURN_STATE_COMPLETED
        door.turn.answer_message_id = answer_id
        messages = [message(TEXT)] if answer_id == "m2" else []
        events = await after_crash(door, turn_pb2.SessionSnapshot(session_id=SESSION, messages=messages))
    assert text(events) == TEXT
    assert isinstance(events[-1], turn_pb2.TurnEnded)


async def test_an_interrupted_turn_raises() -> None:
    async with grpc_door() as door:
        door.turn.state = turn_pb2.TURN_STATE_INTERRUPTED
        with pytest.raises(TurnInterruptedError):
            await after_crash(door, turn_pb2.SessionSnapshot(session_id=SESSION))


async def test_a_running_turn_is_continued() -> None:
    async with grpc_door() as door:
        active = turn_pb2.ActiveTurn(turn_id=TURN, blocks=message(TEXT).blocks)
        end = turn_pb2.TurnEnded(turn_id=TURN, epoch=2, seq=10)
        door.run_turn()
        door.log = [*door.log, None, None, end]
        door.executed = 0
        door.run_turn = lambda: setattr(door, "executed", 1)  # type: ignore[method-assign]
        events = await after_crash(door, turn_pb2.SessionSnapshot(session_id=SESSION, active_turn=active))
    assert text(events) == TEXT
    assert events[-1] == end


async def test_another_text_than_the_one_read_is_refused() -> None:
    async with grpc_door() as door:
        door.turn.state = turn_pb2.TURN_STATE_COMPLETED
        door.turn.answer_message_id = "m2"
        with pytest.raises(StreamGapError):
            await after_crash(door, turn_pb2.SessionSnapshot(messages=[message("Something else")]))


async def test_watch_goes_on_after_its_position() -> None:
    async with grpc_door() as door:
        door.run_turn()
        door.drops = [2, 1]
        seen = []
        async with Gateway(door.target) as gateway:
            async for event in gateway.watch(SESSION, epoch=1, after_seq=2):
                seen.append(event)
                if isinstance(event, turn_pb2.TurnEnded):
                    break
    assert [getattr(event, "seq", 0) for event in seen] == [3, 4, 5, 6, 7]


async def test_watch_ends_with_its_session() -> None:
    async with grpc_door() as door:
        door.run_turn()
        door.drops, door.drop = [2], Error(code=ERROR_REASON_SESSION_DELETED, message="gone")
        async with Gateway(door.target, patience=0) as gateway:
            with pytest.raises(NotFoundError, match="SESSION_DELETED: gone"):
                [event async for event in gateway.watch(SESSION, epoch=1, after_seq=2)]


async def test_watch_goes_on_after_an_error_that_may_pass() -> None:
    async with grpc_door() as door:
        door.run_turn()
        door.drops, door.drop = [0, 2, 1], BUSY
        async with Gateway(door.target) as gateway:
            seen = []
            async for event in gateway.watch(SESSION, epoch=1, after_seq=2):
                seen.append(getattr(event, "seq", 0))
                if isinstance(event, turn_pb2.TurnEnded):
                    break
    assert seen == [3, 4, 5, 6, 7]


async def test_only_what_was_accepted_goes_on_after_an_error_that_may_pass() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        door.drops, door.drop = [4, 1], BUSY
        assert await gateway.chat("hi").text() == TEXT
        assert door.executed == 1
        door.drops = [1]
        with pytest.raises(ServerError, match="STORAGE_UNAVAILABLE: busy"):
            await gateway.chat("hi").text()


async def test_a_watch_that_is_left_ends_at_the_server() -> None:
    async with grpc_door() as door, Gateway(door.target) as gateway:
        door.run_turn()
        door.stays = True
        async for event in gateway.watch(SESSION, epoch=1, after_seq=2):
            if isinstance(event, turn_pb2.TurnEnded):
                break
        async with asyncio.timeout(10):
            await door.left.wait()


async def test_it_gives_up_when_patience_runs_out() -> None:
    async with Gateway("127.0.0.1:1", patience=0.3) as gateway:
        with pytest.raises(UnreachableError):
            await gateway.chat("hi").text()
