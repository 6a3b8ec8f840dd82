"""channels.py with a recording link and recording sockets."""

import json
from typing import Any

import pytest
from google.protobuf.message import Message

from agentspace.v1 import gateway_service_pb2
from agentspace.v1.frame_pb2 import ServerFrame
from agentspace.v1.gateway_service_pb2 import ChannelClosed, ChannelRequest
from agentspace.v1.turn_pb2 import Heartbeat
from bridge.channels import WINDOW_BYTES, Channel, Channels
from bridge.closing import RESTART, UNAUTHENTICATED, Closing
from bridge.frames import Codec
from bridge.link import Delivery
from tests.bridge.test_text_frame import texts_of
from tests.fixtures.deliveries import delivery

CODECS = [Codec(1), Codec(2)]
ASK = '{"type":"chat.send","id":"r","content":"x"}'


class RecordingLink:
    """Only what channels use of a link."""

    def __init__(self) -> None:
        self.connected = True
        self.sent: list[ChannelRequest] = []

    def send(self, request: ChannelRequest) -> None:
        self.sent.append(request)

    def actions(self) -> list[str | None]:
        return [request.WhichOneof("action") for request in self.sent]


class RecordingSocket:
    """A socket that takes everything, or is full."""

    def __init__(self) -> None:
        self.full = False
        self.writes: list[bytes] = []
        self.closings: list[Closing] = []

    def write(self, frames: bytes) -> bool:
        assert not self.closings
        self.writes.append(frames)
        return not self.full

    def close(self, closing: Closing) -> None:
        self.closings.append(closing)

    def read(self) -> list[Any]:
        return [json.loads(text) for frames in self.writes for text in texts_of(frames)]


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


@pytest.fixture
def channels(link: RecordingLink) -> Channels:
    return Channels(link, CODECS)  # type: ignore[arg-type]


def opened(channels: Channels, level: int = 1, token: str = "") -> tuple[Channel, RecordingSocket]:
    socket = RecordingSocket()
    channel = channels.channel(level, socket, token)
    channel.receive(ASK)
    return channel, socket


def batch(*items: tuple[list[tuple[int, str]], ServerFrame]) -> list[Delivery]:
    return [delivery(frame, *to) for to, frame in items]


def delta(text: str) -> ServerFrame:
    return ServerFrame(chat_stream_delta={"delta": text, "turn_id": "t", "seq": 1})


def test_first_frame_opens_the_channel(channels: Channels, link: RecordingLink) -> None:
    channel, _ = opened(channels, 2, "secret")
    channel.receive(ASK)
    assert link.actions() == ["open", "frame", "frame"]
    opening = link.sent[0].open
    assert (opening.bearer_token, opening.level, opening.window_bytes) == ("secret", 2, WINDOW_BYTES)
    channel.end()
    channel.end()
    assert link.actions()[3:] == ["close"]


def test_unused_channel_is_never_mentioned(channels: Channels, link: RecordingLink) -> None:
    channels.channel(1, RecordingSocket(), "").end()
    assert link.sent == []


def test_numbers_are_not_used_again(channels: Channels) -> None:
    first, _ = opened(channels)
    number = first.number
    first.end()
    assert opened(channels)[0].number > number


def test_one_body_reaches_each_recipient_at_its_level(channels: Channels) -> None:
    (a, old), (b, new) = opened(channels, 1), opened(channels, 2)
    channels.on_batch(batch(([(a.number, "ra"), (b.number, "rb"), (99, "gone")], delta("x"))))
    assert old.read() == [{"type": "chat.stream.delta", "requestId": "ra", "delta": "x"}]
    assert (new.read()[0]["requestId"], new.read()[0]["turnId"]) == ("rb", "t")
    assert (channels.received, channels.sent) == (2, 2)


def test_a_batch_is_one_write_for_each_socket(channels: Channels) -> None:
    channel, socket = opened(channels)
    hidden = ServerFrame(heartbeat={"session_id": "s"})
    channels.on_batch(batch(*[([(channel.number, "r")], frame) for frame in (delta("a"), hidden, delta("b"))]))
    assert [len(texts_of(frames)) for frames in socket.writes] == [2]
    assert [frame["delta"] for frame in socket.read()] == ["a", "b"]


