"""connect.py: what one channel can make the gateway hold or send, and what becomes of requests that are taken back."""

import asyncio

import pytest

from agentspace.v1 import error_pb2, gateway_service_pb2
from gateway.app import App
from gateway.rpc import connect
from gateway.rpc.channel import ANSWERS_AT_ONCE
from gateway.rpc.connect import BATCH_BYTES, HELD_BYTES, REQUEST_ID_CHARACTERS
from gateway.usecases.ports import PAGE_BYTES
from tests.gateway.running import Peer

pytestmark = pytest.mark.asyncio(loop_scope="module")
MEGABYTE = "x" * 1_000_000


async def session_of(peer: Peer, megabytes: int) -> str:
    """A session whose questions have a megabyte each."""
    peer.open(99)
    peer.say(99, "s", session_create={"model": "scripted/count?n=1"})
    name = str((await peer.answer(99, "s", "session_create")).session.session_id)
    for number in range(megabytes):
        peer.say(99, f"m{number}", chat_send={"session_id": name, "content": MEGABYTE})
        await peer.answer(99, f"m{number}", "chat_stream_end")
        peer.acknowledge(99, peer.size(99))
        peer.heard.clear()
    peer.close(99)
    return name


def waiting(peer: Peer, channel: int) -> int:
    """Bytes of answers that are made and not collected."""
    streams = peer.connection._channels[channel].streams
    snapshots = sum(item.ByteSize() for s in streams if s.feed is not None for item in s.feed._first)  # type: ignore[attr-defined]
    return snapshots + sum(body.ByteSize() for body, _, _ in peer.connection._answers)


@pytest.mark.parametrize("how", ["session_watch", "session_history"])
async def test_what_waits_for_a_channel_is_a_few_answers_however_much_it_asks(app: App, how: str) -> None:
    peer = Peer(app)
    name = await session_of(peer, 4)
    peer.open(1, window=256 * 1024)
    for number in range(100):
        peer.say(1, str(number), **{how: {"session_id": name}})
    channel, most = peer.connection._channels[1], 0
    async with asyncio.timeout(30):
        while channel.tasks or any(stream.feed is None for stream in channel.streams):
            await asyncio.sleep(0)
            most = max(most, waiting(peer, 1))
    # Text is in a message twice, and a page may be over by its last message.
    assert 0 < most <= ANSWERS_AT_ONCE * 2 * 2 * PAGE_BYTES
    # Who reads gets them all.
    async with asyncio.timeout(30):
        while len({name for _, name, _ in peer.heard}) < 100:
            peer.collect()
            peer.acknowledge(1, peer.connection._channels[1].unacknowledged)
            await asyncio.sleep(0)
    peer.connection.close()


async def test_a_batch_ends_by_its_bytes(app: App) -> None:
    peer = Peer(app)
    name = await session_of(peer, 2)
    for channel in range(1, 31):
        peer.open(channel)
        peer.say(channel, "h", session_history={"session_id": name, "page_size": 1})
    await peer.until(lambda: len(peer.heard) == 30)
    sizes = [sum(size for _, size, _ in batch) for batch in peer.batches]
    assert max(sizes) < BATCH_BYTES + 2 * PAGE_BYTES
    peer.connection.close()


async def test_requests_held_back_are_bounded_by_their_bytes(app: App) -> None:
    peer = Peer(app)
    peer.open(1, window=1)
    peer.say(1, "a", session_create={})
    await peer.answer(1, "a", "session_create")
    for number in range(50):
        peer.say(1, f"h{number}", chat_send={"content": MEGABYTE})
    assert peer.connection._channels[1].held_bytes <= HELD_BYTES
    error = await peer.answer(1, "h49", "error")
    assert error.code == error_pb2.ERROR_REASON_TOO_MANY_STREAMS
    assert error.metadata["limit"] == str(HELD_BYTES)
    peer.connection.close()


