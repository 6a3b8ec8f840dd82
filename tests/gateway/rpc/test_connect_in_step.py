"""connect.py: watchers who follow the one before them get what they would have got alone, whatever comes between."""

import random

import pytest

from agentspace.v1 import frame_pb2, turn_pb2
from agentspace.v1.gateway_service_pb2 import ChannelOpen, ChannelRequest
from gateway.domain import turn_event
from gateway.domain.access import Credentials
from gateway.domain.message import ContentBlock, Message
from gateway.domain.turn import COMPLETED, RUNNING, Turn
from gateway.domain.turn_log import TEXT, TurnLog
from gateway.rpc.channel import Stream
from gateway.rpc.connect import Connection
from gateway.rpc.methods import Calls
from gateway.usecases.live_sessions import LiveSession
from gateway.usecases.watch_session import HEARTBEAT_SECONDS, Feed
from tests.gateway.running import shared_out

WATCHERS = {1: (0, 2), 2: (0, 2), 3: (3000, 2), 4: (3000, 2), 5: (0, 1), 6: (90_000, 2)}
"""By channel: window and level."""
FRAME_ROOM = 1000
"""More than a frame of these deltas takes beside its text."""


class Session:
    """A session with a turn that grows, and who reads it, each over a channel of its own of one connection."""

    def __init__(self) -> None:
        self.live = LiveSession("session", 1, 0)
        self.connection = Connection(
            [], Calls(None, None, None), Credentials("token", trust_local=True), _nothing, _none
        )  # type: ignore[arg-type]
        self.frames: dict[int, list[frame_pb2.ServerFrame]] = {}
        self.unacknowledged: dict[int, int] = {}
        self.now = 0.0
        self.turns = 0
        self.questions: list[int] = []
        """Their numbers; level 1 does not have them."""
        self.feeds = [self.reader(channel, window, level) for channel, (window, level) in WATCHERS.items()]
        self.begin()

    def reader(self, number: int, window: int, level: int, turn: str = "", after_seq: int = 0) -> Feed:
        opening = ChannelOpen(level=level, window_bytes=window)
        self.connection.receive([ChannelRequest(channel=number, open=opening)])
        channel = self.connection._channels[number]
        stream = Stream(self.connection, channel, "r", "" if turn else "session")
        channel.streams.add(stream)
        stream.feed = feed = Feed(self.live, after_seq, turn, stream.wake, _none, _none, lambda _: None, self.now)  # type: ignore[arg-type]
        self.frames[number], self.unacknowledged[number] = [], 0
        return feed

    def begin(self) -> None:
        self.turns += 1
        turn_id = f"turn_{self.turns}"
        self.turn = Turn(turn_id, "session", "m", RUNNING, "model", 1)
        question = Message("m", "session", turn_id, 1, (ContentBlock(TEXT, "?"),), "", 1)
        seq = self.live.log.append_message(question)
        self.questions.append(seq)
        self.sender = 100 + self.turns
        self.reader(self.sender, 0, 2, turn_id, seq)
        self.live.log.append_started(turn_event.started(self.turn))
        self.text = TurnLog(turn_id, "m", "model")
        self.text.open_block(TEXT)
        self.live.notify()

    def say(self, text: str) -> None:
        self.text.append(text)
        self.live.log.append_deltas(self.text)
        self.live.notify()

    def end(self) -> None:
        self.live.log.append_ended(turn_event.ended(self.turn._replace(state=COMPLETED)))
        self.live.notify()

    def beat(self) -> None:
        self.now += HEARTBEAT_SECONDS
        for feed in self.feeds:
            feed.pulse(self.now)

    def collect(self) -> None:
        batch = self.connection.collect()
        for channel, _, frame in shared_out(batch)[0]:
            self.frames[channel].append(frame)
            self.unacknowledged[channel] += frame.ByteSize()

    def acknowledge(self, channel: int) -> None:
        self.connection.receive([ChannelRequest(channel=channel, acknowledged_bytes=self.unacknowledged.pop(channel))])
        self.unacknowledged[channel] = 0

    def heard(self, channel: int) -> list[int]:
        """The numbers of the events that came, in the order in which they did."""
        numbers: list[int] = []
        for frame in self.frames[channel]:
            event = getattr(frame, frame.WhichOneof("body") or "")
            if seq := getattr(event, "seq", 0):
                numbers += range(getattr(event, "from_seq", 0) or seq, seq + 1)
        return numbers


def _nothing(_: int) -> None:
    return


def _none(*_: object) -> None:
    raise AssertionError


@pytest.mark.parametrize("seed", range(40))
def test_each_gets_every_event_once_and_no_more_than_its_window(seed: int) -> None:
    chance = random.Random(seed)
    session = Session()
    deeds = ["say"] * 12 + ["collect"] * 12 + ["acknowledge"] * 4 + ["long", "beat", "turn"]
    for _ in range(400):
        match chance.choice(deeds):
            case "say":
                session.say("x" * chance.randrange(400))
            case "long":
                session.say("y" * chance.randrange(40_000))
            case "collect":
                session.collect()
            case "acknowledge":
                session.acknowledge(chance.choice(list(WATCHERS)))
            case "beat":
                session.beat()
            case "turn":
                session.end()
                session.collect()
                session.begin()
        for channel, (window, _) in WATCHERS.items():
            if window:
                assert session.unacknowledged[channel] <= window + 64 * 1024 + 40_000 + FRAME_ROOM
    session.end()
    for _ in range(60):
        for channel in WATCHERS:
            session.acknowledge(channel)
        session.collect()
    session.collect()
    everything = list(range(1, session.live.log.last_seq + 1))
    for channel, (_, level) in WATCHERS.items():
        assert session.heard(channel) == [n for n in everything if level == 2 or n not in session.questions]
    texts = {
        channel: "".join(frame.chat_stream_delta.delta for frame in session.frames[channel]) for channel in WATCHERS
    }
    assert len(set(texts.values())) == 1
    for turn in range(1, session.turns + 1):
        last = session.frames[100 + turn][-1]
        assert last.chat_stream_end.turn_id == f"turn_{turn}"
        assert not session.connection._channels[100 + turn].streams
    assert not session.connection.haste


def test_a_follower_is_held_to_its_window_as_the_leader_is() -> None:
    session = Session()
    session.collect()
    for _ in range(100):
        session.say("x" * 100)
        session.collect()
    for channel in (3, 4):
        assert session.unacknowledged[channel] <= 3000 + FRAME_ROOM
        assert isinstance(session.feeds[channel - 1].take(10**6)[0], turn_pb2.TextDelta)
