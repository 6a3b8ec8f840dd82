"""Accepted means durable, once, and in the order of the session."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentspace.v1 import turn_pb2
from gateway.domain.access import OPERATOR
from gateway.domain.turn import CANCELLED, COMPLETED, QUEUE_DEPTH, QUEUED, RUNNING
from gateway.usecases import live_sessions
from gateway.usecases.send_message import MAX_CONTENT_BYTES, MAX_KEY_CHARACTERS
from tests.gateway.usecases.house import HOUR_MS, SECONDS, House, Weak, numbers, story
from tests.gateway.usecases.rooms import refused, texts


async def test_a_first_message_opens_a_session_and_is_stored_before_it_is_acknowledged(house: House) -> None:
    reader = await house.send("hello")
    created, ack = reader.items[:2]
    assert isinstance(created, turn_pb2.SessionCreated)
    assert created.session_key == f"agent:default:{ack.session_id}"
    assert (ack.epoch, ack.seq, ack.state, ack.duplicate, ack.queue_position) == (1, 1, RUNNING, False, 0)
    history = await house.store.read(lambda tx: tx.messages.history(ack.session_id))
    assert [message.message_id for message in history] == [ack.message_id]
    assert (await house.store.read(lambda tx: tx.turns.get(ack.turn_id))) is not None


async def test_the_stream_is_the_turn_from_start_to_end(house: House) -> None:
    reader = await house.answered("hello", "a ", "b")
    names = [line[0] for line in story(reader.items)]
    assert names == ["TurnStarted", "TextDelta", "ended"]
    assert (numbers(reader.items), reader.text) == ([2, 3, 4, 5], "a b")
    again = await house.answered("more", "c", session=reader.ack.session_id)
    assert again.of(turn_pb2.SessionCreated) == []
    assert (again.ack.seq, numbers(again.items)) == (6, [7, 8, 9])


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"content": " \n"}, "INVALID_MESSAGE"),
        ({"content": "é" * (MAX_CONTENT_BYTES // 2 + 1)}, "INVALID_MESSAGE"),
        ({"content": "x", "key": "k" * (MAX_KEY_CHARACTERS + 1)}, "INVALID_MESSAGE"),
        ({"content": "x", "model": "nobody/knows"}, "MODEL_NOT_FOUND"),
        ({"content": "x", "session": "V1StGXR8_Z5jdHi6B-myT"}, "SESSION_NOT_FOUND"),
        ({"content": "x", "session": "not a name"}, "SESSION_NOT_FOUND"),
    ],
)
async def test_what_is_refused_leaves_nothing(house: House, how: dict[str, str], code: str) -> None:
    await refused(house.send(**how), code)
    sessions = await house.store.read(lambda tx: tx.sessions.page(after=None, limit=9, agent_id="", deleted=False)[0])
    assert (sessions, list(house.live), house.gate.calls) == ([], [], [])


async def test_a_database_that_refuses_leaves_nothing(house: House, weak: Weak) -> None:
    weak.refusing = True
    await refused(house.send("hello"), "STORAGE_UNAVAILABLE")
    assert (list(house.live), house.live.turns) == ([], {})


async def test_a_busy_session_refuses_and_names_its_turn(house: House) -> None:
    reader = await house.send("hello")
    error = await refused(house.send("more", reader.ack.session_id), "STREAM_IN_PROGRESS")
    assert error.metadata["turnId"] == reader.ack.turn_id
    history = await house.store.read(lambda tx: tx.messages.history(reader.ack.session_id))
    assert texts(history) == "hello"


async def test_a_queue_is_bounded_and_tells_each_its_place(house: House) -> None:
    reader = await house.send("0")
    await house.gate.next()
    session = reader.ack.session_id
    for place in range(1, QUEUE_DEPTH + 1):
        ack = (await house.send(str(place), session, on_busy="QUEUE")).ack
        assert (ack.state, ack.queue_position) == (QUEUED, place)
    await refused(house.send("no", session, on_busy="QUEUE"), "QUEUE_FULL")


async def test_an_interrupting_message_ends_all_and_runs_next(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    call.say("half")
    queued = await house.send("two", first.ack.session_id, on_busy="QUEUE")
    third = await house.send("three", first.ack.session_id, on_busy="INTERRUPT")
    assert (call.closed, third.ack.state) == (True, RUNNING)
    for reader in (first, queued):
        await reader.all()
        assert reader.last.state == CANCELLED
    call = await house.gate.next()
    assert [message.text for message in call.request.messages] == ["one", "half", "three"]


async def test_an_interrupting_message_that_is_refused_interrupts_nothing(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    await refused(house.send("two", first.ack.session_id, on_busy="INTERRUPT", model="nobody/knows"), "MODEL_NOT_FOUND")
    house.gate.needs_key = True
    await refused(house.send("two", first.ack.session_id, on_busy="INTERRUPT"), "PROVIDER_KEY_MISSING")
    call.end("yes")
    await first.all()
    assert first.last.state == COMPLETED


async def test_an_interrupting_message_interrupts_nothing_while_the_gateway_goes_down(house: House) -> None:
    first = await house.send("one")
    call = await house.gate.next()
    read = house.store.read

    async def goes_down(work: Any) -> Any:
        house.run.draining = True
        return await read(work)

    house.store.read = goes_down  # type: ignore[method-assign]
    await refused(house.send("two", first.ack.session_id, on_busy="INTERRUPT"), "SHUTTING_DOWN")
    call.end("yes")
    await first.all()
    assert first.last.state == COMPLETED


async def test_the_same_message_names_its_session_by_id_or_by_key(house: House) -> None:
    session = (await house.answered("hello", "hi")).ack.session_id
    first = await house.answered("more", "yes", session=session, key="k")
    again = await house.send("more", f"agent:default:{session}", key="k")
    assert (again.ack.turn_id, again.ack.duplicate) == (first.ack.turn_id, True)


async def test_the_same_key_follows_the_same_turn_running_or_done(house: House) -> None:
    first = await house.send("hello", key="k")
    call = await house.gate.next()
    call.say("a ")
    second = await house.send("hello", key="k")
    call.end("b")
    await first.all()
    third = await house.send("hello", key="k")
    for reader in (second, third):
        await reader.all()
        ack = reader.ack
        assert (ack.turn_id, ack.message_id, ack.seq, ack.duplicate) == (
            first.ack.turn_id,
            first.ack.message_id,
            first.ack.seq,
            True,
        )
        assert story(reader.items) == story(first.items)
    assert len(house.gate.calls) == 1


async def test_the_same_key_at_once_is_one_turn(house: House) -> None:
    readers = await asyncio.gather(*(house.send("hello", key="k") for _ in range(5)))
    (await house.gate.next()).end("yes")
    for reader in readers:
        await reader.all()
    assert len({reader.ack.turn_id for reader in readers}) == len(house.gate.calls) == 1
    assert sorted(reader.ack.duplicate for reader in readers) == [False, True, True, True, True]
    assert {reader.ack.seq for reader in readers} == {1}


async def test_the_same_key_on_a_busy_session_is_followed_and_interrupts_nothing(house: House) -> None:
    first = await house.answered("hello", "yes")
    session = first.ack.session_id
    running = await house.send("more", session, key="k")
    await house.gate.next()
    for on_busy in ("REJECT", "QUEUE", "INTERRUPT"):
        again = await house.send("more", session, key="k", on_busy=on_busy)
        assert (again.ack.turn_id, again.ack.duplicate) == (running.ack.turn_id, True)
    queued = await house.send("third", session, key="q", on_busy="QUEUE")
    again = await house.send("third", session, key="q", on_busy="QUEUE")
    assert (again.ack.state, again.ack.queue_position, again.ack.seq) == (QUEUED, 1, queued.ack.seq)


async def test_a_key_is_for_one_message_of_one_caller_for_a_day(house: House) -> None:
    first = await house.answered("hello", "yes", key="k")
    error = await refused(house.send("other", key="k"), "IDEMPOTENCY_CONFLICT")
    assert error.metadata["turnId"] == first.ack.turn_id
    other = await house.send("other", key="k", caller=OPERATOR)
    assert not other.ack.duplicate
    house.clock.ms += 24 * HOUR_MS
    assert (await house.send("hello", key="k")).ack.duplicate
    house.clock.ms += 1
    assert not (await house.send("hello", key="k")).ack.duplicate


async def test_a_gateway_that_goes_down_takes_nothing_and_says_when_to_come_back(house: House) -> None:
    house.run.draining = True
    error = await refused(house.send("hello"), "SHUTTING_DOWN")
    assert error.retry_after_ms > 0


async def test_a_session_that_waits_for_the_database_says_so(
    house: House, weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_sessions, "LOCK_SECONDS", 0.02)
    first = await house.send("hello")
    weak.refusing = True
    (await house.gate.next()).end("yes")
    async with asyncio.timeout(SECONDS):
        await weak.refused.wait()
    for on_busy in ("REJECT", "QUEUE", "INTERRUPT"):
        await refused(house.send("more", first.ack.session_id, on_busy=on_busy), "STORAGE_UNAVAILABLE")
    weak.refusing = False
    await first.all()
    assert first.last.state == COMPLETED


async def test_a_new_session_is_not_found_before_its_message_is_announced(house: House) -> None:
    found: list[str] = []
    write = house.store.write

    async def peek(work: object) -> object:
        answer = await write(work)  # type: ignore[arg-type]
        page = await house.store.read(lambda tx: tx.sessions.page(after=None, limit=1, agent_id="", deleted=False)[0])
        found.append(page[0].session_id)
        watching.append(asyncio.create_task(house.watch(found[0])))
        for _ in range(50):
            await asyncio.sleep(0)
        return answer

    watching: list[asyncio.Task[object]] = []
    house.store.write = peek  # type: ignore[method-assign,assignment]
    reader = await house.send("hello")
    house.store.write = write  # type: ignore[method-assign]
    watcher = await watching[0]
    (snapshot,) = watcher.take()  # type: ignore[attr-defined]
    assert len(snapshot.messages) == 1
    assert snapshot.seq >= reader.ack.seq


@pytest.mark.parametrize("keyed", [lambda n: "", lambda n: f"key {n}", lambda n: f"key {n}" if n % 2 else ""])
async def test_sends_to_a_session_are_accepted_in_the_order_they_came(
    house: House, keyed: Callable[[int], str]
) -> None:
    first = await house.answered("first", "ok")
    session = first.ack.session_id
    sends = [house.send(str(n), session, key=keyed(n), on_busy="QUEUE") for n in range(QUEUE_DEPTH)]
    readers = await asyncio.gather(*(asyncio.create_task(send) for send in sends))
    history = await house.store.read(lambda tx: tx.messages.history(session))
    assert [message.text for message in history[2:]] == [str(n) for n in range(QUEUE_DEPTH)]
    assert [reader.ack.seq for reader in readers] == sorted(reader.ack.seq for reader in readers)
    for n in range(QUEUE_DEPTH):
        call = await house.gate.next()
        assert call.question == str(n)
        call.end("ok")
    await house.settled()
    assert (house.sending._lines, house.sending._waiting) == ({}, {})
