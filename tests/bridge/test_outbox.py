"""outbox.py: order, batches, the bound, and the end."""

import asyncio

import pytest

from agentspace.v1.gateway_service_pb2 import ChannelRequest, ConnectRequest
from bridge import outbox as module
from bridge.outbox import BATCH_BYTES, FLUSH_SECONDS, FREE_BATCHES, FULL_BYTES, Outbox


def request(channel: int, size: int = 0) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame={"id": "x" * size, "chat_send": {}})


def question(channel: int) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame={"session_list": {}})


def channels(batch: ConnectRequest) -> list[int]:
    return [item.channel for item in batch.channels]


async def test_what_is_ready_together_travels_together() -> None:
    outbox = Outbox()
    batches = outbox.batches()
    for channel in (1, 2, 3):
        outbox.put(request(channel))
    assert channels(await anext(batches)) == [1, 2, 3]
    outbox.put(request(4))
    assert channels(await anext(batches)) == [4]
    outbox.close()
    assert [batch async for batch in batches] == []


async def test_under_load_batches_are_apart() -> None:
    outbox, loop = Outbox(), asyncio.get_running_loop()
    batches = outbox.batches()
    began = loop.time()
    for number in range(FREE_BATCHES + 5):
        outbox.put(request(number))
        assert channels(await anext(batches)) == [number]
    assert loop.time() - began >= 3 * FLUSH_SECONDS


async def test_a_question_does_not_wait_and_takes_along_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60.0)
    outbox = Outbox()
    batches = outbox.batches()
    async with asyncio.timeout(10):
        for number in range(FREE_BATCHES + 1):
            outbox.put(request(number))
            await anext(batches)
        outbox.put(request(100))
        held = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        outbox.put(question(101))
        assert channels(await held) == [100, 101]
        for number in range(20):
            outbox.put(question(number))
            assert channels(await anext(batches)) == [number]


async def test_batches_are_bounded_but_take_any_single_frame() -> None:
    outbox = Outbox()
    for channel, size in ((1, BATCH_BYTES + 1), (2, BATCH_BYTES // 2), (3, BATCH_BYTES // 2)):
        outbox.put(request(channel, size))
    batches = outbox.batches()
    assert [channels(await anext(batches)) for _ in range(3)] == [[1], [2], [3]]


async def test_drain_holds_back_until_there_is_room() -> None:
    outbox = Outbox()
    await outbox.drain()
    for channel in range(3):
        outbox.put(request(channel, FULL_BYTES // 2 - 100))
    held = asyncio.create_task(outbox.drain())
    batches = outbox.batches()
    await anext(batches)
    assert not held.done()
    await anext(batches)
    async with asyncio.timeout(5):
        await held


async def test_closing_frees_everybody_and_drops_what_waits() -> None:
    outbox = Outbox()
    outbox.put(request(1, FULL_BYTES + 1))
    held = asyncio.create_task(outbox.drain())
    ended = asyncio.create_task(anext(outbox.batches(), None))  # type: ignore[arg-type]
    outbox.close()
    outbox.put(request(2))
    async with asyncio.timeout(5):
        await held
        assert await ended is None


async def test_after_many_questions_a_message_waits_no_longer_than_once() -> None:
    outbox, loop = Outbox(), asyncio.get_running_loop()
    batches = outbox.batches()
    for number in range(200):
        outbox.put(question(number))
        await anext(batches)
    began = loop.time()
    outbox.put(request(200))
    assert channels(await anext(batches)) == [200]
    assert loop.time() - began < 100 * FLUSH_SECONDS
