"""outbox.py: order, batches, the bounds, a way that is full, and the end."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentspace.v1.gateway_service_pb2 import ChannelRequest, ConnectRequest
from bridge import outbox as module
from bridge.outbox import BATCH_BYTES, FLUSH_SECONDS, FREE_BATCHES, FULL_BYTES, ROUNDS, Outbox


class Way:
    """Takes batches, by their channels."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[list[int]] = asyncio.Queue()
        self.room = True
        self.outbox = Outbox(self.take)

    def take(self, batch: ConnectRequest) -> bool:
        self.batches.put_nowait([item.channel for item in batch.channels])
        return self.room


@pytest.fixture
async def way() -> AsyncIterator[Way]:
    async with asyncio.timeout(10):
        yield Way()


def request(channel: int, size: int = 0) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame={"id": "x" * size, "chat_send": {}})


def question(channel: int) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame={"session_list": {}})


async def test_what_is_ready_together_travels_together(way: Way) -> None:
    for channel in (1, 2, 3):
        way.outbox.put(request(channel))
    assert await way.batches.get() == [1, 2, 3]
    way.outbox.put(request(4))
    assert await way.batches.get() == [4]


async def test_messages_of_a_few_rounds_travel_together(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60.0)
    for channel in range(ROUNDS - 1):
        way.outbox.put(request(channel))
        await asyncio.sleep(0)
    assert await way.batches.get() == list(range(ROUNDS - 1))


async def test_no_message_waits_for_long_rounds(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 10**12)
    for number in range(2 * FREE_BATCHES):
        way.outbox.put(request(number))
        assert await way.batches.get() == [number]


async def test_a_question_ends_the_rounds(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60.0)
    way.outbox.put(request(1))
    await asyncio.sleep(0)
    way.outbox.put(question(2))
    await asyncio.sleep(0)
    assert way.batches.get_nowait() == [1, 2]
    # Nothing is left of the rounds of the first.
    way.outbox.put(request(3))
    assert await way.batches.get() == [3]
    assert way.batches.empty()


async def test_under_load_batches_are_apart(way: Way) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(FREE_BATCHES + 5):
        way.outbox.put(request(number))
        assert await way.batches.get() == [number]
    assert loop.time() - began >= 3 * FLUSH_SECONDS


async def test_a_question_does_not_wait_and_takes_along_what_does(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 60.0)
    for number in range(FREE_BATCHES + 1):
        way.outbox.put(request(number))
        await way.batches.get()
    way.outbox.put(request(100))
    await asyncio.sleep(0)
    way.outbox.put(question(101))
    way.outbox.put(request(102))
    assert await way.batches.get() == [100, 101, 102]
    for number in range(20):
        way.outbox.put(question(number))
        assert await way.batches.get() == [number]


async def test_batches_are_bounded_but_take_any_single_frame(way: Way) -> None:
    for channel, size in ((1, BATCH_BYTES + 1), (2, BATCH_BYTES // 2), (3, BATCH_BYTES // 2)):
        way.outbox.put(request(channel, size))
    assert [await way.batches.get() for _ in range(3)] == [[1], [2], [3]]


async def test_behind_a_full_way_everything_waits(way: Way) -> None:
    way.room = False
    way.outbox.put(question(1))
    assert await way.batches.get() == [1]
    way.outbox.put(question(2))
    way.outbox.put(request(3))
    for _ in range(5):
        await asyncio.sleep(0)
    assert way.batches.empty()
    way.room = True
    way.outbox.sent()
    assert await way.batches.get() == [2, 3]
    # With nothing waiting there is nothing to send.
    way.outbox.sent()
    for _ in range(5):
        await asyncio.sleep(0)
    assert way.batches.empty()


async def test_drain_holds_back_until_there_is_room(way: Way) -> None:
    await way.outbox.drain()
    way.room = False
    for channel in range(3):
        way.outbox.put(request(channel, FULL_BYTES // 2 - 100))
    held = asyncio.create_task(way.outbox.drain())
    await way.batches.get()
    assert not held.done()
    way.outbox.sent()
    await way.batches.get()
    await held


async def test_closing_frees_everybody_and_drops_what_waits(way: Way) -> None:
    way.outbox.put(request(1, FULL_BYTES + 1))
    held = asyncio.create_task(way.outbox.drain())
    way.outbox.close()
    way.outbox.put(request(2))
    way.outbox.sent()
    await held
    await asyncio.sleep(0)
    assert way.batches.empty()


async def test_after_many_questions_a_message_waits_no_longer_than_once(way: Way) -> None:
    loop = asyncio.get_running_loop()
    for number in range(200):
        way.outbox.put(question(number))
        await way.batches.get()
    began = loop.time()
    way.outbox.put(request(200))
    assert await way.batches.get() == [200]
    assert loop.time() - began < 100 * FLUSH_SECONDS
