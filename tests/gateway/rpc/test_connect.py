"""connect.py: frames of many channels over one connection, against the real methods and a real database."""

import asyncio
import gc
from pathlib import Path

import pytest

from agentspace.v1 import error_pb2, gateway_service_pb2, turn_pb2
from gateway.app import App
from gateway.domain.turn_log import TurnLog
from gateway.rpc import connect
from gateway.rpc.connect import BATCH_FRAMES, REQUESTS_AT_ONCE, TAKE_CHARACTERS
from gateway.rpc.pace import LATER, NOW, SOON
from gateway.usecases.watch_session import Feed
from tests.gateway.running import Peer, config, running, token

pytestmark = pytest.mark.asyncio(loop_scope="module")
TURN = ["session_created", "chat_accepted", "chat_stream_start", "chat_stream_delta", "chat_stream_end"]


async def accepted(peer: Peer, channel: int, request_id: str, model: str = "") -> turn_pb2.MessageAccepted:
    if model:
        peer.say(channel, request_id, chat_send={"content": "hello", "model": model})
    result = await peer.answer(channel, request_id, "chat_accepted")
    assert isinstance(result, turn_pb2.MessageAccepted)
    return result


async def test_frames_of_a_request_come_in_order(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", chat_send={"content": "one two three"})
    peer.say(1, "b", chat_send={"content": "four five"})
    await peer.until(lambda: peer.kinds(1, "a")[-1:] == peer.kinds(1, "b")[-1:] == ["chat_stream_end"])
    assert peer.kinds(1, "a") == peer.kinds(1, "b") == TURN
    assert (peer.text(1, "a"), peer.text(1, "b")) == ("one two three", "four five")
    assert all(not frame.request_id for _, _, frame in peer.heard)


@pytest.mark.parametrize("model", ["scripted/echo", "scripted/fail?with=auth", "scripted/count?n=500&delay=20ms"])
async def test_a_turn_that_has_ended_leaves_nothing_behind(peer: Peer, model: str) -> None:
    gc.collect()
    gc.disable()
    try:
        before = turns_in_memory()
        peer.open(1)
        peer.say(1, "a", chat_send={"content": "hello", "model": model})
        turn = await accepted(peer, 1, "a")
        assert turns_in_memory() > before
        if "delay" in model:
            await peer.answer(1, "a", "chat_stream_delta")
            peer.say(1, "b", turn_cancel={"turn_id": turn.turn_id})
        await peer.until(lambda: peer.kinds(1, "a")[-1] in ("chat_stream_end", "error"))
        async with asyncio.timeout(5):
            while turns_in_memory() > before:
                await asyncio.sleep(0)
    finally:
        gc.enable()


def turns_in_memory() -> int:
    """How many answers and watchers are in memory, whether anybody can still reach them or not."""
    return sum(isinstance(found, (TurnLog, Feed)) for found in gc.get_objects())


async def test_level_1_gets_nothing_of_level_2(peer: Peer) -> None:
    peer.open(1, level=1)
    peer.say(1, "a", chat_send={"content": "hello"})
    await peer.answer(1, "a", "chat_stream_end")
    assert peer.kinds(1, "a") == [kind for kind in TURN if kind != "chat_accepted"]


async def test_watchers_of_one_session_share_each_frame(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", session_create={})
    session = (await peer.answer(1, "a", "session_create")).session.session_id
    for channel in (2, 3):
        peer.open(channel)
        peer.say(channel, f"w{channel}", session_watch={"session_id": session})
        await peer.answer(channel, f"w{channel}", "session_snapshot")
    model = "scripted/count?n=5&first=100ms&delay=5ms"
    peer.say(1, "b", chat_send={"session_id": session, "content": "to all of you", "model": model})
    await accepted(peer, 1, "b")
    peer.close(1)
    known = len(peer.batches)
    await peer.until(lambda: all(peer.kinds(n, f"w{n}")[-1] == "chat_stream_end" for n in (2, 3)))
    for _, _, recipients in (item for batch in peer.batches[known:] for item in batch):
        assert sorted(recipients) == [(2, "w2"), (3, "w3")]
    assert peer.text(2, "w2") == peer.text(3, "w3") != ""


async def test_watchers_in_step_and_out_of_it_get_every_event_once(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", session_create={})
    session = (await peer.answer(1, "a", "session_create")).session.session_id
    windows = {2: 0, 3: 0, 4: 300, 5: 0, 6: 70_000, 7: 0}
    levels = {5: 1}
    for channel, window in windows.items():
        peer.open(channel, levels.get(channel, 2), window=window)
        peer.say(channel, "w", session_watch={"session_id": session, "after_seq": 0})
    acknowledged = dict.fromkeys(windows, 0)

    def everybody_has(kind: str, count: int) -> bool:
        for channel in windows:
            if (size := peer.size(channel)) > acknowledged[channel]:
                peer.acknowledge(channel, size - acknowledged[channel])
                acknowledged[channel] = size
        return all(peer.kinds(channel, "w").count(kind) == count for channel in windows)

    # One by one, in stretches that take several turns to give, and one by one again.
    for turn, model in enumerate(("count?n=40&delay=1ms", "count?n=400&size=500", "count?n=40&delay=1ms"), 1):
        peer.say(1, str(turn), chat_send={"session_id": session, "content": "x", "model": f"scripted/{model}"})
        await peer.until(lambda turn=turn: everybody_has("chat_stream_end", turn))  # type: ignore[misc]
    peer.say(1, "d", session_delete={"session_id": session})
    await peer.until(lambda: everybody_has("error", 1))
    for channel in windows:
        seq = 0
        for frame in peer.frames(channel, "w"):
            event = getattr(frame, frame.WhichOneof("body") or "")
            if levels.get(channel) != 1 and getattr(event, "seq", 0):
                assert (getattr(event, "from_seq", 0) or event.seq) == seq + 1
                seq = event.seq
        assert peer.text(channel, "w") == peer.text(2, "w")
        assert len(peer.text(channel, "w")) > 400 * 500


async def test_watchers_in_step_catch_up_with_all_that_they_missed(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", session_create={})
    session = (await peer.answer(1, "a", "session_create")).session.session_id
    for channel in (2, 3):
        peer.open(channel, window=10_000)
        peer.say(channel, "w", session_watch={"session_id": session, "after_seq": 0})
    for request, model in (("b", "echo"), ("c", "count?n=600&size=500")):
        peer.say(1, request, chat_send={"session_id": session, "content": "x", "model": f"scripted/{model}"})
        await peer.answer(1, request, "chat_stream_end")
    assert len(peer.text(2, "w")) < 600 * 500 - 2 * TAKE_CHARACTERS
    for channel in (2, 3):
        peer.acknowledge(channel, 1_000_000)
    # In less time than it takes until a beat wakes them.
    async with asyncio.timeout(5):
        await peer.until(lambda: all(peer.kinds(n, "w").count("chat_stream_end") == 2 for n in (2, 3)))
    assert peer.text(2, "w") == peer.text(3, "w")


async def test_nothing_waits_for_a_slow_channel_and_it_holds_up_nobody(peer: Peer) -> None:
    peer.open(1, window=200)
    peer.open(2)
    peer.say(1, "slow", chat_send={"content": "x", "model": "scripted/count?n=400&size=500"})
    turn = await accepted(peer, 1, "slow")
    peer.say(2, "wait", turn_wait={"turn_id": turn.turn_id})
    assert (await peer.answer(2, "wait", "turn_wait")).turn.state == turn_pb2.TURN_STATE_COMPLETED
    # The frame that passed the window is the last one, and the rest of 200,000 characters is nowhere but in the log.
    assert peer.size(1) < 70_000
    assert peer.connection.backlog == 0
    before = len(peer.heard)
    peer.collect()
    assert len(peer.heard) == before
    while peer.kinds(1, "slow")[-1] != "chat_stream_end":
        known, size = len(peer.frames(1, "slow")), peer.size(1)
        peer.acknowledge(1, sum(frame.ByteSize() for frame in peer.frames(1, "slow")[-1:]) or size)
        peer.acknowledge(1, size)
        await peer.until(lambda known=known: len(peer.frames(1, "slow")) > known)  # type: ignore[misc]
    assert len(peer.text(1, "slow")) == 400 * 500


async def test_requests_of_a_slow_channel_wait_for_its_window(peer: Peer) -> None:
    peer.open(1, window=10)
    peer.say(1, "a", session_create={"title": "a title longer than the window"})
    await peer.answer(1, "a", "session_create")
    peer.say(1, "b", session_create={"agent_id": "held-back"})
    peer.open(2)
    peer.say(2, "c", session_list={"agent_id": "held-back"})
    assert not (await peer.answer(2, "c", "session_list")).sessions
    peer.acknowledge(1, peer.size(1))
    await peer.answer(1, "b", "session_create")


async def test_who_asks_on_without_reading_is_closed(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "REFUSALS_BYTES", 1000)
    peer.open(1, window=10)
    peer.say(1, "a", session_create={"title": "a title longer than the window"})
    await peer.answer(1, "a", "session_create")
    for number in range(REQUESTS_AT_ONCE + 100):
        peer.say(1, str(number), session_list={})
    await peer.until(lambda: peer.closed)
    assert peer.closed == {1: gateway_service_pb2.CLOSE_REASON_PROTOCOL}
    assert peer.connection.backlog == 0


async def test_too_many_requests_at_once(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "hang", chat_send={"content": "x", "model": "scripted/fail?with=hang"})
    turn = await accepted(peer, 1, "hang")
    for number in range(1, REQUESTS_AT_ONCE):
        peer.say(1, str(number), turn_wait={"turn_id": turn.turn_id})
    peer.say(1, "over", session_list={})
    error = await peer.answer(1, "over", "error")
    assert error.code == error_pb2.ERROR_REASON_TOO_MANY_STREAMS
    assert error.metadata == {"limit": str(REQUESTS_AT_ONCE)}
    peer.open(2)
    peer.say(2, "cancel", turn_cancel={"turn_id": turn.turn_id})
    await peer.until(lambda: all(peer.frames(1, str(number)) for number in range(1, REQUESTS_AT_ONCE)))
    peer.say(1, "again", session_list={})
    await peer.answer(1, "again", "session_list")


async def test_close_ends_the_channels_feeds_and_not_its_turns(app: App, peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", chat_send={"content": "x", "model": "scripted/count?n=50&delay=5ms"})
    turn = await accepted(peer, 1, "a")
    live = app._live.turns[turn.turn_id][0]
    assert live.watchers
    peer.close(1)
    assert not live.watchers
    heard = len(peer.heard)
    peer.open(2)
    peer.say(2, "b", turn_wait={"turn_id": turn.turn_id})
    assert (await peer.answer(2, "b", "turn_wait")).turn.state == turn_pb2.TURN_STATE_COMPLETED
    assert all(channel == 2 for channel, _, _ in peer.heard[heard:])
    peer.say(1, "late", session_list={})
    peer.say(2, "c", session_list={})
    await peer.answer(2, "c", "session_list")
    assert not peer.frames(1, "late")


async def test_feed_of_a_channel_closed_meanwhile_is_closed(fresh: App) -> None:
    peer = Peer(fresh)
    peer.open(1)
    peer.say(1, "a", session_create={})
    session = (await peer.answer(1, "a", "session_create")).session.session_id
    peer.say(1, "w", session_watch={"session_id": session})
    peer.close(1)
    async with asyncio.timeout(5):
        while fresh._tasks:
            await asyncio.wait(fresh._tasks)
    assert fresh._live.find(session) is None


async def test_end_of_the_connection_ends_every_feed(fresh: App) -> None:
    peer = Peer(fresh)
    for channel in (1, 2):
        peer.open(channel)
        peer.say(channel, "a", chat_send={"content": "x", "model": "scripted/fail?with=hang"})
        await peer.answer(channel, "a", "chat_stream_start")
    peer.connection.close()
    assert [len(live.watchers) for live in fresh._live] == [0, 0]


@pytest.mark.parametrize("insecure", [False, True])
async def test_unknown_token_closes_the_channel(tmp_path: Path, insecure: bool) -> None:
    home = tmp_path / "home"
    async with running(config(home, *(["--insecure"] if insecure else []))) as app:
        peer = Peer(app, vouched=False)
        peer.open(1, token="wrong")
        peer.say(1, "a", session_list={})
        peer.open(2)
        peer.say(2, "b", session_list={})
        peer.open(3, token=token(home))
        peer.say(3, "c", key_list={})
        await peer.answer(3, "c", "key_list")
        assert peer.closed == dict.fromkeys(
            (1, 2) if insecure else (1,), gateway_service_pb2.CLOSE_REASON_UNAUTHENTICATED
        )
        assert not peer.frames(1, "a")


async def test_missing_scope_is_an_error_frame(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", key_list={})
    error = await peer.answer(1, "a", "error")
    assert (error.code, error.metadata) == (error_pb2.ERROR_REASON_MISSING_SCOPE, {"scope": "keys"})


async def test_channel_opened_twice_is_closed(peer: Peer) -> None:
    peer.open(1)
    peer.open(1)
    await peer.until(lambda: peer.closed)
    assert peer.closed == {1: gateway_service_pb2.CLOSE_REASON_PROTOCOL}


async def test_errors_before_and_in_a_turn(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "empty")
    assert (await peer.answer(1, "empty", "error")).code == error_pb2.ERROR_REASON_INVALID_MESSAGE
    peer.say(1, "none", session_watch={"session_id": "nowhere"})
    assert (await peer.answer(1, "none", "error")).code == error_pb2.ERROR_REASON_SESSION_NOT_FOUND
    peer.say(1, "fails", chat_send={"content": "x", "model": "scripted/fail?after=2&with=truncated"})
    error = await peer.answer(1, "fails", "error")
    assert error.code == error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED
    assert peer.kinds(1, "fails") == [*TURN[:-1], "error"]


async def test_unwatch_ends_the_watches_of_that_session_only(app: App, peer: Peer) -> None:
    peer.open(1)
    sessions = []
    for name in ("a", "b"):
        peer.say(1, name, session_create={})
        sessions.append((await peer.answer(1, name, "session_create")).session)
    for name, session in zip(("wa", "wb", "wa2"), [*sessions, sessions[0]], strict=True):
        peer.say(1, name, session_watch={"session_id": session.session_id})
        await peer.answer(1, name, "session_snapshot")
    peer.say(1, "u", session_unwatch={"session_id": sessions[0].session_key})
    assert (await peer.answer(1, "u", "session_unwatched")).session_id == sessions[0].session_id
    assert app._live.find(sessions[0].session_id) is None
    for number, session in enumerate(sessions):
        peer.say(1, f"c{number}", chat_send={"session_id": session.session_id, "content": "hello"})
        await peer.answer(1, f"c{number}", "chat_stream_end")
    await peer.answer(1, "wb", "chat_stream_end")
    assert peer.kinds(1, "wa") == peer.kinds(1, "wa2") == ["session_snapshot"]


async def test_restart_says_what_is_left_to_say_and_then_closes_all(fresh: App) -> None:
    peer = Peer(fresh)
    for channel in (1, 2, 3):
        peer.open(channel)
    peer.say(1, "a", chat_send={"content": "x", "model": "scripted/fail?with=hang"})
    await peer.answer(1, "a", "chat_stream_start")
    await fresh.drain()
    peer.connection.restart()
    await peer.until(lambda: peer.closed)
    error = await peer.answer(1, "a", "error")
    assert error.code == error_pb2.ERROR_REASON_TURN_INTERRUPTED
    assert peer.closed == dict.fromkeys((1, 2, 3), gateway_service_pb2.CLOSE_REASON_RESTART)
    assert peer.connection.ending
    assert not peer.connection.haste
    assert isinstance(peer.batches[-1][-1][0], gateway_service_pb2.ChannelClosed), "nothing follows the end"


async def test_a_delta_is_made_once_for_all_who_get_it(peer: Peer) -> None:
    for channel in (1, 2, 3):
        peer.open(channel)
    peer.say(1, "c", session_create={})
    session = (await peer.answer(1, "c", "session_create")).session.session_id
    for channel in (2, 3):
        peer.say(channel, "w", session_watch={"session_id": session})
        await peer.answer(channel, "w", "session_snapshot")
    peer.say(1, "a", chat_send={"session_id": session, "content": "x", "model": "scripted/count?n=5&delay=10ms"})
    await peer.answer(1, "a", "chat_stream_end")
    deltas = [to for batch in peer.batches for body, _, to in batch if isinstance(body, turn_pb2.TextDelta)]
    assert [sorted(to) for to in deltas] == [[(1, "a"), (2, "w"), (3, "w")]] * 5


async def test_only_the_middle_of_an_answer_has_time(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "a", chat_send={"content": "x", "model": "scripted/count?n=5&delay=10ms"})
    await peer.answer(1, "a", "chat_stream_end")
    peer.say(1, "b", session_list={})
    await peer.answer(1, "b", "session_list")
    kinds = [{type(body) for body, _, _ in batch} for batch in peer.batches]
    deltas = [haste for haste, kind in zip(peer.hastes, kinds, strict=True) if kind == {turn_pb2.TextDelta}]
    assert deltas == [SOON, LATER, LATER, LATER, LATER]
    assert peer.hastes[:1] + peer.hastes[-2:] == [SOON, SOON, NOW]


async def test_batches_are_bounded(peer: Peer) -> None:
    peer.open(1)
    for number in range(BATCH_FRAMES + 100):
        peer.say(1, str(number))
    await peer.until(lambda: len(peer.heard) == BATCH_FRAMES + 100)
    assert [len(batch) for batch in peer.batches] == [BATCH_FRAMES, 100]
    assert [name for _, name, _ in peer.heard] == [str(number) for number in range(BATCH_FRAMES + 100)]


async def test_a_wait_ends_with_its_channel(peer: Peer) -> None:
    peer.open(1)
    peer.open(2)
    turn = await accepted(peer, 1, "a", model="scripted/count?n=1&first=60s")
    before = asyncio.all_tasks()
    peer.say(2, "wait", turn_wait={"turn_id": turn.turn_id, "timeout_ms": 300_000})
    waiting = asyncio.all_tasks() - before
    assert waiting
    peer.close(2)
    async with asyncio.timeout(5):
        await asyncio.wait(waiting)
    peer.say(1, "c", turn_cancel={"turn_id": turn.turn_id})
    await peer.answer(1, "c", "turn_cancel")
