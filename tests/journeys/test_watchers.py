"""A hundred watchers of one turn, ten of which do not read."""

import asyncio
import json
import re
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fixtures.script import text
from tests.journeys.conftest import House
from tests.journeys.doors import SocketStream, WebSocketDoor
from tests.journeys.reader import Reader

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Deltas large enough to fill every buffer on the way to one who does not read.
DELTA = "x" * 2048


def resident(pid: int) -> int:
    """Bytes of memory a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def transport_of(stream: SocketStream) -> asyncio.Transport:
    """The client's end of the connection."""
    connection = stream.socket._response.connection
    assert connection is not None
    assert isinstance(connection.transport, asyncio.Transport)
    return connection.transport


def receive_buffer(stream: SocketStream, size: int) -> None:
    """What the kernel takes in for the client before the sender has to wait."""
    transport_of(stream).get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


async def turn_watched_by(
    house: House, readers: int, stalled: int, deltas: int, rate: float
) -> tuple[float, int, str, list[Reader]]:
    """Seconds the turn took from its first to its last delta, growth of the gateway, the text, and who saw what."""
    gate = asyncio.Event()
    pieces = [f"{number} {DELTA} " for number in range(deltas)]
    house.upstream.play(text(*pieces, pace=1 / rate, gates={0: gate}))
    way = WebSocketDoor(house.stack)
    seen: list[Reader] = []
    raw: list[tuple[Reader, list[str]]] = []

    async def read(stream: SocketStream, reader: Reader) -> None:
        # Understood afterwards: the reading of a hundred shares this process with the provider.
        heard: list[str] = []
        while not heard or '"type":"chat.stream.end"' not in heard[-1]:
            heard.append((await stream.socket.receive()).data)
        raw.append((reader, heard))

    async with AsyncExitStack() as open_streams:
        async with way.open("chat.send", content=f"{readers} {stalled} {time.monotonic()}") as sender:
            while (frame := await sender.next())["type"] != "chat.accepted":
                pass
        begin = {"sessionId": frame["sessionId"], "epoch": frame["epoch"], "afterSeq": frame["seq"]}
        streams = []
        for _ in range(readers + stalled):
            streams.append(await open_streams.enter_async_context(way.open("session.watch", **begin)))
            seen.append(Reader(frame["sessionId"], frame["epoch"], frame["seq"]))
        for stream, reader in zip(streams[readers:], seen[readers:], strict=True):
            reader.take(await stream.next())
            # From here on the kernel's buffers fill, and nobody reads.
            receive_buffer(stream, 4096)
            transport_of(stream).pause_reading()
        before = resident(house.stack.gateway.pid)
        began = asyncio.get_running_loop().time()
        gate.set()
        async with asyncio.TaskGroup() as group:
            for stream, reader in zip(streams[:readers], seen[:readers], strict=True):
                group.create_task(read(stream, reader))
        took = asyncio.get_running_loop().time() - began
        growth = resident(house.stack.gateway.pid) - before
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for stream, reader in zip(streams[readers:], seen[readers:], strict=True):
                receive_buffer(stream, 1024 * 1024)
                transport_of(stream).resume_reading()
                group.create_task(read(stream, reader))
    for reader, heard in raw:
        for message in heard:
            reader.take(json.loads(message))
    return took, growth, "".join(pieces), seen


@pytest.mark.requirement("watchers.harmless")
@pytest.mark.requirement("slow-client.bounded")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("readers", "stalled", "deltas"),
    [pytest.param(10, 3, 100, id="few"), pytest.param(90, 10, 500, id="many", marks=pytest.mark.slow)],
)
async def test_watchers_hurt_nobody(house: House, readers: int, stalled: int, deltas: int) -> None:
    asyncio.get_running_loop().set_debug(False)
    alone, _, whole, seen = await turn_watched_by(house, 1, 0, deltas, 50)
    assert list(seen[0].text.values()) == [whole]
    took, growth, whole, seen = await turn_watched_by(house, readers, stalled, deltas, 50)
    assert [list(reader.text.values()) for reader in seen] == [[whole]] * (readers + stalled)
    assert growth < 20 * 1024 * 1024, growth
    assert took < alone * 1.3, (took, alone)
