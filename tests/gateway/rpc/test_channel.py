"""channel.py: when a channel has to wait, and how streams tell that they have something."""

from dataclasses import dataclass, field

from agentspace.v1.frame_pb2 import ClientFrame
from gateway.domain.access import LOCAL
from gateway.rpc.channel import ANSWERS_AT_ONCE, Channel, Stream
from gateway.rpc.pace import LATER, SOON


@dataclass
class Collector:
    """A connection that counts how often it is told that something is ready."""

    awake: dict[Stream, None] = field(default_factory=dict)
    haste: int = 0
    told: list[int] = field(default_factory=list)

    def on_ready(self, haste: int) -> None:
        self.told.append(haste)


def channel(window: int = 100) -> Channel:
    return Channel(7, LOCAL, 2, window)


def test_a_channel_is_full_when_its_window_is() -> None:
    one = channel()
    one.unacknowledged = 99
    assert not one.full
    assert not one.busy
    one.unacknowledged = 100
    assert one.full
    assert one.busy


def test_a_channel_is_busy_with_a_few_answers_whatever_its_window() -> None:
    one = channel()
    streams = [Stream(Collector(), one, str(number), "") for number in range(ANSWERS_AT_ONCE)]
    one.answering.update(streams[1:])
    assert not one.busy
    one.answering.add(streams[0])
    assert one.busy
    assert not one.full


def test_requests_are_those_that_are_open_or_wait() -> None:
    one = channel()
    one.streams.add(Stream(Collector(), one, "a", ""))
    one.held.append((ClientFrame(id="b"), 3))
    assert one.requests == 2


def test_streams_wake_their_connection_once_and_are_all_remembered() -> None:
    collector, one = Collector(), channel()
    first, second = (Stream(collector, one, name, "") for name in "ab")
    for stream in (first, second, first):
        stream.wake(False)
    assert (list(collector.awake), collector.told) == ([first, second], [LATER])
    assert [stream.recipient for stream in collector.awake] == [(7, "a"), (7, "b")]


def test_streams_tell_their_connection_again_when_they_are_in_more_of_a_hurry() -> None:
    collector, one = Collector(), channel()
    first, second = (Stream(collector, one, name, "") for name in "ab")
    for stream, soon in ((first, False), (second, True), (first, True), (second, False)):
        stream.wake(soon)
    assert collector.told == [LATER, SOON]
