"""Sends with an outcome: repeated ones run once, busy sessions do what the sender chose, cancels end things."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.fixtures.script import Fault, Script, text
from tests.fixtures.stack import running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.conftest import House
from tests.journeys.doors import DOORS, ENDS, Door, Frame, door, hear, ready, said

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def outcome(way: Door, **fields: Any) -> list[Frame]:
    """Everything a send is answered."""
    async with way.open("chat.send", **fields) as stream:
        return await hear(stream, *ENDS)


def ack(frames: list[Frame]) -> Frame:
    """The acknowledgement."""
    return next(frame for frame in frames if frame["type"] == "chat.accepted")


@pytest.mark.requirement("send.idempotent")
async def test_same_key_is_one_turn(house: House, way: Door) -> None:
    gate = asyncio.Event()
    house.upstream.play(text("a", "b", "c", gates={1: gate}))
    words, key = f"once {way.name}", f"key {way.name}"
    other = door("grpc" if way.name == "websocket" else "websocket", house.stack)
    # At once, over both doors, and while it runs.
    sends = [asyncio.create_task(outcome(each, content=words, idempotencyKey=key)) for each in (way, other) * 4]
    async with asyncio.timeout(10):
        while not (calls := house.calls(words)):
            await asyncio.sleep(0)
        await calls[0].reached(1)
    sends += [asyncio.create_task(outcome(each, content=words, idempotencyKey=key)) for each in (way, other)]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*sends)
    # After the end, and after a restart.
    results.append(await outcome(other, content=words, idempotencyKey=key))
    await house.stack.restart_gateway()
    await ready(house.stack)
    results.append(await outcome(way, content=words, idempotencyKey=key))
    assert len(house.calls(words)) == 1
    assert len({(ack(frames)["turnId"], ack(frames)["messageId"], ack(frames)["sessionId"]) for frames in results}) == 1
    assert sorted(ack(frames)["duplicate"] for frames in results) == [False] + [True] * (len(results) - 1)
    assert {said(frames) for frames in results} == {"abc"}
    assert {frames[-1]["type"] for frames in results} == {"chat.stream.end"}
    assert ack(results[-1])["state"] == "completed"
    session = ack(results[0])["sessionId"]
    for change in ({"content": "another"}, {"sessionId": session}, {"model": "claude-haiku-5-5"}):
        (refused,) = await outcome(way, **{"content": words, "idempotencyKey": key, **change})
        assert refused["code"] == "IDEMPOTENCY_CONFLICT"
        assert refused["metadata"]["turnId"] == ack(results[0])["turnId"]
        assert not refused["retryable"]
    assert len(house.calls(words)) == 1


@pytest.mark.requirement("send.idempotent")
@pytest.mark.parametrize("busy", ["reject", "queue", "interrupt"])
async def test_same_key_at_once_in_a_session(house: House, way: Door, busy: str) -> None:
    session = ack(await outcome(way, content="hello"))["sessionId"]
    words = f"once {busy} {way.name}"
    sends = [outcome(way, content=words, idempotencyKey=words, sessionId=session, onBusy=busy) for _ in range(12)]
    results = await asyncio.gather(*sends)
    assert len(house.calls(words)) == 1
    assert {(said(frames), frames[-1]["type"]) for frames in results} == {(f"You said: {words}", "chat.stream.end")}
    assert sum(not ack(frames)["duplicate"] for frames in results) == 1


async def held_turn(house: House, way: Door, name: str, **fields: Any) -> tuple[asyncio.Event, str, str]:
    """A turn that waits after its first delta: its gate, session and turn."""
    gate = asyncio.Event()
    house.upstream.play(text("a", "b", gates={1: gate}))
    async with way.open("chat.send", content=name, **fields) as stream:
        frames = await hear(stream, "chat.stream.delta")
    return gate, ack(frames)["sessionId"], ack(frames)["turnId"]


@pytest.mark.requirement("send.queue")
async def test_queue_is_in_order_bounded_and_durable(house: House, way: Door) -> None:
    gate, session, head = await held_turn(house, way, f"head {way.name}")
    names = [f"queued {number} {way.name}" for number in range(20)]
    turns = []
    for position, name in enumerate(names, 1):
        async with way.open("chat.send", content=name, sessionId=session, onBusy="queue") as stream:
            answer = await stream.next()
        assert (answer["type"], answer["state"], answer["queuePosition"]) == ("chat.accepted", "queued", position)
        turns.append(answer["turnId"])
    (full,) = await outcome(way, content="too many", sessionId=session, onBusy="queue")
    assert (full["code"], full["metadata"]["limit"]) == ("QUEUE_FULL", "20")
    (busy,) = await outcome(way, content="rejected", sessionId=session)
    assert busy["code"] == "STREAM_IN_PROGRESS"
    async with way.open("session.watch", sessionId=session) as stream:
        snapshot = await stream.next()
    assert snapshot["queuedTurnIds"] == turns
    await way.ask("turn.cancel", turnId=turns.pop(3))
    del names[3]
    await house.stack.kill_gateway()
    await house.stack.start_gateway()
    await ready(house.stack)
    assert (await way.ask("turn.wait", turnId=turns[-1]))["turn"]["state"] == "completed"
    gate.set()
    sent = [call for call in house.upstream.chats if call.said()[-1][1] in names]
    assert [call.said()[-1][1] for call in sent] == names
    users = [said for role, said in sent[-1].said() if role == "user"]
    # The one that ran when the gateway was killed counts if a checkpoint had its text.
    history = (await way.ask("session.history", sessionId=session))["messages"]
    kept = any(message["turnId"] == head and message["role"] == "assistant" for message in history)
    assert users == [f"head {way.name}"] * kept + names


@pytest.mark.requirement("send.interrupt")
async def test_interrupt_ends_what_runs_and_waits(house: House, way: Door) -> None:
    _, session, head = await held_turn(house, way, f"first {way.name}")
    async with way.open("chat.send", content="waits", sessionId=session, onBusy="queue") as stream:
        queued = (await stream.next())["turnId"]
    words = f"now {way.name}"
    frames = await outcome(way, content=words, sessionId=session, onBusy="interrupt")
    assert said(frames) == f"You said: {words}"
    for turn in (head, queued):
        assert (await way.ask("turn.get", turnId=turn))["turn"]["state"] == "cancelled"
    assert not house.calls("waits")
    assert house.calls(words)[0].said() == [("user", f"first {way.name}"), ("assistant", "a"), ("user", words)]


PHASES = ["dispatching", "streaming", "silent", "retrying", "queued", "ended"]


@pytest.mark.requirement("cancel.prompt")
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("by", ["turnId", "sessionId"])
async def test_cancel_at_any_phase(house: House, way: Door, phase: str, by: str) -> None:
    words = f"{phase} {by} {way.name}"
    never = asyncio.Event()
    match phase:
        case "dispatching":
            house.upstream.play(text("a", "b", gates={-1: never}))
        case "streaming":
            house.upstream.play(text("a", "b", gates={1: never}))
        case "silent":
            house.upstream.play(Script(fault=Fault.SILENCE, after=0))
        case "retrying":
            words = f"!529 {words}"
        case "queued":
            house.upstream.play(text("a", "b", gates={1: never}))
    async with way.open("chat.send", content=words) as stream:
        frames = await hear(stream, "chat.stream.delta" if phase in ("streaming", "queued") else "chat.stream.start")
        if phase == "ended":
            await hear(stream, *ENDS)
        session, turn = ack(frames)["sessionId"], ack(frames)["turnId"]
        async with asyncio.timeout(10):
            while not (calls := house.calls(words)):
                await asyncio.sleep(0)
        if phase == "queued":
            async with way.open("chat.send", content="later", sessionId=session, onBusy="queue") as waiting:
                turn = (await waiting.next())["turnId"]
                await check_cancel(way, session, turn, by)
                assert (await hear(waiting, *ENDS))[-1]["state"] == "cancelled"
            await way.ask("turn.cancel", sessionId=session)
        else:
            await check_cancel(way, session, turn, by, ended=phase == "ended")
            if phase != "ended":
                end = (await hear(stream, *ENDS))[-1]
                assert (end["type"], end["state"]) == ("chat.stream.end", "cancelled")
    async with asyncio.timeout(1):
        await calls[0].ended.wait()
    expected = {"ended": "completed", "retrying": "refused"}.get(phase, "client_closed")
    assert calls[0].outcome == expected
    frames = await outcome(way, content=f"next {words}", sessionId=session)
    assert frames[-1]["type"] == "chat.stream.end"
    if phase == "retrying":
        assert len(house.calls(words)) == 1


async def check_cancel(way: Door, session: str, turn: str, by: str, *, ended: bool = False) -> None:
    """Within a second, and the second time too."""
    async with asyncio.timeout(1):
        answer = await way.ask("turn.cancel", **{by: turn if by == "turnId" else session})
    assert answer["type"] == "turn.cancel", answer
    if not ended:
        assert turn in [each["turnId"] for each in answer["turns"]]
        assert {each["state"] for each in answer["turns"]} == {"cancelled"}
    state = (await way.ask("turn.get", turnId=turn))["turn"]["state"]
    assert state == ("completed" if ended else "cancelled")
    again = await way.ask("turn.cancel", turnId=turn)
    assert again["turns"][0]["state"] == state


@pytest.mark.requirement("cancel.prompt")
async def test_cancel_of_nothing(way: Door) -> None:
    assert (await way.ask("turn.cancel", turnId="turn_nobody"))["code"] == "TURN_NOT_FOUND"
    assert (await way.ask("turn.cancel", sessionId="x" * 21))["code"] == "SESSION_NOT_FOUND"
    assert (await way.ask("turn.cancel"))["code"] == "INVALID_MESSAGE"


@pytest.mark.requirement("cancel.prompt")
@pytest.mark.requirement("chat.one-writer")
async def test_cancels_and_sends_in_any_order_leave_a_usable_session(house: House) -> None:
    ways = [door(name, house.stack) for name in DOORS]
    session = ack(await outcome(ways[0], content="begin"))["sessionId"]
    house.upstream.pace = 0.001
    try:
        for round_ in range(6):
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                for number in range(8):
                    way = ways[number % 2]
                    busy = ("queue", "interrupt", "reject", "queue")[number % 4]
                    group.create_task(outcome(way, content=f"mix {round_}.{number}", sessionId=session, onBusy=busy))
                    if number % 3 == 2:
                        group.create_task(way.ask("turn.cancel", sessionId=session))
    finally:
        house.upstream.pace = 0.0
    turns = (await ways[0].ask("turn.list", sessionId=session, pageSize=1000))["turns"]
    assert {turn["state"] for turn in turns} <= {"completed", "cancelled"}
    frames = await outcome(ways[1], content="the end", sessionId=session)
    assert frames[-1]["type"] == "chat.stream.end"


@pytest.mark.requirement("chat.survives-client")
async def test_turn_goes_on_or_ends_without_its_watchers() -> None:
    limits = {"AGENTSPACE_UNWATCHED_SECONDS": "0.5"}
    async with AsyncExitStack() as stack_:
        upstream = await stack_.enter_async_context(Upstream().serve())
        stack = await stack_.enter_async_context(running_stack(upstream.url, **limits))
        house = House(upstream, stack)
        for name in DOORS:
            way = door(name, stack)
            goes_on, _, first = await held_turn(house, way, f"goes on {name}")
            _, _, second = await held_turn(house, way, f"ends {name}", onDisconnect="cancel")
            watched, session, third = await held_turn(house, way, f"watched {name}", onDisconnect="cancel")
            async with way.open("session.watch", sessionId=session) as stream:
                await stream.next()
                ended = (await way.ask("turn.wait", turnId=second, timeoutMs=5000))["turn"]
                assert ended["state"] == "cancelled"
                assert house.calls(f"ends {name}")[0].outcome == "client_closed"
                goes_on.set()
                watched.set()
                assert (await way.ask("turn.wait", turnId=first, timeoutMs=5000))["turn"]["state"] == "completed"
                assert (await way.ask("turn.wait", turnId=third, timeoutMs=5000))["turn"]["state"] == "completed"
