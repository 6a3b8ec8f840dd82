"""SIGTERM under load: in time, in order, with every turn either ended or kept, and clients that can go on."""

import asyncio
import signal

import pytest

from tests.fixtures.stack import running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.conftest import House
from tests.journeys.doors import DOORS, GoneError, door, hear, ready
from tests.journeys.reader import Reader

GRACE = 1.0
# What half of the turns have still to say when the signal comes, and what the others have, in seconds.
SHORT, LONG = 10, 400
PACE = 0.02


async def follow(house: House, number: int, words: str, closings: list[int | None]) -> tuple[Reader, str]:
    """Send and read until the server says goodbye."""
    way = door(DOORS[number % 2], house.stack)
    reader = Reader("")
    try:
        async with way.open("chat.send", content=words) as stream:
            while not reader.ends:
                frame = await stream.next()
                reader.session = reader.session or frame.get("sessionId", "")
                reader.take(frame)
            # Over the WebSocket the socket outlives its turn.
            if number % 2 == 0:
                await stream.next()
    except GoneError as gone:
        if number % 2 == 0:
            closings.append(gone.code)
    return reader, words


@pytest.mark.requirement("stop.drains")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("turns", [pytest.param(20, id="few"), pytest.param(50, id="many", marks=pytest.mark.slow)])
async def test_sigterm_under_running_turns(turns: int) -> None:
    async with (
        Upstream().serve() as upstream,
        running_stack(upstream.url, AGENTSPACE_DRAIN_SECONDS=str(GRACE)) as stack,
    ):
        house = House(upstream, stack)
        upstream.pace = PACE
        closings: list[int | None] = []
        texts = [f"turn {n} " + " ".join(["word"] * (SHORT if n % 4 < 2 else LONG)) for n in range(turns)]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(house, n, words, closings)) for n, words in enumerate(texts)]
            await upstream.chat(turns - 1)
            await asyncio.gather(*(call.reached(3) for call in upstream.chats))
            began = loop.time()
            stack.gateway.process.send_signal(signal.SIGTERM)
            refused = group.create_task(send_while_draining(house))
            assert await stack.gateway.process.wait() == 0
            assert loop.time() - began < GRACE + 2
        assert refused.result() in (["SHUTTING_DOWN"], [])
        assert set(closings) == {1012}
        upstream.pace = 0.0
        await stack.start_gateway()
        await ready(stack)
        for reader, words in [task.result() for task in tasks]:
            await check_rest(house, reader, words)
        assert len(upstream.chats) == turns, "nothing is generated again"


async def send_while_draining(house: House) -> list[str]:
    """A new chat is refused, with advice when to come back; at the very end nobody answers."""
    codes = []
    try:
        async with door("grpc", house.stack).open("chat.send", content="too late") as stream:
            frame = (await hear(stream, "error", "chat.accepted"))[-1]
            codes.append(frame["code"])
            assert frame["retryable"]
    except GoneError:
        pass
    return codes


async def check_rest(house: House, reader: Reader, words: str) -> None:
    """The rest, or an explicit reset, after the restart; the turn is completed or interrupted with its text."""
    whole = f"You said: {words}"
    turn = (await door("grpc", house.stack).ask("turn.get", turnId=reader.turn))["turn"]
    seen = reader.text[reader.turn]
    way = door("websocket", house.stack)
    while reader.turn not in reader.ends and not reader.snapshots:
        await reader.watch(way, frames=1)
    text = reader.text[reader.turn]
    if turn["state"] == "completed":
        assert text == whole
    else:
        assert turn["state"] == "interrupted"
        assert turn["error"]["code"] == "TURN_INTERRUPTED"
        assert whole.startswith(text)
        assert len(text) >= len(seen), "what was seen is kept"
    assert (turn["state"] == "completed") == (words.count("word") == SHORT)
