"""HTTP/2 as a server (RFC 9113): a client's connection and the streams of bytes on it.

Made by local_server; knows nothing of gRPC. The protocol is h2's, except DATA, which comes and goes by the thousand:
those frames are read and written here, and the windows of what comes are kept here. Everything that comes is handled in
the callback that read it.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import Struct
from typing import Protocol, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import FlowControlError, FrameTooLargeError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

Headers = Sequence[tuple[str, str]]

STREAMS_AT_ONCE = 1000
HEADER_BYTES = 16 * 1024
"""How large the headers of a request should be; not every client keeps to it."""
LARGEST_HEADER_BYTES = 64 * 1024
"""Larger ones end the connection."""
STREAM_WINDOW_BYTES = 1024 * 1024
"""How much of a stream may be on its way here or wait to be read."""
WINDOW_BYTES = 16 * 1024 * 1024
"""The same for all streams of a connection together."""
DEFAULT_WINDOW_BYTES = 65_535
LARGEST_NUMBER = 2**31 - 1
"""Of a stream; the bit above it means nothing."""
FRAME_BYTES = 16_384
"""The largest frame that may come."""

UNREAD_BYTES = 4 * 1024 * 1024
"""How much may wait for a client that asks and does not read: far more than flow control lets come together."""

PREFACE_BYTES = 24
HEAD_BYTES = 9
DATA, HEADERS, GOAWAY, WINDOW_UPDATE = 0, 1, 7, 8
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
_HEAD = Struct(">HBBBI")
"""Before each frame: the length in 16 and 8 bits, kind, flags, stream."""
_WINDOW_UPDATE = Struct(">HBBBII")


class GoneError(Exception):
    """The stream has ended, or its client is gone."""


class Receiver(Protocol):
    """Who serves a stream. No method may raise; on_lost is the last."""

    def on_data(self, data: bytes) -> None:
        """Some more bytes, in order. They count against the windows until `Connection.taken` is called."""

    def on_end(self) -> None:
        """The client sends no more."""

    def on_lost(self) -> None:
        """The client gave the stream up, or is gone."""


class _Window:
    """How much may still come, on a stream or on all of them together."""

    __slots__ = ("_left", "_size", "_taken")

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._taken = 0

    def take_in(self, size: int) -> bool:
        """So much came. False: more than was allowed."""
        self._left -= size
        return self._left >= 0

    def give_back(self, size: int) -> int:
        """So much need not be counted any more. Returns how much more the client is to be told that it may send; that
        is put off until it is worth a frame."""
        self._taken += size
        if self._taken < self._size // 2:
            return 0
        told, self._taken = self._taken, 0
        self._left += told
        return told


class _Stream:
    __slots__ = ("ended", "receiver", "room", "untaken", "window")

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.room: asyncio.Future[None] | None = None
        """Done when there may be room to send."""
        self.window = _Window(STREAM_WINDOW_BYTES)
        self.untaken = 0
        """Bytes that the receiver has not taken yet."""
        self.ended = False
        """The client sends no more."""

    def wake(self) -> None:
        if self.room is not None:
            self.room.set_result(None)
            self.room = None


class Connection(asyncio.Protocol):
    """A client's connection. `accept` is called for each stream, with its number and headers; `on_lost` at the end."""

    def __init__(
        self, accept: Callable[["Connection", int, Headers], Receiver], on_lost: Callable[["Connection"], None]
    ) -> None:
        self._accept = accept
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._newest = 0
        self._leaving = False
        self._paused = False
        self._rest = b""
        self._window = _Window(WINDOW_BYTES)
        self._preface = PREFACE_BYTES
        # A header that h2 takes for malformed would end all calls of the connection.
        config = H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=False)
        self._h2 = H2Connection(config)
        self._h2.decoder.max_header_list_size = LARGEST_HEADER_BYTES
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_AT_ONCE,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES,
            },
        )

    def send_headers(self, number: int, headers: Headers) -> None:
        """Send headers with what is sent next. Raises GoneError."""
        self._must_be_open(number)
        self._h2.send_headers(number, headers)

    async def send(self, number: int, data: bytes) -> None:
        """Send bytes as soon as the windows and the socket have room. Raises GoneError."""
        at = 0
        while at < len(data):
            stream = self._must_be_open(number)
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room > 0 and not self._paused:
                self._send_frame(number, data[at : at + room])
                at += room
            else:
                if stream.room is None:
                    stream.room = asyncio.get_running_loop().create_future()
                # Others may wait for it too.
                await asyncio.shield(stream.room)

    def end(self, number: int, trailers: Headers, *, heard_all: bool) -> None:
        """Send trailers and forget the stream. Not `heard_all`: what the client still sends will not be read. Raises
        GoneError."""
        self._must_be_open(number)
        self._h2.send_headers(number, trailers, end_stream=True)
        if not heard_all:
            self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
        self._forget(number)
        self._flush()

    def reset(self, number: int) -> None:
        """Give a stream up; its receiver hears no more."""
        if number in self._streams:
            self._h2.reset_stream(number, ErrorCodes.CANCEL)
            self._forget(number)
            self._flush()

    def taken(self, number: int) -> None:
        """All that came on a stream was read: as much may follow."""
        stream = self._streams.get(number)
        if stream is not None and (size := stream.untaken):
            stream.untaken = 0
            self._tell_room(number, stream.window.give_back(size))
            self._tell_room(0, self._window.give_back(size))

    def leave(self) -> None:
        """Take no more streams; those that are open go on."""
        if self._transport is not None and not self._leaving:
            self._leaving = True
            # h2 would let nothing follow it.
            self._transport.write(GoAwayFrame(0, last_stream_id=self._newest).serialize())

    def close(self) -> None:
        """Close the connection when all that was sent has left; what is open is lost."""
        if self._transport is not None:
            self._transport.close()
            self.connection_lost(None)

    # --- called by the event loop -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say how much may come."""
        # uvloop's transports are not derived from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES - DEFAULT_WINDOW_BYTES)
        self._flush()

    def connection_lost(self, _: Exception | None) -> None:
        """Tell everybody."""
        if self._transport is None:
            return
        self._transport = None
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.receiver.on_lost()
            stream.wake()
        self._on_lost(self)

    def pause_writing(self) -> None:
        """The socket is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._paused = False
        self._wake_all()

    def data_received(self, data: bytes) -> None:
        """Take whole frames; keep the rest for later."""
        data = self._rest + data if self._rest else data
        start = at = 0
        try:
            if self._preface:
                start = at = min(self._preface, len(data))
                self._preface -= at
                self._h2.receive_data(data[:at])
            while len(data) - at >= HEAD_BYTES:
                size = int.from_bytes(data[at : at + 3])
                if size > FRAME_BYTES:
                    # h2 would wait for the whole of it.
                    self._h2.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
                    raise FrameTooLargeError("a frame is too large")
                stop = at + HEAD_BYTES + size
                if stop > len(data):
                    break
                kind = data[at + 3]
                if kind in (DATA, GOAWAY):
                    self._hear(data[start:at])
                    start = stop
                    # With GOAWAY the client says that it opens no more streams. To h2 it would be the end of those that
                    # are open as well.
                    if kind == DATA:
                        number = int.from_bytes(data[at + 5 : at + HEAD_BYTES]) & LARGEST_NUMBER
                        self._take_data(number, data[at + 4], data[at + HEAD_BYTES : stop])
                at = stop
            self._hear(data[start:at])
        except ProtocolError:
            # h2 says goodbye with what was wrong.
            self._flush()
            self.close()
            return
        self._rest = data[at:]
        if self._paused and self._transport is not None and self._transport.get_write_buffer_size() > UNREAD_BYTES:
            self._transport.abort()

    # --- in ---------------------------------------------------------------------------------------------------------

    def _hear(self, frames: bytes) -> None:
        if frames:
            for event in self._h2.receive_data(frames):
                self._handle(event)
            self._flush()

    def _take_data(self, number: int, flags: int, data: bytes) -> None:
        size = len(data)
        stream = self._streams.get(number)
        if not (self._window.take_in(size) and (stream is None or stream.window.take_in(size))):
            self._h2.close_connection(ErrorCodes.FLOW_CONTROL_ERROR)
            raise FlowControlError("more came than there was room for")
        if stream is None or stream.ended:
            # It may belong to a request that was refused or has been answered; if not, h2 says so.
            self._tell_room(0, self._window.give_back(size))
            self._hear(_HEAD.pack(0, 0, DATA, 0, number))
            return
        if flags & PADDED:
            if not data or data[0] >= size:
                self._h2.close_connection(ErrorCodes.PROTOCOL_ERROR)
                raise ProtocolError("padding is longer than its frame")
            data = data[1 : size - data[0]]
        stream.untaken += size
        stream.receiver.on_data(data)
        if flags & END_STREAM and number in self._streams:
            # To h2 it is the end as trailers without a header are: it does not count what came.
            self._hear(_HEAD.pack(0, 0, HEADERS, END_STREAM | END_HEADERS, number))

    def _handle(self, event: Event) -> None:
        match event:
            case WindowUpdated() if event.stream_id:
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.wake()
            case WindowUpdated() | RemoteSettingsChanged():
                self._wake_all()
            case RequestReceived():
                self._begin(event.stream_id, [(n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers])
            case StreamEnded():
                if (stream := self._streams.get(event.stream_id)) is not None:
                    stream.ended = True
                    stream.receiver.on_end()
            case StreamReset():
                if (stream := self._forget(event.stream_id)) is not None:
                    stream.receiver.on_lost()
                    stream.wake()

    def _begin(self, number: int, headers: Headers) -> None:
        if self._leaving:
            # The client may have given it up in the same breath.
            with suppress(StreamClosedError):
                self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
        else:
            self._newest = number
            self._streams[number] = _Stream(self._accept(self, number, headers))

    def _forget(self, number: int) -> _Stream | None:
        # What nobody read must not count against the connection's window for ever.
        self.taken(number)
        return self._streams.pop(number, None)

    # --- out --------------------------------------------------------------------------------------------------------

    def _must_be_open(self, number: int) -> _Stream:
        if (stream := self._streams.get(number)) is None:
            raise GoneError
        return stream

    def _send_frame(self, number: int, data: bytes) -> None:
        # Not through h2: under load that costs 30 us a frame. It only has to know what is left of the windows.
        size = len(data)
        self._h2.outbound_flow_control_window -= size
        self._h2.streams[number].outbound_flow_control_window -= size
        self._flush()
        assert self._transport is not None
        self._transport.write(_HEAD.pack(size >> 8, size & 255, DATA, 0, number) + data)

    def _tell_room(self, number: int, size: int) -> None:
        if size and self._transport is not None:
            self._transport.write(_WINDOW_UPDATE.pack(0, 4, WINDOW_UPDATE, 0, number, size))

    def _flush(self) -> None:
        """Give the socket what h2 has for it."""
        if self._transport is not None and (data := self._h2.data_to_send()):
            self._transport.write(data)

    def _wake_all(self) -> None:
        for stream in self._streams.values():
            stream.wake()
