"""http2_server.py against the client side of the h2 library, which raises when a rule is broken."""

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingAckReceived, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.rpc import http2_server as module
from gateway.rpc.http2_server import (
    FRAME_BYTES,
    LARGEST_HEADER_BYTES,
    STREAM_WINDOW_BYTES,
    STREAMS_AT_ONCE,
    WINDOW_BYTES,
    GoneError,
)
from tests.fixtures.cuts import cutting
from tests.gateway.http2_client import ANSWER, ASK, TRAILERS, Wire


@pytest.fixture
async def wire() -> Wire:
    wire = Wire()
    wire.pass_on()
    return wire


async def turns() -> None:
    """Let the tasks that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_request_and_its_answer(wire: Wire) -> None:
    number, ears = wire.ask()
    wire.client.send_data(number, b"question", end_stream=True)
    wire.pass_on()
    assert ears.headers == dict(ASK)
    assert (ears.data, ears.heard) == (b"question", ["end"])
    wire.server.send_headers(number, ANSWER)
    await wire.server.send(number, b"ans")
    await wire.server.send(number, b"wer")
    wire.server.end(number, TRAILERS, heard_all=True)
    wire.pass_on()
    assert wire.got(number) == b"answer"
    assert [type(e) for e in wire.events if not isinstance(e, DataReceived)][-3:] == [
        ResponseReceived,
        TrailersReceived,
        StreamEnded,
    ]
    assert not wire.resets()
    with pytest.raises(GoneError):
        await wire.server.send(number, b"late")


@given(cuts=st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_how_bytes_arrive(cuts: list[int]) -> None:
    async def run() -> None:
        wire = Wire(cutting(cuts))
        number, ears = wire.ask()
        for size in (0, 1, 100, 300):
            wire.client.send_data(number, b"d" * size, pad_length=3)
        wire.client.ping(b"12345678")
        wire.client.end_stream(number)
        wire.pass_on()
        assert (len(ears.data), ears.heard) == (401, ["end"])
        assert [event for event in wire.events if isinstance(event, PingAckReceived)]

    asyncio.run(run())


async def test_a_request_may_say_how_long_it_is(wire: Wire) -> None:
    number = wire.client.get_next_available_stream_id()
    wire.client.send_headers(number, [*ASK, ("content-length", "8")])
    wire.client.send_data(number, b"question", end_stream=True)
    wire.pass_on()
    assert not wire.closed
    assert (wire.streams[number].data, wire.streams[number].heard) == (b"question", ["end"])


async def test_a_stream_may_be_given_up_for_its_last_data(wire: Wire) -> None:
    number, ears = wire.ask()
    ears.on_data = lambda data: wire.server.reset(number)  # type: ignore[method-assign]
    wire.say(DataFrame(number, b"x", flags=["END_STREAM"]).serialize())
    assert wire.written == RstStreamFrame(number, error_code=ErrorCodes.CANCEL).serialize()
    assert (wire.closed, ears.heard) == (False, [])


async def test_the_bit_above_the_number_of_a_stream_means_nothing(wire: Wire) -> None:
    number, ears = wire.ask()
    frame = bytearray(DataFrame(number, b"x").serialize())
    frame[5] |= 0x80
    wire.say(bytes(frame))
    assert ears.data == b"x"


async def test_what_is_sent_keeps_to_the_windows(wire: Wire) -> None:
    # The client, which gives 64 KiB a stream and on the whole, would raise.
    (first, _), (second, _) = wire.ask(), wire.ask()
    data = bytes(range(256)) * 2000
    for number in (first, second):
        wire.server.send_headers(number, ANSWER)
    sending = [asyncio.create_task(wire.server.send(number, data)) for number in (first, second)]
    while not all(task.done() for task in sending):
        await asyncio.sleep(0)
        wire.pass_on()
    wire.pass_on()
    assert wire.got(first) == wire.got(second) == data


async def test_a_client_that_does_not_read_holds_up_itself_alone(wire: Wire) -> None:
    (slow, _), (quick, _) = wire.ask(), wire.ask()
    wire.client.increment_flow_control_window(10_000_000)
    wire.pass_on()
    wire.server.send_headers(slow, ANSWER)
    wire.server.send_headers(quick, ANSWER)
    sending = asyncio.create_task(wire.server.send(slow, bytes(100_000)))
    await turns()
    assert not sending.done()
    await wire.server.send(quick, bytes(60_000))
    wire.client.increment_flow_control_window(100_000, slow)
    wire.pass_on()
    await turns()
    assert sending.done()


async def test_windows_and_frames_change_with_the_clients_settings(wire: Wire) -> None:
    number, _ = wire.ask()
    wire.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 200_000, SettingCodes.MAX_FRAME_SIZE: 30_000})
    wire.client.increment_flow_control_window(1_000_000)
    wire.pass_on()
    wire.server.send_headers(number, ANSWER)
    await wire.server.send(number, bytes(150_000))
    wire.pass_on()
    sizes = [event.flow_controlled_length for event in wire.events if isinstance(event, DataReceived)]
    assert (sum(sizes), max(sizes)) == (150_000, 30_000)


async def test_a_full_socket_is_waited_for(wire: Wire) -> None:
    number, _ = wire.ask()
    wire.server.send_headers(number, ANSWER)
    wire.server.pause_writing()
    sending = [asyncio.create_task(wire.server.send(number, data)) for data in (b"a", b"b")]
    await turns()
    assert not any(task.done() for task in sending)
    wire.server.resume_writing()
    await asyncio.gather(*sending)
    wire.pass_on()
    assert wire.got(number) == b"ab"


async def test_who_waits_for_room_hears_that_the_client_has_gone(wire: Wire) -> None:
    (first, ears), (second, others) = wire.ask(), wire.ask()
    for number in (first, second):
        wire.server.send_headers(number, ANSWER)
    wire.server.pause_writing()
    sending = [asyncio.create_task(wire.server.send(number, b"x")) for number in (first, second)]
    await turns()
    wire.client.reset_stream(first, ErrorCodes.CANCEL)
    wire.pass_on()
    await turns()
    assert (ears.heard, others.heard) == (["lost"], [])
    assert isinstance(sending[0].exception(), GoneError)
    wire.server.connection_lost(None)
    await turns()
    assert isinstance(sending[1].exception(), GoneError)
    assert (ears.heard, others.heard) == (["lost"], ["lost"])
    assert wire.lost == [wire.server]


async def test_what_is_not_taken_gets_no_room_for_more(wire: Wire) -> None:
    number, ears = wire.ask()

    def fill() -> int:
        total = 0
        while size := min(wire.client.local_flow_control_window(number), FRAME_BYTES):
            wire.client.send_data(number, bytes(size))
            total += size
            wire.pass_on()
        return total

    assert fill() == STREAM_WINDOW_BYTES == len(ears.data)
    wire.server.taken(number)
    wire.pass_on()
    assert fill() == STREAM_WINDOW_BYTES
    # What was read of it leaves the connection as much room as before, and what was not does when it ends.
    for give_up in (wire.server.reset, wire.client.reset_stream):
        for _ in range(WINDOW_BYTES // STREAM_WINDOW_BYTES):
            give_up(number)
            wire.pass_on()
            number, _ = wire.ask()
            assert fill() == STREAM_WINDOW_BYTES


async def test_what_comes_for_a_stream_that_was_given_up_is_given_room_too(wire: Wire) -> None:
    number, _ = wire.ask()
    wire.server.reset(number)
    frame = DataFrame(number, bytes(FRAME_BYTES)).serialize()
    for _ in range(WINDOW_BYTES // FRAME_BYTES // 2 + 1):
        wire.say(frame)
    wire.pass_on()
    assert wire.client.outbound_flow_control_window > WINDOW_BYTES
    assert wire.resets()[0] == (number, ErrorCodes.CANCEL)
    assert not wire.closed


async def test_more_than_the_connections_window_ends_it(wire: Wire) -> None:
    for _ in range(WINDOW_BYTES // STREAM_WINDOW_BYTES):
        number, _ = wire.ask()
        wire.say(DataFrame(number, bytes(FRAME_BYTES)).serialize() * (STREAM_WINDOW_BYTES // FRAME_BYTES))
    number, ears = wire.ask()
    wire.say(DataFrame(number, b"").serialize())
    assert not wire.closed
    wire.say(DataFrame(number, b"x").serialize())
    assert wire.closed
    assert (ears.data, ears.heard) == (b"", ["lost"])


async def test_nothing_follows_the_end_of_a_question(wire: Wire) -> None:
    number, ears = wire.ask(end=True)
    wire.say(DataFrame(number, b"x").serialize())
    wire.pass_on()
    assert (ears.data, ears.heard) == (b"", ["end", "lost"])
    assert wire.resets() == [(number, ErrorCodes.STREAM_CLOSED)]


async def test_who_is_answered_before_the_end_of_the_question_is_told_to_send_no_more(wire: Wire) -> None:
    number, ears = wire.ask()
    wire.server.end(number, [*ANSWER, *TRAILERS], heard_all=False)
    wire.pass_on()
    assert wire.resets() == [(number, ErrorCodes.NO_ERROR)]
    assert not ears.heard
    # It does not count among those that are open.
    for _ in range(3):
        wire.server.end(wire.ask()[0], [*ANSWER, *TRAILERS], heard_all=False)
        wire.pass_on()
    assert wire.client.open_outbound_streams == 0


async def test_more_streams_than_are_allowed_end_the_connection() -> None:
    wire = Wire()
    encoder = Encoder()
    wire.say(wire.client.data_to_send())
    for number in range(1, 2 * STREAMS_AT_ONCE + 2, 2):
        assert not wire.closed
        wire.say(HeadersFrame(number, encoder.encode(ASK), flags=["END_HEADERS"]).serialize())
    assert wire.closed
    assert len(wire.streams) == STREAMS_AT_ONCE
    assert all(ears.heard == ["lost"] for ears in wire.streams.values())


async def test_a_server_that_leaves_ends_what_it_has_begun(wire: Wire) -> None:
    number, ears = wire.ask(end=True)
    # This one was on its way when the server said so.
    late = wire.client.get_next_available_stream_id()
    wire.client.send_headers(late, ASK, end_stream=True)
    underway = wire.client.data_to_send()
    wire.server.leave()
    wire.server.leave()
    goodbye, wire.written = bytes(wire.written), bytearray()
    assert goodbye == GoAwayFrame(0, last_stream_id=number).serialize()
    wire.say(underway)
    assert late not in wire.streams
    wire.server.end(number, [*ANSWER, *TRAILERS], heard_all=True)
    wire.pass_on()
    assert wire.resets() == [(late, ErrorCodes.REFUSED_STREAM)]
    assert ears.heard == ["end"]
    assert [event.stream_id for event in wire.events if isinstance(event, StreamEnded)] == [number]


async def test_what_comes_late_and_is_given_up_at_once_disturbs_nobody(wire: Wire) -> None:
    number, ears = wire.ask()
    wire.server.leave()
    encoder = Encoder()
    for late in range(3, 2 * WINDOW_BYTES // FRAME_BYTES + 7, 2):
        headers = HeadersFrame(late, encoder.encode(ASK), flags=["END_HEADERS"]).serialize()
        given_up = RstStreamFrame(late, error_code=ErrorCodes.CANCEL).serialize()
        wire.say(headers + DataFrame(late, bytes(FRAME_BYTES)).serialize() + given_up)
    assert not wire.closed
    wire.server.end(number, [*ANSWER, *TRAILERS], heard_all=True)
    assert not ears.heard


async def test_who_asks_and_does_not_read_is_cut_off(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREAD_BYTES", 100_000)
    ping = PingFrame(opaque_data=b"are you?").serialize()
    wire.say(ping * 1000)
    wire.server.pause_writing()
    wire.say(ping * 1000)
    assert not wire.aborted
    wire.say(ping * (100_000 // len(ping)))
    assert wire.aborted


async def test_a_client_that_leaves_is_answered_to_the_end(wire: Wire) -> None:
    number, ears = wire.ask()
    frames = [DataFrame(number, b"x").serialize(), GoAwayFrame(0).serialize(), DataFrame(number, b"y").serialize()]
    wire.say(b"".join(frames))
    wire.server.end(number, [*ANSWER, *TRAILERS], heard_all=False)
    wire.pass_on()
    assert (ears.data, ears.heard) == (b"xy", [])
    assert [event for event in wire.events if isinstance(event, StreamEnded)]


async def test_the_end_of_the_connection_is_told_once(wire: Wire) -> None:
    number, ears = wire.ask()
    wire.server.close()
    wire.server.connection_lost(None)
    assert (ears.heard, wire.lost, wire.closed) == (["lost"], [wire.server], True)
    with pytest.raises(GoneError):
        wire.server.send_headers(number, ANSWER)
    with pytest.raises(GoneError):
        wire.server.end(number, TRAILERS, heard_all=True)
    wire.server.reset(number)
    wire.server.taken(number)
    wire.server.leave()
    assert not wire.written


def _headers(number: int, block: bytes) -> bytes:
    return HeadersFrame(number, block, flags=["END_HEADERS"]).serialize()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"])
async def test_who_speaks_another_protocol_is_shown_out_at_once(said: bytes) -> None:
    wire = Wire()
    wire.say(said)
    assert wire.closed


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\x40\x01\x00\x00\x00\x00\x00\x01",
        PushPromiseFrame(1, 2, b"", flags=["END_HEADERS"]).serialize(),
        ContinuationFrame(1, b"", flags=["END_HEADERS"]).serialize(),
        _headers(2, Encoder().encode(ASK)),
        _headers(3, b"\xff\xff\xff\xff\xff\xff\xff"),
        _headers(3, Encoder().encode([("long", "x" * 4000)] * (LARGEST_HEADER_BYTES // 4000 + 1))),
        HeadersFrame(3, b"").serialize() + ContinuationFrame(3, bytes(16_000)).serialize() * 80,
        SettingsFrame(0).serialize()[:3] + b"\x04\x00\x00\x00\x00\x01",
        DataFrame(9, b"x").serialize(),
        DataFrame(1, b"\xff", flags=[]).serialize()[:4] + b"\x08\x00\x00\x00\x01\x01",
        b"".join(DataFrame(1, bytes(FRAME_BYTES)).serialize() for _ in range(STREAM_WINDOW_BYTES // FRAME_BYTES + 1)),
    ],
)
async def test_nonsense_ends_the_connection_and_is_told(wire: Wire, said: bytes) -> None:
    _, ears = wire.ask()
    wire.say(said)
    assert wire.closed
    assert ears.heard[-1:] == ["lost"]
    # The last it says is which rule was broken.
    assert wire.written[3] == 7


async def test_headers_that_are_no_good_are_the_calls_own_affair(wire: Wire) -> None:
    wire.say(_headers(1, Encoder().encode([("authorization", "Bearer x "), ("\u00e4", "\u00f6")])))
    assert not wire.closed
    assert wire.streams[1].headers["authorization"] == "Bearer x "