def test_a_batch_that_breaks_off_leaves_nothing_unwritten(channels: Channels, monkeypatch: pytest.MonkeyPatch) -> None:
    channel, socket = opened(channels)
    bad = ServerFrame(heartbeat={"session_id": "s"})
    encode = CODECS[0].encode_tail

    def breaks(body: Message) -> bytes | None:
        if isinstance(body, Heartbeat):
            raise OverflowError
        return encode(body)

    monkeypatch.setattr(CODECS[0], "encode_tail", breaks)
    with pytest.raises(OverflowError):
        channels.on_batch(batch(*[([(channel.number, "r")], frame) for frame in (delta("a"), bad)]))
    channels.on_batch(batch(([(channel.number, "r")], delta("b"))))
    assert [frame["delta"] for frame in socket.read()] == ["a", "b"]


def test_acknowledgement_waits_for_half_the_window(channels: Channels, link: RecordingLink) -> None:
    channel, _ = opened(channels)
    frame = delta("x" * (WINDOW_BYTES // 4))
    for _ in range(2):
        channels.on_batch(batch(([(channel.number, "r")], frame)))
    assert link.sent[-1].acknowledged_bytes == 2 * frame.ByteSize()
    assert link.actions().count("acknowledged_bytes") == 1


def test_frames_a_level_does_not_show_are_acknowledged_too(channels: Channels, link: RecordingLink) -> None:
    channel, socket = opened(channels)
    hidden = ServerFrame(chat_stream_thinking={"delta": "x" * WINDOW_BYTES})
    channels.on_batch(batch(([(channel.number, "r")], hidden)))
    assert socket.writes == []
    assert link.sent[-1].acknowledged_bytes == hidden.ByteSize()


def test_slow_socket_acknowledges_when_drained(channels: Channels, link: RecordingLink) -> None:
    channel, socket = opened(channels)
    socket.full = True
    frame = delta("x" * WINDOW_BYTES)
    channels.on_batch(batch(([(channel.number, "r")], frame)))
    assert "acknowledged_bytes" not in link.actions()
    channel.drained()
    assert link.sent[-1].acknowledged_bytes == frame.ByteSize()


def test_without_link_the_client_is_told_at_once(channels: Channels, link: RecordingLink) -> None:
    link.connected = False
    _, socket = opened(channels, 2)
    assert socket.read()[0]["code"] == "GATEWAY_UNREACHABLE"
    assert link.sent == []


def test_lost_link_ends_every_channel(channels: Channels, link: RecordingLink) -> None:
    (a, old), (_, new) = opened(channels, 1), opened(channels, 2)
    idle = RecordingSocket()
    channels.channel(2, idle, "")
    channels.on_lost()
    assert (old.read()[0]["requestId"], old.closings) == ("r", [])
    assert (new.closings, idle.closings) == ([RESTART], [])
    assert channels.generation == 1
    a.receive(ASK)
    assert link.actions()[-2:] == ["open", "frame"], "a level 1 connection goes on, on a new channel"


def test_bytes_of_a_lost_channel_are_not_acknowledged_on_the_next(channels: Channels, link: RecordingLink) -> None:
    channel, socket = opened(channels)
    socket.full = True
    channels.on_batch(batch(([(channel.number, "r")], delta("x" * WINDOW_BYTES))))
    channels.on_lost()
    channel.receive(ASK)
    channel.drained()
    assert "acknowledged_bytes" not in link.actions()


def test_closed_channel_gets_what_came_before(channels: Channels) -> None:
    channel, socket = opened(channels)
    last = batch(([(channel.number, "r")], delta("last")))
    closing = ChannelClosed(reason=gateway_service_pb2.CLOSE_REASON_UNAUTHENTICATED)
    channels.on_batch([*last, (closing, 0, [(channel.number, ""), (99, "")])])
    assert (socket.read()[0]["delta"], socket.closings) == ("last", [UNAUTHENTICATED])


def test_recipients_with_other_ids_get_frames_of_their_own(channels: Channels) -> None:
    found = [opened(channels, level) for level in (2, 2, 1, 2)]
    asked = ["a", "a", "b", "c"]
    to = [(channel.number, request_id) for (channel, _), request_id in zip(found, asked, strict=True)]
    channels.on_batch(batch((to, delta("x"))))
    assert [socket.read()[0]["requestId"] for _, socket in found] == asked
    assert ["turnId" in socket.read()[0] for _, socket in found] == [True, True, False, True]