async def test_an_id_that_would_swell_every_frame_is_not_taken(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "x" * REQUEST_ID_CHARACTERS, session_list={})
    await peer.answer(1, "x" * REQUEST_ID_CHARACTERS, "session_list")
    peer.say(1, "x" * (REQUEST_ID_CHARACTERS + 1), session_list={})
    await peer.until(lambda: peer.closed)
    assert peer.closed == {1: gateway_service_pb2.CLOSE_REASON_PROTOCOL}


async def test_long_polls_hold_up_nothing(peer: Peer) -> None:
    peer.open(1)
    peer.say(1, "hang", chat_send={"content": "x", "model": "scripted/fail?with=hang"})
    turn = (await peer.answer(1, "hang", "chat_accepted")).turn_id
    for number in range(2 * ANSWERS_AT_ONCE):
        peer.say(1, str(number), turn_wait={"turn_id": turn})
    peer.say(1, "list", session_list={"page_size": 1})
    await peer.answer(1, "list", "session_list")
    peer.say(1, "cancel", turn_cancel={"turn_id": turn})
    await peer.answer(1, "hang", "chat_stream_end")


async def test_a_number_used_again_is_another_channel(app: App) -> None:
    peer = Peer(app)
    peer.open(1)
    peer.say(1, "a", session_create={})
    name = (await peer.answer(1, "a", "session_create")).session.session_id
    for number in range(20):
        peer.say(1, f"w{number}", session_watch={"session_id": name})
        peer.say(1, f"l{number}", session_list={})
        peer.close(1)
        peer.open(1)
    peer.say(1, "last", session_get={"session_id": name})
    await peer.answer(1, "last", "session_get")
    for _ in range(20):
        await asyncio.sleep(0)
        peer.collect()
    assert {request for _, request, _ in peer.heard} == {"a", "last"}
    peer.connection.close()
    async with asyncio.timeout(10):
        while app._live.find(name) is not None:
            await asyncio.sleep(0)


async def test_unwatch_ends_a_watch_that_has_yet_to_begin(app: App) -> None:
    peer = Peer(app)
    peer.open(1)
    peer.say(1, "a", session_create={})
    name = (await peer.answer(1, "a", "session_create")).session.session_id
    for number in range(3 * ANSWERS_AT_ONCE):
        peer.say(1, f"w{number}", session_watch={"session_id": name})
    peer.say(1, "u", session_unwatch={"session_id": name})
    await peer.answer(1, "u", "session_unwatched")
    async with asyncio.timeout(10):
        while app._live.find(name) is not None:
            await asyncio.sleep(0)
            peer.collect()
    # What comes of a chat that begins now is told to nobody but who asked for it.
    peer.say(1, "c", chat_send={"session_id": name, "content": "hello"})
    await peer.answer(1, "c", "chat_stream_end")
    assert {request for _, request, _ in peer.heard} == {"a", "u", "c"}
    peer.connection.close()


async def test_unwatch_of_what_is_no_session_says_so(app: App) -> None:
    peer = Peer(app)
    peer.open(1)
    for request, named in (("a", "!" * 100_000), ("b", "")):
        peer.say(1, request, session_unwatch={"session_id": named})
    assert (await peer.answer(1, "a", "error")).code == error_pb2.ERROR_REASON_SESSION_NOT_FOUND
    assert (await peer.answer(1, "b", "error")).code == error_pb2.ERROR_REASON_INVALID_MESSAGE
    assert peer.size(1) < 2000
    peer.connection.close()


@pytest.mark.parametrize("how", ["session_watch", "session_history"])
async def test_a_frame_that_would_be_too_large_is_an_error_of_its_request(
    app: App, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = Peer(app)
    name = await session_of(peer, 1)
    monkeypatch.setattr(connect, "FRAME_BYTES", 500_000)
    for channel in (1, 2):
        peer.open(channel)
        peer.say(channel, "x", **{how: {"session_id": name}})
        error = await peer.answer(channel, "x", "error")
        assert error.code == error_pb2.ERROR_REASON_INVALID_MESSAGE
        peer.say(channel, "y", session_get={"session_id": name})
        await peer.answer(channel, "y", "session_get")
    assert not any(channel.streams for channel in peer.connection._channels.values())
    peer.connection.close()
