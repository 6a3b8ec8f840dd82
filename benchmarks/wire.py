"""The client's ends of the wire, as lean as they can be: a WebSocket, and a direct reader of the upstream.

Used by client. Both are asyncio protocols that call back with whole messages; neither checks more than it must.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

import orjson

Heard = Callable[[bytes], None]
REQUEST = (
    "GET /gateway HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class WebSocket(asyncio.Protocol):
    """One connection; `heard` gets the payload of every text frame. `opened` is done after the handshake, `lost` when
    the connection ends."""

    def __init__(self, port: int, level: int, token: str = "") -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.heard: Heard = lambda payload: None
        more = "Sec-WebSocket-Protocol: agentspace.v2\r\n" if level == 2 else ""
        more += f"Authorization: Bearer {token}\r\n" if token else ""
        self._request = REQUEST.format(port=port, more=more).encode()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        # uvloop does not call its transports asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        """The other side is gone."""
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Split into frames; servers do not fragment or mask theirs."""
        data = self._buffer + data if self._buffer else data
        if not self.opened.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            if b" 101 " not in head:
                self.opened.set_exception(ConnectionError(head.decode()))
                return
            self.opened.set_result(None)
        at, end = 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                if end - at < 4:
                    break
                length, start = struct.unpack_from("!H", data, at + 2)[0], at + 4
            elif length == 127:
                if end - at < 10:
                    break
                length, start = struct.unpack_from("!Q", data, at + 2)[0], at + 10
            if end - start < length:
                break
            opcode, payload, at = data[at] & 15, data[start : start + length], start + length
            if opcode == TEXT:
                self.heard(payload)
            elif opcode == PING:
                self._send(PONG, payload)
            elif opcode == CLOSE:
                self._transport.close()
        self._buffer = data[at:]

    def say(self, **frame: object) -> None:
        """Send a text frame."""
        self._send(TEXT, orjson.dumps(frame))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _send(self, opcode: int, payload: bytes) -> None:
        # Clients must mask; a mask of zeros changes nothing and costs nothing.
        length = len(payload)
        head = (
            bytes((0x80 | opcode, 0x80 | length)) if length < 126 else struct.pack("!BBH", 0x80 | opcode, 254, length)
        )
        self._transport.write(head + bytes(4) + payload)


class Direct(asyncio.Protocol):
    """A reader of the upstream with nothing between: `heard` gets the text of every delta, then an empty text."""

    _MARK = b'"text_delta","text":"'

    def __init__(self, port: int) -> None:
        self.heard: Heard = lambda text: None
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        # uvloop does not call its transports asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, content: str) -> None:
        """Send the request."""
        body = orjson.dumps({"stream": True, "messages": [{"role": "user", "content": content}]})
        head = f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        """Deltas are small and written one by one, so none is ever split."""
        for piece in data.split(self._MARK)[1:]:
            self.heard(piece[: piece.index(b'"')])
        if b"message_stop" in data:
            self.heard(b"")
