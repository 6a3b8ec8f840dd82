"""http2_connection.py against the server side of the h2 library, which raises when a rule is broken."""

import asyncio
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PingAckReceived, RequestReceived, StreamReset
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    AltSvcFrame,
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from bridge import http2_connection as module
from bridge.http2_connection import WINDOW_BYTES, Connection, Headers, LostError
from tests.fixtures.cuts import cutting

ANSWER = [(":status", "200"), ("content-type", "text/plain")]


class Ears:
    """A receiver that remembers."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.data = b""
        self.sent = 0

    def on_headers(self, headers: Headers) -> None:
        self.heard.append(dict(headers))

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_sent(self) -> None:
        self.sent += 1

    def on_end(self) -> None:
        self.heard.append("end")

    def on_lost(self, code: int | None) -> None:
        self.heard.append(("lost", code))


class Wire:
    """A transport whose other end is a server; `pass_on` carries what either side has to say, until both are silent.

    cut: how what comes to the client is cut into pieces.
    """

    def __init__(self, cut: Callable[[bytes], Iterator[bytes]] = lambda data: iter([data])) -> None:
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.server.initiate_connection()
        self.events: list[Event] = []
        self.written = bytearray()
        self.aborted = False
        self._cut = cut
        self.client = Connection("gateway")
        self.client.connection_made(cast(asyncio.Transport, self))

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pass_on(self) -> None:
        """Say everything there is to say."""
        while True:
            up, self.written = bytes(self.written), bytearray()
            for event in self.server.receive_data(up) if up else ():
                self.events.append(event)
                if isinstance(event, DataReceived) and event.flow_controlled_length:
                    # At once, as a server does that reads.
                    self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            down = self.server.data_to_send()
            if not up and not down:
                return
            if down:
                self.say(down)

    def say(self, data: bytes) -> None:
        """Give bytes to the client."""
        for piece in self._cut(data):
            self.client.data_received(piece)

    def open(self, path: str = "/x") -> tuple[int, Ears]:
        """Open a stream; the server has its request."""
        ears = Ears()
        number = self.client.open(path, [("te", "trailers")], ears)
        self.pass_on()
        return number, ears

    def resets(self) -> list[tuple[int, int]]:
        """The streams that the client has reset, with its reasons."""
        return [(event.stream_id, int(event.error_code)) for event in self.events if isinstance(event, StreamReset)]


@pytest.fixture
async def wire() -> Wire:
    wire = Wire()
    wire.pass_on()
    await wire.client.settled
    return wire


async def test_a_request_and_its_answer(wire: Wire) -> None:
    number, ears = wire.open("/package.Service/Method")
    assert wire.client.send(number, b"question", end=True)
    wire.pass_on()
    [asked] = [event for event in wire.events if isinstance(event, RequestReceived)]
    assert dict(asked.headers) == {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "gateway",
        ":path": "/package.Service/Method",
        "te": "trailers",
    }
    wire.server.send_headers(number, ANSWER)
    wire.server.send_data(number, b"ans")
    wire.server.send_data(number, b"wer")
    wire.server.send_headers(number, [("grpc-status", "0")], end_stream=True)
    wire.pass_on()
    assert ears.data == b"answer"
    assert ears.heard == [dict(ANSWER), {"grpc-status": "0"}, "end"]
    assert not wire.resets()


@given(cuts=st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_how_bytes_arrive(cuts: list[int]) -> None:
    async def run() -> None:
        wire = Wire(cutting(cuts))
        number, ears = wire.open()
        wire.server.send_headers(number, [*ANSWER, ("long", "x" * 500)])
        for size in (0, 1, 100, 300):
            wire.server.send_data(number, b"d" * size)
        wire.server.ping(b"12345678")
        wire.server.send_headers(number, [("grpc-status", "0")], end_stream=True)
        wire.pass_on()
        assert len(ears.data) == 401
        assert ears.heard[-2:] == [{"grpc-status": "0"}, "end"]
        assert [event for event in wire.events if isinstance(event, PingAckReceived)]

    asyncio.run(run())


async def test_what_is_sent_keeps_to_the_windows(wire: Wire) -> None:
    # The server, which gives 64 KiB a stream and on the whole, would raise.
    (first, ears), (second, others) = wire.open(), wire.open()
    data = bytes(range(256)) * 2000
    assert not wire.client.send(first, data)
    assert not wire.client.send(second, data, end=True)
    assert ears.sent == others.sent == 0
    wire.pass_on()
    assert ears.sent == others.sent == 1
    for number in (first, second):
        assert b"".join(e.data for e in wire.events if isinstance(e, DataReceived) and e.stream_id == number) == data
    assert wire.client.send(first, b"more", end=True)
    wire.pass_on()
    assert not wire.resets()


async def test_windows_and_frames_change_with_the_servers_settings(wire: Wire) -> None:
    number, _ = wire.open()
    assert wire.client.send(number, b"x" * 50_000)
    # Less than is on its way already: the stream owes.
    wire.server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 20_000, SettingCodes.MAX_FRAME_SIZE: 30_000})
    wire.say(wire.server.data_to_send())
    assert not wire.client.send(number, b"y" * 100_000, end=True)
    wire.pass_on()
    sizes = [event.flow_controlled_length for event in wire.events if isinstance(event, DataReceived)]
    assert sum(sizes) == 150_000
    assert max(sizes) <= 20_000
    wire.server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 60_000})
    wire.pass_on()
    number, _ = wire.open()
    wire.events.clear()
    assert wire.client.send(number, b"z" * 60_000)
    wire.pass_on()
    assert [e.flow_controlled_length for e in wire.events if isinstance(e, DataReceived)] == [30_000, 30_000]


async def test_what_comes_is_given_room_for_more(wire: Wire) -> None:
    number, ears = wire.open()
    wire.server.send_headers(number, ANSWER)
    total = 0
    while total < 3 * WINDOW_BYTES:
        size = min(wire.server.local_flow_control_window(number), module.FRAME_BYTES)
        assert size > 0
        wire.server.send_data(number, bytes(size))
        total += size
        wire.pass_on()
    assert len(ears.data) == total


async def test_what_comes_for_a_stream_that_was_given_up_is_given_room_too(wire: Wire) -> None:
    number, ears = wire.open()
    wire.server.send_headers(number, ANSWER)
    wire.pass_on()
    wire.client.cancel(number)
    frame = DataFrame(number, bytes(module.FRAME_BYTES)).serialize()
    for _ in range(WINDOW_BYTES // module.FRAME_BYTES):
        wire.say(frame)
    before = wire.server.outbound_flow_control_window
    wire.pass_on()
    assert wire.server.outbound_flow_control_window > before
    assert wire.resets() == [(number, ErrorCodes.CANCEL)]
    assert (ears.heard, ears.data) == ([dict(ANSWER)], b"")


async def test_a_full_socket_is_waited_for(wire: Wire) -> None:
    number, ears = wire.open()
    wire.client.pause_writing()
    assert not wire.client.send(number, b"a")
    assert not wire.client.send(number, b"b")
    wire.pass_on()
    assert not [event for event in wire.events if isinstance(event, DataReceived)]
    wire.client.resume_writing()
    wire.pass_on()
    assert [event.data for event in wire.events if isinstance(event, DataReceived)] == [b"ab"]
    assert ears.sent == 1


async def test_a_reset_ends_one_stream_only(wire: Wire) -> None:
    (first, ears), (second, others) = wire.open(), wire.open()
    wire.server.reset_stream(first, ErrorCodes.REFUSED_STREAM)
    wire.server.send_headers(second, ANSWER, end_stream=True)
    wire.pass_on()
    assert ears.heard == [("lost", ErrorCodes.REFUSED_STREAM)]
    assert others.heard == [dict(ANSWER), "end"]
    assert wire.client.send(first, b"late")
    wire.pass_on()
    assert wire.client.usable


async def test_who_is_answered_before_the_end_of_the_question_sends_no_more(wire: Wire) -> None:
    number, _ = wire.open()
    wire.client.send(number, b"some")
    wire.pass_on()
    wire.server.send_headers(number, ANSWER, end_stream=True)
    wire.pass_on()
    assert wire.resets() == [(number, ErrorCodes.NO_ERROR)]
    assert wire.client.send(number, b"more")
    wire.pass_on()


async def test_a_server_that_leaves_ends_what_it_has_begun(wire: Wire) -> None:
    (first, ears), (_, others) = wire.open(), wire.open()
    wire.say(GoAwayFrame(0, last_stream_id=first).serialize())
    assert others.heard == [("lost", None)]
    assert not wire.client.usable
    with pytest.raises(LostError):
        wire.client.open("/x", [], Ears())
    wire.server.send_headers(first, ANSWER, end_stream=True)
    wire.pass_on()
    assert ears.heard == [dict(ANSWER), "end"]


async def test_a_server_that_leaves_and_does_not_end_is_given_up(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAVING_SECONDS", 0.01)
    number, ears = wire.open()
    wire.say(GoAwayFrame(0, last_stream_id=2**31 - 1).serialize())
    wire.say(GoAwayFrame(0, last_stream_id=number).serialize())
    assert not ears.heard
    async with asyncio.timeout(5):
        while not wire.aborted:
            await asyncio.sleep(0)
    assert ears.heard == [("lost", None)]


async def test_a_smaller_table_of_headers_is_kept_to(wire: Wire) -> None:
    wire.server.update_settings({SettingCodes.HEADER_TABLE_SIZE: 100})
    wire.server.update_settings({SettingCodes.HEADER_TABLE_SIZE: 100})
    wire.pass_on()
    for _ in range(2):
        wire.open("/" + "x" * 50)
    assert len([event for event in wire.events if isinstance(event, RequestReceived)]) == 2


async def test_the_end_of_the_connection_is_told_once(wire: Wire) -> None:
    number, ears = wire.open()
    wire.client.close()
    wire.client.connection_lost(None)
    assert ears.heard == [("lost", None)]
    assert wire.aborted
    assert wire.client.send(number, b"late")
    wire.client.cancel(number)
    with pytest.raises(LostError):
        wire.client.open("/x", [], Ears())


async def test_padding_and_torn_headers_are_understood(wire: Wire) -> None:
    number, ears = wire.open()
    block = Encoder().encode([(":status", "200"), ("a", "b")])
    wire.say(HeadersFrame(number, block[:3], pad_length=7, flags=["PADDED"]).serialize())
    wire.say(ContinuationFrame(number, block[3:], flags=["END_HEADERS"]).serialize())
    wire.say(AltSvcFrame(0, b"x", b"y").serialize())
    wire.say(DataFrame(number, b"data", pad_length=9, flags=["PADDED", "END_STREAM"]).serialize())
    assert ears.heard == [{":status": "200", "a": "b"}, "end"]
    assert ears.data == b"data"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x40\x01\x00\x00\x00\x00\x00\x01",
        PushPromiseFrame(1, 2, b"", flags=["END_HEADERS"]).serialize(),
        ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(),
        HeadersFrame(1, b"\xff\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"]).serialize(),
        HeadersFrame(
            1, Encoder().encode([("a", "\ud800".encode("utf-8", "surrogatepass"))]), flags=["END_HEADERS"]
        ).serialize(),
        HeadersFrame(1, b"").serialize() + ContinuationFrame(1, bytes(16_000)).serialize() * 80,
        SettingsFrame(0).serialize()[:3] + b"\x04\x00\x00\x00\x00\x01",
        DataFrame(1, b"\xff", flags=[]).serialize()[:4] + b"\x08\x00\x00\x00\x01\xff",
    ],
)
async def test_nonsense_closes_the_connection(said: bytes) -> None:
    wire = Wire()
    ears = Ears()
    wire.client.open("/x", [], ears)
    wire.say(said)
    assert wire.aborted
    assert ears.heard == [("lost", None)]
    with pytest.raises(LostError):
        await wire.client.settled


async def test_a_ping_is_answered(wire: Wire) -> None:
    wire.server.ping(b"are you?")
    wire.pass_on()
    assert [event.ping_data for event in wire.events if isinstance(event, PingAckReceived)] == [b"are you?"]


async def test_a_server_without_a_pulse_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.001)
    monkeypatch.setattr(module, "PONG_SECONDS", 0.2)
    wire = Wire()
    wire.pass_on()
    _, ears = wire.open()
    for _ in range(3):
        async with asyncio.timeout(5):
            while not wire.written:
                await asyncio.sleep(0)
        frame, _ = Frame.parse_frame_header(memoryview(bytes(wire.written))[:9])
        assert isinstance(frame, PingFrame)
        wire.pass_on()
        assert not wire.aborted
    async with asyncio.timeout(5):
        while not wire.aborted:
            await asyncio.sleep(0)
    assert ears.heard == [("lost", None)]
