"""The client side of the h2 library, which raises when a rule is broken, and across a wire of memory our HTTP/2 server.
Used by the tests of gateway/rpc."""

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamReset

from gateway.rpc.http2_server import Connection, Headers

ASK = [(":method", "POST"), (":scheme", "http"), (":authority", "gateway"), (":path", "/x")]
ANSWER = [(":status", "200")]
TRAILERS = [("grpc-status", "0")]


class Ears:
    """A receiver that remembers."""

    def __init__(self, headers: Headers) -> None:
        self.headers = dict(headers)
        self.data = b""
        self.heard: list[str] = []

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_end(self) -> None:
        self.heard.append("end")

    def on_lost(self) -> None:
        self.heard.append("lost")


class Wire:
    """A transport whose other end is a client; `pass_on` carries what either side has to say, until both are silent.

    cut: how what comes to the server is cut into pieces.
    """

    def __init__(self, cut: Callable[[bytes], Iterator[bytes]] = lambda data: iter([data])) -> None:
        self.client = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.client.initiate_connection()
        self.events: list[Event] = []
        self.written = bytearray()
        self.closed = self.aborted = False
        self.streams: dict[int, Ears] = {}
        self.lost: list[Connection] = []
        self._cut = cut
        self.server = Connection(self._accept, self.lost.append)
        self.server.connection_made(cast(asyncio.Transport, self))

    def _accept(self, connection: Connection, number: int, headers: Headers) -> Ears:
        assert connection is self.server
        self.streams[number] = Ears(headers)
        return self.streams[number]

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def pass_on(self) -> None:
        """Say everything there is to say. What the client gets it reads at once."""
        while True:
            up = self.client.data_to_send()
            if up:
                self.say(up)
            down, self.written = bytes(self.written), bytearray()
            for event in self.client.receive_data(down) if down else ():
                self.events.append(event)
                if isinstance(event, DataReceived) and event.flow_controlled_length:
                    self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if not up and not down:
                return

    def say(self, data: bytes) -> None:
        """Give bytes to the server."""
        for piece in self._cut(data):
            self.server.data_received(piece)

    def ask(self, *, end: bool = False) -> tuple[int, Ears]:
        """Begin a stream."""
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, ASK, end_stream=end)
        self.pass_on()
        return number, self.streams[number]

    def got(self, number: int) -> bytes:
        """The data that the client got on a stream."""
        return b"".join(e.data for e in self.events if isinstance(e, DataReceived) and e.stream_id == number)

    def resets(self) -> list[tuple[int, int]]:
        """The streams that the server has reset, with its reasons."""
        return [(event.stream_id, int(event.error_code)) for event in self.events if isinstance(event, StreamReset)]
