"""/gateway: the aiohttp side of a connection. Moves text between a socket and its channel, and closes in order.

Called by app.py's routes; calls channels.py. A socket has one reader, the request's own task, and a second task only
while it is slow or being closed.
"""

import asyncio
import socket

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from agentspace.v1.frame_pb2 import Hello
from bridge import closing
from bridge.channels import Channels
from bridge.closing import Closing
from bridge.frames import Codec
from bridge.link import Link, LinkError
from bridge.parting import WebSocket
from bridge.protocol import negotiate
from bridge.text_frame import text_frame

MAX_FRAME_BYTES = 1024 * 1024
PING_SECONDS = 20.0
"""How often every connection is pinged, so that nobody in between takes it for dead. Whether the peer itself lives is
TCP's to find out: one that is merely not reading, for however long, is alive."""
KEEPALIVE_SECONDS = 30
"""How long TCP lets a silent peer be before it asks, three times ten seconds apart."""
CLOSE_SECONDS = 5.0
"""How long a client may take to answer a close frame."""
STALL_SECONDS = 900.0
"""How long a slow socket may take to read what waits for it. Until then it costs its window and no more."""
HIGH_WATER = 64 * 1024
"""How many bytes may wait in a socket's transport before the socket counts as slow."""

TOKEN = web.RequestKey("token", str)
"""The request's bearer token, set by the guard's middleware; empty without one."""


class Socket:
    """One WebSocket as its channel sees it."""

    __slots__ = ("_closing", "_draining", "_transport", "_writer", "_ws", "channel")

    def __init__(self, ws: WebSocket, writer: AbstractStreamWriter, transport: asyncio.Transport) -> None:
        self._ws = ws
        self._writer = writer
        self._transport = transport
        self._draining: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        transport.set_write_buffer_limits(high=HIGH_WATER)
        _keep_alive(transport)

    def attach(self, channels: Channels, level: int, token: str) -> None:
        """Give the socket its channel."""
        self.channel = channels.channel(level, self, token)

    def detach(self) -> None:
        """Part from the channel. As long as they know each other only the garbage collector could free them, and with
        them all that a connection takes."""
        self.channel.end()
        del self.channel

    def write(self, frames: bytes) -> bool:
        """Write whole WebSocket frames at once."""
        transport = self._transport
        if self._ws.closed or self._ws.parted or transport.is_closing():
            return True
        transport.write(frames)
        if transport.get_write_buffer_size() <= HIGH_WATER:
            return True
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return False

    def ping(self) -> None:
        """Ping, unless there is something on its way already."""
        ws, transport = self._ws, self._transport
        if not (ws.closed or ws.parted or transport.is_closing() or transport.get_write_buffer_size()):
            transport.write(b"\x89\x00")

    def close(self, why: Closing) -> None:
        """Start to close; only the first reason counts."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(why))

    async def writable(self) -> None:
        """Wait while the socket is slow: who does not read what is sent is not read either."""
        if self._draining is not None:
            await asyncio.wait([self._draining])

    async def closed(self) -> None:
        """Wait until the socket is closed, if close was called."""
        if self._closing is not None:
            await asyncio.wait([self._closing])

    async def finish(self) -> None:
        """End everything the socket has started."""
        if self._draining is not None:
            self._draining.cancel()
        await self.closed()
        if self._transport.get_write_buffer_size():
            # A transport told to close still waits for its peer to read, for ever if need be.
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._writer.drain()
        except ConnectionError:
            return
        except TimeoutError:
            self._transport.abort()
            return
        finally:
            self._draining = None
        self.channel.drained()

    async def _close(self, why: Closing) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._ws.close(code=why.code, message=why.reason.encode())
        except TimeoutError:
            # It does not even read: there is nobody to part from.
            self._transport.abort()


class Sockets:
    """All connections of the server. codec: of level 2, for hello. limit: how many there may be at once."""

    def __init__(self, link: Link, channels: Channels, codec: Codec, limit: int) -> None:
        self._link = link
        self._channels = channels
        self._codec = codec
        self._limit = limit
        self._live: set[Socket] = set()
        self._local_hello: tuple[int, bytes] = (-1, b"")

    def __len__(self) -> int:
        return len(self._live)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /gateway: 400 without a subprotocol we know, 503 when full, else the whole connection."""
        lines = request.headers.getall("Sec-WebSocket-Protocol", [])
        chosen = negotiate([name.strip() for line in lines for name in line.split(",") if name.strip()])
        if chosen is None:
            return web.json_response({"code": "INVALID_MESSAGE", "message": "unknown subprotocol"}, status=400)
        if len(self._live) >= self._limit:
            body = {"code": "TOO_MANY_STREAMS", "message": "too many connections"}
            return web.json_response(body, status=503, headers={"Retry-After": "5"})
        level, name = chosen
        ws = WebSocket(
            protocols=(name,) if name else (),
            # aiohttp refuses what reaches its limit.
            max_msg_size=MAX_FRAME_BYTES + 1,
            timeout=CLOSE_SECONDS,
            compress=False,
        )
        if name:
            # aiohttp looks for it in the first line of offers only.
            ws.headers["Sec-WebSocket-Protocol"] = name
        writer = await ws.prepare(request)
        if request.transport is None:
            return ws
        ws.transport = request.transport
        connection = Socket(ws, writer, request.transport)
        self._live.add(connection)
        try:
            if level == 1 or await self._greet(connection, request[TOKEN]):
                connection.attach(self._channels, level, request[TOKEN])
                await self._read(ws, connection)
        finally:
            self._live.discard(connection)
            await connection.finish()
            if (error := ws.exception()) is not None:
                # aiohttp keeps how closing failed, with each of its frames, and they keep the connection.
                error.__traceback__ = error.__context__ = None
        return ws

    async def ping_all(self) -> None:
        """Ping every connection now and then, until cancelled."""
        while True:
            await asyncio.sleep(PING_SECONDS)
            for connection in tuple(self._live):
                connection.ping()

    async def close_all(self, why: Closing) -> None:
        """Close every connection, all at once; waits for each at most CLOSE_SECONDS."""
        connections = list(self._live)
        for connection in connections:
            connection.close(why)
        await asyncio.gather(*(connection.closed() for connection in connections))

    async def _read(self, ws: WebSocket, connection: Socket) -> None:
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    connection.channel.receive(message.data)
                    await self._link.drain()
                    await connection.writable()
                elif message.type is WSMsgType.BINARY:
                    connection.close(closing.BINARY)
                    break
        finally:
            connection.detach()

    async def _greet(self, connection: Socket, token: str) -> bool:
        try:
            if not self._link.connected:
                raise LinkError("GATEWAY_UNREACHABLE", "no connection yet")
            text = await self._hello(token)
        except LinkError as error:
            connection.close(closing.UNAUTHENTICATED if error.reason == "UNAUTHENTICATED" else closing.TRY_LATER)
            return False
        connection.write(text_frame(text))
        return True

    async def _hello(self, token: str) -> bytes:
        generation = self._channels.generation
        if not token and self._local_hello[0] == generation:
            return self._local_hello[1]
        hello = Hello()
        hello.CopyFrom(await self._link.hello(token))
        hello.limits.max_frame_bytes = MAX_FRAME_BYTES
        text = self._codec.encode(hello, "") or b""
        if not token:
            self._local_hello = (generation, text)
        return text


def _keep_alive(transport: asyncio.Transport) -> None:
    """Let TCP find out when the peer is gone."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", KEEPALIVE_SECONDS), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
