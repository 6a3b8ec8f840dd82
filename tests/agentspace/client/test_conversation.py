"""The JSON client goes on in the middle of an answer."""

import asyncio
from contextlib import aclosing

import pytest

from agentspace.client.conversation import Client, raise_if_failed
from agentspace.client.errors import (
    ConflictError,
    NotFoundError,
    ProviderError,
    ServerError,
    StreamGapError,
    UnreachableError,
)
from agentspace.client.position import Position
from tests.agentspace.json_door import SESSION, TURN, Frame, JsonDoor, json_door

TEXT = "Hello world"
BUSY = {"code": "STORAGE_UNAVAILABLE", "message": "busy", "retryable": True}


async def chat(client: Client, **fields: str) -> list[Frame]:
    return [frame async for frame in client.chat("hi", **fields)]


def text(frames: list[Frame]) -> str:
    return "".join(frame["delta"] for frame in frames if frame["type"] == "chat.stream.delta")


def kinds(frames: list[Frame]) -> list[str]:
    return [frame["type"] for frame in frames]


async def test_chat_gives_the_frames_of_its_turn() -> None:
    async with json_door() as door, Client(door.url) as client:
        frames = await chat(client, model="m")
        assert kinds(frames) == [
            "session.created",
            "chat.accepted",
            "chat.stream.start",
            *["chat.stream.delta"] * 4,
            "chat.stream.end",
        ]
        assert text(frames) == TEXT
        sent = door.received[0]
        assert (sent["content"], sent["model"]) == ("hi", "m")
        assert len(sent["idempotencyKey"]) > 20
        assert "sessionId" not in sent


@pytest.mark.parametrize("first", range(8))
async def test_chat_survives_a_break_after_any_frame(first: int) -> None:
    async with json_door() as door:
        door.drops = [first, 1, 1, 2]
        async with Client(door.url) as client:
            frames = await chat(client)
    assert text(frames) == TEXT
    kept = [frame for frame in frames if frame["type"] != "connection.lost"]
    assert kinds(kept).count("chat.stream.end") == kinds(kept).count("chat.accepted") == 1
    assert kinds(kept).count("session.created") == 1
    assert [frame["seq"] for frame in kept if "seq" in frame] == list(range(1, 8))
    assert door.executed == 1
    assert len({frame["idempotencyKey"] for frame in door.received if frame["type"] == "chat.send"}) == 1


async def test_errors_of_the_request_are_raised() -> None:
    async with json_door() as door, Client(door.url) as client:
        door.error = {"code": "STREAM_IN_PROGRESS", "message": "busy", "retryable": True, "metadata": {"turnId": "t"}}
        with pytest.raises(ConflictError) as caught:
            await chat(client)
        assert (caught.value.retryable, caught.value.metadata) == (True, {"turnId": "t"})
        door.error = {"code": "SESSION_NOT_FOUND", "message": "no", "retryable": False}
        with pytest.raises(NotFoundError):
            await client.request("session.get", sessionId="x")


async def test_the_error_of_a_turn_is_its_last_frame() -> None:
    async with json_door() as door:
        door.failure = {"code": "UPSTREAM_TRUNCATED", "message": "cut", "retryable": True}
        async with Client(door.url) as client:
            frames = await chat(client)
    assert frames[-1]["type"] == "error"
    with pytest.raises(ProviderError, match="cut"):
        raise_if_failed(frames[-1])
    raise_if_failed(frames[0])


def turn(state: str, **more: object) -> Frame:
    answer = {"turnId": TURN, "sessionId": SESSION, "state": state, "lastSeq": 7, "answerMessageId": "m2"}
    return {"type": "turn.get", "turn": {**answer, "usage": {}, "cost": {}, "error": None, **more}}


def snapshot(blocks: list[str], **more: object) -> Frame:
    stored = [{"kind": "text", "text": block, "complete": True} for block in blocks]
    messages = [{"messageId": "m2", "role": "assistant", "blocks": stored}] if blocks else []
    return {"sessionId": SESSION, "epoch": 2, "seq": 9, "messages": messages, "queuedTurnIds": [], **more}


