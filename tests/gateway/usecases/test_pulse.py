"""What happens because time passes."""

import asyncio

import pytest

from agentspace.v1 import error_pb2, turn_pb2
from gateway.domain.error import MAY_HAVE_EXECUTED
from gateway.domain.turn import CANCELLED, FAILED
from gateway.usecases import pulse
from gateway.usecases.pulse import INTERVAL_SECONDS, TimeLimits
from tests.gateway.usecases.house import SECONDS, House, Reader, Weak
from tests.gateway.usecases.rooms import StillClock

LIMITS = TimeLimits(first_byte=10, idle=20, pinged=30, total=100, unwatched=5)


@pytest.fixture
async def house(weak: Weak, clock: StillClock) -> House:
    return House(weak, clock, limits=LIMITS)


def passes(house: House, seconds: float) -> None:
    house.clock.ms += int(seconds * 1000)
    house.pulse.beat()


async def timed_out(reader: Reader, limit: str) -> None:
    await reader.all()
    error = reader.last
    assert isinstance(error, error_pb2.Error)
    assert (error.code, error.execution) == (error_pb2.ERROR_REASON_UPSTREAM_TIMEOUT, MAY_HAVE_EXECUTED)
    assert dict(error.metadata) == {"limit": limit}


async def test_the_first_byte_has_a_limit(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    passes(house, 10)
    assert not call.closed
    passes(house, 0.25)
    await timed_out(reader, "first_byte")
    assert call.closed
    assert (await house.turns.get(reader.ack.turn_id)).state == FAILED


async def test_silence_has_a_limit_and_content_begins_it_anew(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    for _ in range(3):
        call.say("x")
        passes(house, 19)
    assert not call.closed
    passes(house, 2)
    await timed_out(reader, "idle")
    assert reader.text == "xxx"


async def test_pings_count_up_to_a_longer_limit(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.say("x")
    for _ in range(3):
        passes(house, 10)
        call.sink.progress()
        assert not call.closed
    passes(house, 1)
    await timed_out(reader, "idle")


async def test_the_whole_turn_has_a_limit(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    for _ in range(10):
        call.say("x")
        passes(house, 10)
    call.say("x")
    passes(house, 1)
    await timed_out(reader, "total")


async def test_a_turn_that_asked_for_it_ends_some_time_after_its_last_watcher(house: House) -> None:
    reader = await house.send("hello", unwatched=True)
    (await house.gate.next()).say("x")
    passes(house, 6)
    session = reader.ack.session_id
    reader.close()
    passes(house, 0)
    passes(house, 4)
    back = await house.watch(session)
    passes(house, 0)
    back.close()
    passes(house, 0)
    passes(house, 4)
    assert house.live.turns
    passes(house, 1)
    await house.settled()
    assert (await house.turns.get(reader.ack.turn_id)).state == CANCELLED


async def test_a_queued_turn_that_asked_for_it_ends_without_being_asked_of_the_provider(house: House) -> None:
    first = await house.send("hello")
    call = await house.gate.next()
    queued = await house.send("more", first.ack.session_id, on_busy="QUEUE", unwatched=True)
    for reader in (first, queued):
        reader.close()
    passes(house, 0)
    passes(house, 6)
    async with asyncio.timeout(SECONDS):
        while len(house.live.turns) > 1:
            await asyncio.sleep(0)
    assert (await house.turns.get(queued.ack.turn_id)).state == CANCELLED
    call.end("yes")
    await house.settled()
    assert len(house.gate.calls) == 1


async def test_a_turn_nobody_watches_ends_once_the_database_lets_it(house: House, weak: Weak) -> None:
    first = await house.send("hello")
    call = await house.gate.next()
    queued = await house.send("more", first.ack.session_id, on_busy="QUEUE", unwatched=True)
    for reader in (first, queued):
        reader.close()
    _, active = house.live.turns[queued.ack.turn_id]
    weak.refusing = True
    async with asyncio.timeout(SECONDS):
        passes(house, 0)
        passes(house, 6)
        await weak.refused.wait()
        while active.unwatched_since:
            await asyncio.sleep(0)
        weak.refusing = False
        call.say("x")
        passes(house, 0)
        passes(house, 6)
        while len(house.live.turns) > 1:
            await asyncio.sleep(0)
    assert (await house.turns.get(queued.ack.turn_id)).state == CANCELLED


async def test_a_fault_is_not_the_end_of_all_beats(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulse, "INTERVAL_SECONDS", 0)
    beats, enough = 0, asyncio.Event()

    def breaks() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            enough.set()
        raise OverflowError

    monkeypatch.setattr(house.pulse, "beat", breaks)
    beating = house.spawn(house.pulse.run())
    async with asyncio.timeout(SECONDS):
        await enough.wait()
    beating.cancel()
    assert "OverflowError" in caplog.text


async def test_other_turns_go_on_without_a_watcher(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    reader.close()
    for _ in range(9):
        call.say("x")
        passes(house, 10)
    assert not call.closed


async def test_a_quiet_watch_hears_a_heartbeat_with_phase_and_silence(house: House) -> None:
    reader = await house.send("hello")
    call = await house.gate.next()
    call.say("x")
    watcher = await house.watch(reader.ack.session_id)
    watcher.take()
    passes(house, 9.75)
    assert not watcher.ready.is_set()
    passes(house, 0.25)
    assert watcher.ready.is_set()
    (beat,) = watcher.take()
    assert isinstance(beat, turn_pb2.Heartbeat)
    assert (beat.turn_id, beat.phase, beat.upstream_idle_ms) == (
        reader.ack.turn_id,
        turn_pb2.TURN_PHASE_STREAMING,
        10_000,
    )
    assert watcher.take() == []


async def test_it_beats_by_itself(house: House) -> None:
    reader = await house.send("hello")
    await house.gate.next()
    house.clock.ms += 11_000
    task = house.spawn(house.pulse.run())
    async with asyncio.timeout(INTERVAL_SECONDS + SECONDS):
        await reader.all()
    task.cancel()
    assert isinstance(reader.last, error_pb2.Error)
