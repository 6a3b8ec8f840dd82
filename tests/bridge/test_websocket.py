"""websocket.py with real clients: levels, limits, closing codes, and a socket that does not read."""

import asyncio
import contextlib
import gc
import json
import re
import socket as sockets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect

from agentspace.v1 import gateway_service_pb2
from agentspace.v1.frame_pb2 import ServerFrame
from bridge.websocket import MAX_FRAME_BYTES, Socket
from tests.bridge.conftest import TOKEN, CannedGateway, config, running_bridge, running_gateway

V2 = websockets.Subprotocol("agentspace.v2")


def url(port: int) -> str:
    return f"ws://127.0.0.1:{port}/gateway"


async def receive(ws: ClientConnection) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await ws.recv())


async def closed(ws: ClientConnection) -> tuple[int | None, str | None]:
    async with asyncio.timeout(5):
        await ws.wait_closed()
    return ws.close_code, ws.close_reason


@pytest.fixture
async def v1(port: int) -> AsyncIterator[ClientConnection]:
    async with connect(url(port)) as ws:
        yield ws


@pytest.fixture
async def v2(port: int) -> AsyncIterator[ClientConnection]:
    async with connect(url(port), subprotocols=[V2]) as ws:
        yield ws


async def test_level_1_chat(v1: ClientConnection, gateway: CannedGateway) -> None:
    assert v1.subprotocol is None
    await v1.send('{"type":"chat.send","id":"r1","content":"hello"}')
    assert await receive(v1) == {"type": "session.created", "sessionId": "s", "sessionKey": "agent:default:s"}
    assert await receive(v1) == {"type": "chat.stream.start", "requestId": "r1", "sessionId": "s", "model": "m"}
    assert await receive(v1) == {"type": "chat.stream.delta", "requestId": "r1", "delta": "hello"}
    assert (await receive(v1))["type"] == "chat.stream.end"
    opened = await gateway.until(1, "open")
    assert (opened[0].open.level, opened[0].open.bearer_token) == (1, "")
    await v1.close()
    assert (await gateway.until(1, "close"))[0].channel == opened[0].channel


async def test_level_2_is_greeted_first(v2: ClientConnection, gateway: CannedGateway, port: int) -> None:
    hello = await receive(v2)
    assert (hello["type"], hello["principal"], hello["limits"]["maxFrameBytes"]) == ("hello", "local", MAX_FRAME_BYTES)
    assert v2.subprotocol == "agentspace.v2"
    await v2.send('{"type":"chat.send","id":"r1","content":"x"}')
    kinds = [(await receive(v2))["type"] for _ in range(5)]
    assert kinds[:3] == ["session.created", "chat.accepted", "chat.stream.start"]
    async with connect(url(port), subprotocols=[V2]) as second:
        await receive(second)
        assert gateway.hellos == 1, "the greeting of local peers is asked for once"
    async with connect(url(port), subprotocols=[V2], additional_headers={"Authorization": f"Bearer {TOKEN}"}) as third:
        assert (await receive(third))["principal"] == "operator"


async def test_first_known_subprotocol_is_taken(port: int) -> None:
    names = [websockets.Subprotocol(name) for name in ("chat", "agentspace.v1", "agentspace.v2")]
    async with connect(url(port), subprotocols=names) as ws:
        assert ws.subprotocol == "agentspace.v1"