async def after_crash(answer: Frame, state: Frame, drop: Frame | None = None) -> list[Frame]:
    """A chat that broke after "Hel", "lo " and met a new epoch, and broke again when it asked for the turn."""
    async with json_door() as door:
        door.drops, door.drop = [5, 2], drop
        async with Client(door.url) as client:
            frames = []
            async for frame in client.chat("hi"):
                frames.append(frame)
                if frame["type"] == "connection.lost":
                    door.epoch, door.log, door.snapshot = 2, [{}] * 9, state
                    door.replies["turn.get"] = answer
    return frames


@pytest.mark.parametrize("drop", [None, BUSY])
async def test_a_turn_completed_before_the_crash_is_given_to_its_end(drop: Frame | None) -> None:
    frames = await after_crash(turn("completed"), snapshot([TEXT]), drop)
    assert text(frames) == TEXT
    assert (frames[-1]["type"], frames[-1]["state"]) == ("chat.stream.end", "completed")


async def test_an_interrupted_turn_ends_with_its_error() -> None:
    frames = await after_crash(turn("interrupted"), snapshot(["Hel"]))
    assert text(frames) == "Hello "
    assert (frames[-1]["type"], frames[-1]["code"]) == ("error", "TURN_INTERRUPTED")


async def test_a_turn_that_still_runs_is_continued() -> None:
    block = {"kind": "text", "text": TEXT, "complete": False}
    active = {"turnId": TURN, "messageId": "m1", "model": "m", "phase": "streaming", "blocks": [block]}
    async with json_door() as door:
        door.drops = [5]
        async with Client(door.url) as client:
            frames = []
            async for frame in client.chat("hi"):
                frames.append(frame)
                if frame["type"] == "connection.lost":
                    end = {"type": "chat.stream.end", "turnId": TURN, "epoch": 2, "seq": 10}
                    door.epoch, door.log, door.snapshot = 2, [{}] * 9 + [end], snapshot([], activeTurn=active)
    assert text(frames) == TEXT
    assert kinds(frames)[-1] == "chat.stream.end"


async def test_another_text_than_the_one_read_is_refused() -> None:
    with pytest.raises(StreamGapError):
        await after_crash(turn("completed"), snapshot(["Something else"]))


@pytest.mark.parametrize(
    ("drops", "drop"), [([2, 1], None), ([0, 2, 1], BUSY)], ids=["the connection breaks", "an error that may pass"]
)
async def test_watch_goes_on_after_its_position(drops: list[int], drop: Frame | None) -> None:
    lost = len(drops)
    async with json_door() as door:
        door.run_turn()
        door.drops, door.drop = drops, drop
        seen = []
        async with Client(door.url) as client:
            async for frame in client.watch(SESSION, Position(1, 2)):
                seen.append(frame)
                if frame["type"] == "chat.stream.end":
                    break
    assert [frame["seq"] for frame in seen if "seq" in frame] == [3, 4, 5, 6, 7]
    assert kinds(seen).count("connection.lost") == lost


async def test_a_missing_event_is_asked_for_again() -> None:
    async with json_door() as door:
        door.run_turn()
        lost = door.log.pop(3)
        seen = []
        async with Client(door.url) as client:
            async for frame in client.watch(SESSION, Position(1, 2)):
                seen.append(frame)
                if frame["type"] == "connection.lost":
                    door.log.insert(3, lost)
                if frame["type"] == "chat.stream.end":
                    break
    assert text(seen) == TEXT


async def test_watch_ends_with_its_session() -> None:
    async with json_door() as door:
        door.run_turn()
        door.drops, door.drop = [2], {"code": "SESSION_DELETED", "message": "gone", "retryable": False}
        async with Client(door.url, patience=0) as client:
            with pytest.raises(NotFoundError, match="SESSION_DELETED: gone"):
                [frame async for frame in client.watch(SESSION, Position(1, 2))]


