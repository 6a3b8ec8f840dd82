"""parting.py with real sockets: who broke the protocol hears why, whatever is still on its way."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect

from agentspace.v1.frame_pb2 import ServerFrame
from bridge import closing, parting
from bridge.websocket import MAX_FRAME_BYTES
from tests.bridge.conftest import CannedGateway

MASKED_TEXT = bytes((0x81, 0xFF))
TOO_LARGE = MASKED_TEXT + (8 * MAX_FRAME_BYTES).to_bytes(8) + bytes(4)
"""The head of a frame."""


class Client:
    """A WebSocket client of which only the sending side knows the protocol."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, text: bytes) -> None:
        self.writer.write(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """All that comes until the end. Raises ConnectionError when it is cut off."""
        async with asyncio.timeout(5):
            return await self.reader.read()


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /gateway HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        await reader.readuntil(b"\r\n\r\n")
    yield Client(reader, writer)
    writer.transport.abort()


async def test_who_sends_a_frame_that_is_too_large_hears_so_however_much_of_it_follows(client: Client) -> None:
    client.writer.write(TOO_LARGE + bytes(8 * MAX_FRAME_BYTES))
    async with asyncio.timeout(5):
        await client.writer.drain()
    assert await client.rest() == closing.TOO_BIG.frame()


async def test_broken_rules_have_their_codes(client: Client) -> None:
    # An unmasked frame is taken; a reserved bit is not.
    client.writer.write(bytes((0x81 | 0x40, 0x80)) + bytes(4) + bytes(MAX_FRAME_BYTES))
    assert await client.rest() == closing.PROTOCOL_ERROR.frame()


async def test_what_is_told_to_one_that_is_being_parted_from_is_dropped(
    client: Client, gateway: CannedGateway, port: int
) -> None:
    await client.say(b'{"type":"chat.send","id":"r1","content":"hold"}')
    parted = (await gateway.until(1, "open"))[0].channel
    async with connect(f"ws://127.0.0.1:{port}/gateway") as other:
        await other.send('{"type":"chat.send","id":"r2","content":"hold"}')
        listening = (await gateway.until(2, "open"))[1].channel
        client.writer.write(TOO_LARGE)
        assert await client.rest() == closing.TOO_BIG.frame()
        for word in ("one", "two"):
            gateway.say_all([(parted, "r1"), (listening, "r2")], ServerFrame(chat_stream_delta={"delta": word}))
            async with asyncio.timeout(5):
                assert json.loads(await other.recv())["delta"] == word


async def test_who_neither_stops_nor_goes_is_cut_off(
    client: Client, gateway: CannedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parting, "PART_SECONDS", 0.05)
    await client.say(b'{"type":"chat.send","id":"r1","content":"hold"}')
    client.writer.write(TOO_LARGE)
    # The channel is closed although the client keeps its side open.
    await gateway.until(1, "close")
