"""HTTP/2 as a client (RFC 9113): one connection, and streams of bytes on it.

Used by grpc_call.py; knows nothing of gRPC. Frames and headers are coded by the libraries hyperframe and hpack, except
DATA and WINDOW_UPDATE, which come by the thousand and are read here. Everything happens in the callback that read it.
docs/decisions/0009-the-bridge-speaks-grpc-itself.md says why this is ours.
"""

import asyncio
from collections.abc import Sequence
from struct import Struct
from typing import Protocol, cast

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)

Headers = Sequence[tuple[str, str]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_BYTES = 4 * 1024 * 1024
"""How much may be on its way to a stream, and on all of them together."""
DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_TABLE_BYTES = 4096
FRAME_BYTES = 16_384
"""The largest frame either side sends, unless the server asks for larger ones."""
HEADER_BYTES = 1024 * 1024
"""How large a block of headers may be; the words of a refusal are in one."""
PING_SECONDS = 30.0
"""How often the server has to show that it is alive; more often than every 10 s some take for an attack."""
PONG_SECONDS = 10.0
"""How long it may take for that."""
LEAVING_SECONDS = 10.0
"""How long streams may still run on a connection that takes no more."""

HEAD_BYTES = 9
DATA, WINDOW_UPDATE = 0, 8
END_STREAM, PADDED = 1, 8
NO_ERROR, CANCEL = 0, 8
_HEAD = Struct(">HBBBI")
"""Before each frame: the length in 16 and 8 bits, kind, flags, stream."""
_WINDOW_UPDATE = Struct(">HBBBII")


class LostError(Exception):
    """The connection is gone, or takes no more streams."""


class Receiver(Protocol):
    """Who gets what comes on a stream. No method may raise; on_end and on_lost are the last."""

    def on_headers(self, headers: Headers) -> None:
        """The headers, then the trailers."""

    def on_data(self, data: bytes) -> None:
        """Some more bytes, in order."""

    def on_sent(self) -> None:
        """All of what `send` could not send at once has been sent."""

    def on_end(self) -> None:
        """The server is done with the stream."""

    def on_lost(self, code: int | None) -> None:
        """It was reset with this error code of HTTP/2; None: the connection is lost."""


class _Stream:
    __slots__ = ("ending", "receiver", "taken", "unsent", "window")

    def __init__(self, receiver: Receiver, window: int) -> None:
        self.receiver = receiver
        self.window = window
        self.unsent = b""
        self.ending = False
        """Nothing comes after what is unsent."""
        self.taken = 0
        """Bytes that came since the server was last given room for more."""


class Connection(asyncio.Protocol):
    """A connection to the server called `authority`. Made by an event loop's create_connection."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._transport: asyncio.Transport | None = None
        self._encoder, self._decoder = Encoder(), Decoder(HEADER_BYTES)
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._leaving = False
        self._paused = False
        self._window = DEFAULT_WINDOW_BYTES
        self._first_window = DEFAULT_WINDOW_BYTES
        self._frame_bytes = FRAME_BYTES
        self._taken = 0
        self._rest = b""
        self._headers = b""
        self._last_header: HeadersFrame | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server has shown that it speaks HTTP/2. Fails with LostError."""

    @property
    def usable(self) -> bool:
        """New streams can be opened."""
        return self._transport is not None and not self._leaving

    def open(self, path: str, headers: Headers, receiver: Receiver) -> int:
        """Begin a stream by a POST to a path; gives its number. Raises LostError."""
        if self._transport is None or self._leaving:
            raise LostError("the connection is closed")
        number, self._next = self._next, self._next + 2
        head = [(":method", "POST"), (":scheme", "http"), (":authority", self._authority), (":path", path), *headers]
        frame = HeadersFrame(number, self._encoder.encode(head), flags=["END_HEADERS"])
        self._streams[number] = _Stream(receiver, self._first_window)
        self._transport.write(frame.serialize())
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> bool:
        """Send on a stream, after what is unsent yet. False: not all fits into the windows or the socket now; the
        receiver is told when it has been sent. Dropped when the stream is gone."""
        stream = self._streams.get(number)
        if stream is None:
            return True
        stream.unsent += data
        stream.ending = end
        self._pump(number, stream)
        return not stream.unsent

    def cancel(self, number: int) -> None:
        """Give a stream up; its receiver hears no more."""
        if self._streams.pop(number, None) is not None:
            self._write(RstStreamFrame(number, error_code=CANCEL))

    def close(self) -> None:
        """Close the connection; all streams are lost."""
        if self._transport is not None:
            self._transport.abort()
            self.connection_lost(None)

    # --- called by the event loop -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say which protocol this is and how much may come."""
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        settings = {SettingsFrame.ENABLE_PUSH: 0, SettingsFrame.INITIAL_WINDOW_SIZE: WINDOW_BYTES}
        self._transport.write(PREFACE + SettingsFrame(settings=settings).serialize())
        self._give_room(0, WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
        self._await_pulse()

    def connection_lost(self, _: Exception | None) -> None:
        """Tell everybody."""
        self._transport = None
        if self._pulse is not None:
            self._pulse.cancel()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.receiver.on_lost(None)
        if not self.settled.done():
            self.settled.set_exception(LostError("the server does not speak HTTP/2"))

    def pause_writing(self) -> None:
        """The socket is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._paused = False
        self._pump_all()

    def data_received(self, data: bytes) -> None:
        """Take whole frames; keep the rest for later."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= HEAD_BYTES:
                head = at + HEAD_BYTES
                size = int.from_bytes(data[at : at + 3])
                if size > FRAME_BYTES:
                    raise HyperframeError("a frame is too large")
                stop = head + size
                if stop > end:
                    break
                kind, flags = data[at + 3], data[at + 4]
                if kind == DATA:
                    self._data(int.from_bytes(data[at + 5 : head]), data[head:stop], flags)
                elif kind == WINDOW_UPDATE and size == 4:
                    self._room(int.from_bytes(data[at + 5 : head]), int.from_bytes(data[head:stop]))
                else:
                    frame, _ = Frame.parse_frame_header(memoryview(data)[at:head])
                    frame.parse_body(memoryview(data)[head:stop])
                    self._other(frame)
                at = stop
        except (HyperframeError, HPACKError):
            # What follows cannot be understood.
            self.close()
            return
        self._rest = data[at:]

    # --- in ---------------------------------------------------------------------------------------------------------

    def _data(self, number: int, data: bytes, flags: int) -> None:
        size = len(data)
        self._taken += size
        if self._taken >= WINDOW_BYTES // 2:
            self._give_room(0, self._taken)
            self._taken = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.taken += size
        if stream.taken >= WINDOW_BYTES // 2:
            self._give_room(number, stream.taken)
            stream.taken = 0
        if flags & PADDED:
            if not data or data[0] >= size:
                raise HyperframeError("padding is longer than its frame")
            data = data[1 : size - data[0]]
        stream.receiver.on_data(data)
        if flags & END_STREAM:
            self._end(number)

    def _room(self, number: int, size: int) -> None:
        if number == 0:
            self._window += size
            self._pump_all()
        elif (stream := self._streams.get(number)) is not None:
            stream.window += size
            if stream.unsent:
                self._pump(number, stream, late=True)

    def _other(self, frame: Frame) -> None:
        match frame:
            case HeadersFrame():
                self._last_header = frame
                self._headers = frame.data
                self._header_part(frame)
            case ContinuationFrame():
                self._headers += frame.data
                self._header_part(frame)
            case SettingsFrame() if "ACK" not in frame.flags:
                self._settings(frame.settings)
            case PingFrame() if "ACK" in frame.flags:
                self._await_pulse()
            case PingFrame():
                self._write(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
            case RstStreamFrame():
                if (stream := self._streams.pop(frame.stream_id, None)) is not None:
                    stream.receiver.on_lost(frame.error_code)
            case GoAwayFrame():
                if not self._leaving:
                    asyncio.get_running_loop().call_later(LEAVING_SECONDS, self.close)
                self._leaving = True
                for number in [number for number in self._streams if number > frame.last_stream_id]:
                    self._streams.pop(number).receiver.on_lost(None)
            case PushPromiseFrame():
                raise HyperframeError("nothing may be pushed")

    def _header_part(self, frame: HeadersFrame | ContinuationFrame) -> None:
        first = self._last_header
        if first is None or first.stream_id != frame.stream_id or len(self._headers) > HEADER_BYTES:
            raise HyperframeError("headers are torn")
        if "END_HEADERS" not in frame.flags:
            return
        self._last_header = None
        # Of a stream that is gone too: the decoder's table must stay in step with the server's.
        headers = [(str(name), str(value)) for name, value in self._decoder.decode(self._headers)]
        if (stream := self._streams.get(frame.stream_id)) is not None:
            stream.receiver.on_headers(headers)
            if "END_STREAM" in first.flags:
                self._end(frame.stream_id)

    def _settings(self, settings: dict[int, int]) -> None:
        for key, value in settings.items():
            if key == SettingsFrame.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._first_window
                self._first_window = value
            elif key == SettingsFrame.MAX_FRAME_SIZE:
                self._frame_bytes = value
            elif key == SettingsFrame.HEADER_TABLE_SIZE:
                self._shrink_table(min(value, DEFAULT_TABLE_BYTES))
        self._write(SettingsFrame(flags=["ACK"]))
        self._pump_all()
        if not self.settled.done():
            self.settled.set_result(None)

    def _shrink_table(self, size: int) -> None:
        # Said twice, hpack would forget to tell the server.
        if size != self._encoder.header_table_size:
            self._encoder.header_table_size = size

    def _end(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            if stream.unsent or not stream.ending:
                # The server will not read what is still to come.
                self._write(RstStreamFrame(number, error_code=NO_ERROR))
            stream.receiver.on_end()

    # --- out --------------------------------------------------------------------------------------------------------

    def _pump_all(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.unsent:
                self._pump(number, stream, late=True)

    def _pump(self, number: int, stream: _Stream, *, late: bool = False) -> None:
        """Send what the windows allow."""
        data, at = stream.unsent, 0
        parts: list[bytes] = []
        while at < len(data) and not self._paused:
            size = min(len(data) - at, stream.window, self._window, self._frame_bytes)
            if size <= 0:
                break
            flags = END_STREAM if stream.ending and at + size == len(data) else 0
            parts += _HEAD.pack(size >> 8, size & 255, DATA, flags, number), data[at : at + size]
            at += size
            stream.window -= size
            self._window -= size
        stream.unsent = data[at:]
        if parts and self._transport is not None:
            self._transport.write(b"".join(parts))
        if late and not stream.unsent:
            stream.receiver.on_sent()

    def _give_room(self, number: int, size: int) -> None:
        if self._transport is not None:
            self._transport.write(_WINDOW_UPDATE.pack(0, 4, WINDOW_UPDATE, 0, number, size))

    def _write(self, frame: Frame) -> None:
        if self._transport is not None:
            self._transport.write(frame.serialize())

    def _await_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
        self._pulse = asyncio.get_running_loop().call_later(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._write(PingFrame(opaque_data=b"alive?\0\0"))
        self._pulse = asyncio.get_running_loop().call_later(PONG_SECONDS, self.close)