async def test_only_what_was_accepted_goes_on_after_an_error_that_may_pass() -> None:
    async with json_door() as door:
        door.drops, door.drop = [4, 1], BUSY
        async with Client(door.url) as client:
            assert text(await chat(client)) == TEXT
        assert door.executed == 1
        door.drops = [1]
        async with Client(door.url) as client:
            with pytest.raises(ServerError, match="STORAGE_UNAVAILABLE: busy"):
                await chat(client)


def told(door: JsonDoor) -> list[str]:
    """What watches and ends of watches the door was asked for, in order."""
    return [frame["type"] for frame in door.received if "watch" in frame["type"]]


async def test_a_watch_that_is_left_ends_at_the_server() -> None:
    async with json_door() as door, Client(door.url) as client:
        door.run_turn()
        door.hold_at = 4
        door.replies["ping"] = {"type": "pong"}
        async with aclosing(client.watch(SESSION, Position(1, 2))) as frames:
            await anext(frames)
        await client.request("ping")
        assert told(door) == ["session.watch", "session.unwatch"]


async def test_a_watch_that_is_asked_for_again_is_not_left_behind() -> None:
    async with json_door() as door, Client(door.url) as client:
        door.run_turn()
        lost = door.log.pop(3)
        async with aclosing(client.watch(SESSION, Position(1, 2))) as frames:
            async for frame in frames:
                if frame["type"] == "connection.lost":
                    door.log.insert(3, lost)
                    break
            assert (await anext(frames))["seq"] == 4
        assert told(door)[:3] == ["session.watch", "session.unwatch", "session.watch"]


async def test_who_leaves_a_session_takes_no_other_watch_along() -> None:
    async with json_door() as door, Client(door.url) as client:
        door.run_turn()
        door.hold_at = 4
        door.replies["ping"] = {"type": "pong"}
        async with aclosing(client.watch(f"agent:default:{SESSION}", Position(1, 2))) as stays:
            await anext(stays)
            async with aclosing(client.watch(SESSION, Position(1, 2))) as leaves:
                await anext(leaves)
            await client.request("ping")
            door.release.set()
            async with asyncio.timeout(10):
                assert [(await anext(stays))["seq"] for _ in range(4)] == [4, 5, 6, 7]
        await client.request("ping")
        assert told(door) == ["session.watch", "session.watch", "session.unwatch"]


async def test_a_resumed_chat_takes_no_watch_along() -> None:
    async with json_door() as door:
        door.run_turn()
        door.log.append({"type": "chat.message", "turnId": "turn-2", "epoch": 1, "seq": 8, "message": {}})
        door.hold_at, door.drops = 7, [3]
        door.replies["ping"] = {"type": "pong"}
        async with Client(door.url) as client, aclosing(client.watch(SESSION, Position(1, 6))) as stays:
            async for frame in client.chat("hi", sessionId=SESSION):
                if frame["type"] == "connection.lost":
                    assert (await anext(stays))["seq"] == 7
            await client.request("ping")
            assert told(door) == ["session.watch"] * 2
            door.release.set()
            async with asyncio.timeout(10):
                assert (await anext(stays))["seq"] == 8


async def test_pages_are_read_to_the_last() -> None:
    async with json_door() as door, Client(door.url) as client:
        door.replies["session.history"] = {"type": "session.history", "messages": [{"n": 1}], "nextPageToken": ""}
        assert [item async for item in client.pages("session.history", "messages", sessionId="s")] == [{"n": 1}]


async def test_requests_after_a_lost_connection_share_a_new_one() -> None:
    async with json_door() as door:
        door.drops = [0]
        door.replies["ping"] = {"type": "pong"}
        async with Client(door.url) as client:
            with pytest.raises(UnreachableError):
                await client.request("ping")
            await asyncio.gather(*(client.request("ping") for _ in range(5)))
    assert len(door.authorization) == 2


async def test_without_a_server_it_fails_at_once() -> None:
    with pytest.raises(UnreachableError):
        async with Client("http://127.0.0.1:1"):
            pass


async def test_it_gives_up_when_patience_runs_out() -> None:
    async with json_door() as door:
        door.drops = [3, *[0] * 50]
        async with Client(door.url, patience=0.3) as client:
            with pytest.raises(UnreachableError):
                await chat(client)