@pytest.mark.parametrize("lines", [["foo", "agentspace.v2"], ["agentspace.v2", "foo"], ["foo, agentspace.v2"]])
async def test_the_subprotocol_is_named_whatever_line_it_came_in(port: int, lines: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    offers = "".join(f"Sec-WebSocket-Protocol: {line}\r\n" for line in lines)
    writer.write(
        f"GET /gateway HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offers}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert re.findall(r"(?im)^sec-websocket-protocol: (.*)\r$", head) == ["agentspace.v2"]
    writer.close()
    await writer.wait_closed()


async def test_unknown_subprotocols_only_are_refused(port: int) -> None:
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(url(port), subprotocols=[websockets.Subprotocol("agentspace.v3")])
    assert caught.value.response.status_code == 400


@pytest.mark.parametrize("level", [[], [V2]])
async def test_bad_token_closes_4401(port: int, level: list[websockets.Subprotocol]) -> None:
    headers = {"Authorization": "Bearer wrong"}
    async with connect(url(port), subprotocols=level or None, additional_headers=headers) as ws:
        if not level:
            await ws.send('{"type":"session.list","id":"r"}')
        assert (await closed(ws))[0] == 4401


async def test_bad_frames_are_answered_and_the_connection_goes_on(v1: ClientConnection) -> None:
    for text in ("no", "[" * 30_000, '{"type":[],"id":"a"}', '{"type":"chat.send","id":"a"}'):
        await v1.send(text)
        error = await receive(v1)
        assert (error["type"], error["code"]) == ("error", "INVALID_MESSAGE")
        assert error.get("requestId") == ("a" if "id" in text else None)
    await v1.send('{"type":"chat.send","id":"b","content":"still here"}')
    assert (await receive(v1))["type"] == "session.created"


async def test_one_mebibyte_is_taken_and_one_byte_more_is_not(v1: ClientConnection) -> None:
    head = '{"type":"nope","id":"a","x":"'
    await v1.send(head + "x" * (MAX_FRAME_BYTES - len(head) - 2) + '"}')
    assert (await receive(v1))["requestId"] == "a"
    await v1.send(head + "x" * (MAX_FRAME_BYTES - len(head) - 1) + '"}')
    assert await closed(v1) == (1009, "a frame holds at most 1 MiB")


async def test_fragments_count_together(v1: ClientConnection) -> None:
    with contextlib.suppress(websockets.ConnectionClosed):
        await v1.send(["x" * 600_000, "x" * 600_000])
    assert await closed(v1) == (1009, "a frame holds at most 1 MiB")


async def test_binary_is_closed_1003(v1: ClientConnection) -> None:
    await v1.send(b"{}")
    assert await closed(v1) == (1003, "text frames only")


async def test_invalid_utf8_is_closed_1007(v1: ClientConnection) -> None:
    await v1.send(b"\xff\xfe", text=True)
    assert await closed(v1) == (1007, "text must be UTF-8")


async def test_channel_closed_by_the_gateway_closes_the_socket(v1: ClientConnection, gateway: CannedGateway) -> None:
    await v1.send('{"type":"chat.send","id":"r1","content":"hold"}')
    opened = await gateway.until(1, "open")
    gateway.close_channel(opened[0].channel, gateway_service_pb2.CLOSE_REASON_RESTART)
    assert (await closed(v1))[0] == 1012


async def test_idle_sockets_cost_the_gateway_nothing(v1: ClientConnection, gateway: CannedGateway) -> None:
    await v1.ping()
    assert gateway.requests == []


def acknowledged(gateway: CannedGateway) -> list[int]:
    return [request.acknowledged_bytes for request in gateway.requests if request.acknowledged_bytes]


async def test_slow_socket_is_bounded_and_holds_up_nobody(gateway: CannedGateway, port: int) -> None:
    raw = sockets.create_connection(("127.0.0.1", port))
    raw.sendall(
        f"GET /gateway HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    text = b'{"type":"chat.send","id":"f","content":"flood"}'
    raw.sendall(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
    slow = (await gateway.until(1, "frame"))[0].channel
    async with connect(url(port)) as quick:
        stalled = number = 0
        # Round after round the flood goes on while the kernel's buffers take it, and then stops.
        while stalled < 20:
            number += 1
            await quick.send(json.dumps({"type": "chat.send", "id": str(number), "content": "x"}))
            kinds = [(await receive(quick))["type"] for _ in range(4)]
            assert kinds[-1] == "chat.stream.end"
            stalled = stalled + 1 if gateway.window[slow] <= 0 else 0
        held = len(acknowledged(gateway))
        raw.settimeout(5)
        # What waits in the kernel comes first; then the socket drains, and the flood goes on.
        while len(acknowledged(gateway)) == held:
            assert await asyncio.to_thread(raw.recv, 65536)
    raw.close()


async def test_many_frames_travel_in_order_and_are_acknowledged(v1: ClientConnection, gateway: CannedGateway) -> None:
    await v1.send('{"type":"chat.send","id":"r1","content":"hold"}')
    channel = (await gateway.until(1, "open"))[0].channel
    for start in range(0, 2000, 50):
        frames = [ServerFrame(chat_stream_delta={"delta": f"{n}" + "y" * 200}) for n in range(start, start + 50)]
        gateway.say_all([(channel, "r1")], *frames)
    for number in range(2000):
        assert (await receive(v1))["delta"].rstrip("y") == str(number)
    assert await gateway.until(2, "acknowledged_bytes")


async def test_lost_gateway_is_told_and_found_again(socket_path: Path) -> None:
    async with running_bridge(config(socket_path)) as port:
        canned = CannedGateway()
        async with connect(url(port)) as v1:
            await v1.send('{"type":"chat.send","id":"r0","content":"early"}')
            assert (await receive(v1))["code"] == "LLM_ERROR"
            async with running_gateway(canned, socket_path):
                v2 = await greeted(port)
                await v1.send('{"type":"chat.send","id":"r1","content":"hold"}')
                await v2.send('{"type":"chat.send","id":"r2","content":"hold"}')
                await canned.until(2, "frame")
            error = await receive(v1)
            assert (error["type"], error["requestId"], error["code"]) == ("error", "r1", "LLM_ERROR")
            assert (await closed(v2))[0] == 1012
            async with running_gateway(CannedGateway(), socket_path):
                await (await greeted(port)).close()
                await v1.send('{"type":"chat.send","id":"r3","content":"again"}')
                assert (await receive(v1))["type"] == "session.created"


async def greeted(port: int) -> ClientConnection:
    """Connect at level 2, again and again until the gateway is there."""
    async with asyncio.timeout(10):
        while True:
            ws = await connect(url(port), subprotocols=[V2])
            try:
                assert json.loads(await ws.recv())["type"] == "hello"
            except websockets.ConnectionClosed:
                assert ws.close_code == 1013
            else:
                return ws


@pytest.mark.parametrize("how", ["closes", "is cut off", "breaks a rule", "breaks the protocol"])
async def test_a_connection_that_has_ended_leaves_nothing_behind(v1: ClientConnection, how: str) -> None:
    await v1.send('{"type":"chat.send","id":"r1","content":"hello"}')
    await receive(v1)
    gc.collect()
    gc.disable()
    try:
        assert parts_of_connections() == 2
        if how == "closes":
            await v1.close()
        elif how == "is cut off":
            v1.transport.abort()
        elif how == "breaks a rule":
            await v1.send(b"binary")
        else:
            await v1.send(b"\xff", text=True)
        async with asyncio.timeout(5):
            while parts_of_connections():
                await asyncio.sleep(0)
    finally:
        gc.enable()


def parts_of_connections() -> int:
    """How many parts of connections, two each, are in memory, whether anybody can still reach them or not."""
    return sum(isinstance(found, (Socket, web.WebSocketResponse)) for found in gc.get_objects())


async def test_stop_closes_1012(gateway: CannedGateway, socket_path: Path) -> None:
    async with running_bridge(config(socket_path)) as port:
        ws = await connect(url(port))
    assert (await closed(ws))[0] == 1012


async def test_connections_are_limited(gateway: CannedGateway, socket_path: Path) -> None:
    async with running_bridge(config(socket_path, max_connections=1)) as port, connect(url(port)):
        with pytest.raises(websockets.InvalidStatus) as caught:
            await connect(url(port))
        assert caught.value.response.status_code == 503


async def test_aiohttp_client_and_compression_offer(port: int) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url(port), compress=15) as ws:
        assert not ws.compress
        await ws.send_str('{"type":"session.list","id":"r"}')
        assert (await ws.receive_json(timeout=5))["code"] == "NOT_IMPLEMENTED"
