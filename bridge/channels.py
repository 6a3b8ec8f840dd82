"""All connections' channels over one link: opens them, shares out what comes, and acknowledges what has left.

Called by websocket.py (what a client sends) and by the link (what the gateway sends); calls protocol.py. Nothing here
waits, so one slow socket cannot hold up another: its frames stay unacknowledged until they have left, and the gateway
stops at the channel's window.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Protocol as Interface

from google.protobuf.message import Message

from agentspace.v1.frame_pb2 import ClientFrame
from agentspace.v1.gateway_service_pb2 import ChannelClose, ChannelClosed, ChannelOpen, ChannelRequest, CloseReason
from bridge.closing import Closing
from bridge.frames import Codec
from bridge.link import Delivery, Link
from bridge.protocol import Action, Close, Forward, Protocol, Send
from bridge.text_frame import text_frame

WINDOW_BYTES = 256 * 1024
"""How many bytes of frames the gateway may have on the way to one socket."""
WORTH_ACKNOWLEDGING = WINDOW_BYTES // 2
"""Late and rarely: a message of its own for each small frame would cost more than the frame."""


class Outlet(Interface):
    """A socket as its channel sees it. Neither method waits."""

    def write(self, frames: bytes) -> bool:
        """Hand whole WebSocket frames to the transport. False: it is full; call Channel.drained when they have
        left."""

    def close(self, closing: Closing) -> None:
        """Close the socket in order, soon."""


class Channel:
    """One connection. The gateway knows it from its first frame on, by its number; until then the number is 0."""

    __slots__ = ("_channels", "_outlet", "_protocol", "_slow", "_token", "frames", "level", "number", "owed")

    def __init__(self, channels: "Channels", protocol: Protocol, outlet: Outlet, token: str) -> None:
        self.number = 0
        self.level = protocol.level
        self._channels = channels
        self._protocol = protocol
        self._outlet = outlet
        self._token = token
        self.frames: list[bytes] = []
        """What flush is to write."""
        self.owed = 0
        """Bytes of frames that are not acknowledged yet."""
        self._slow = False

    def receive(self, text: str | bytes) -> None:
        """Take a text frame of the client."""
        self._channels.received += 1
        self._act(self._protocol.receive(text))

    def answered(self, kind: type[Message], request_id: str) -> None:
        """A frame whose body is of the class `kind` goes to a client of level 1."""
        self._protocol.answered(kind, request_id)

    def flush(self) -> None:
        """Write the frames that wait."""
        if frames := self.frames:
            self.frames = []
            self._channels.sent += len(frames)
            if not self._outlet.write(frames[0] if len(frames) == 1 else b"".join(frames)):
                self._slow = True
        if self.owed >= WORTH_ACKNOWLEDGING and not self._slow:
            self._acknowledge()

    def drained(self) -> None:
        """Everything written has left the socket."""
        self._slow = False
        self._acknowledge()

    def lost(self) -> None:
        """The link is lost."""
        self.number = self.owed = 0
        self._act(self._protocol.lost())

    def closed(self, reason: CloseReason.ValueType) -> None:
        """The gateway closed the channel."""
        self.number = self.owed = 0
        self._act(self._protocol.closed(reason))

    def end(self) -> None:
        """The socket is gone."""
        if self.number:
            self._channels.remove(self)
            self.number = 0

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Forward(frame):
                    self._forward(frame)
                case Send(text):
                    self.frames.append(text_frame(text))
                    self.flush()
                case Close(closing):
                    self._outlet.close(closing)

    def _forward(self, frame: ClientFrame) -> None:
        link = self._channels.link
        if not link.connected:
            self._act(self._protocol.unreachable(frame))
            return
        if not self.number:
            self.number = self._channels.add(self)
            opening = ChannelOpen(bearer_token=self._token, level=self.level, window_bytes=WINDOW_BYTES)
            link.send(ChannelRequest(channel=self.number, open=opening))
        link.send(ChannelRequest(channel=self.number, frame=frame))

    def _acknowledge(self) -> None:
        if self.owed >= WORTH_ACKNOWLEDGING and self.number:
            self._channels.link.send(ChannelRequest(channel=self.number, acknowledged_bytes=self.owed))
            self.owed = 0


class Channels:
    """The channels open at the gateway, and how many frames went through (received, sent)."""

    def __init__(self, link: Link, codecs: Iterable[Codec]) -> None:
        self.link = link
        self.received = 0
        self.sent = 0
        self.generation = 0
        """Rises whenever the link is lost, so that what was learned over it can be forgotten."""
        self._codecs = {codec.level: codec for codec in codecs}
        self._open: dict[int, Channel] = {}
        self._numbers = count(1)

    def channel(self, level: int, outlet: Outlet, token: str) -> Channel:
        """Make the channel of a new connection. The gateway hears of it with its first frame."""
        return Channel(self, Protocol(self._codecs[level]), outlet, token)

    def add(self, channel: Channel) -> int:
        """Give a channel its number, which is never used again."""
        number = next(self._numbers)
        self._open[number] = channel
        return number

    def remove(self, channel: Channel) -> None:
        """Close a channel whose client is gone."""
        self._open.pop(channel.number, None)
        self.link.send(ChannelRequest(channel=channel.number, close=ChannelClose()))

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        """Share out what came together: a body is encoded once for each level, and each socket is written to once."""
        touched: list[Channel] = []
        try:
            for body, size, recipients in batch:
                if isinstance(body, ChannelClosed):
                    for number, _ in recipients:
                        if (channel := self._open.pop(number, None)) is not None:
                            channel.flush()
                            channel.closed(body.reason)
                else:
                    self._share(body, size, recipients, touched)
        finally:
            # Whatever happens: what is left here would never be written.
            for channel in touched:
                channel.flush()

    def on_lost(self) -> None:
        """Tell every open channel."""
        self.generation += 1
        channels, self._open = self._open, {}
        for channel in channels.values():
            channel.lost()

    def _share(self, body: Message, size: int, recipients: Sequence[tuple[int, str]], touched: list[Channel]) -> None:
        kind = type(body)
        tails: dict[int, bytes | None] = {}
        channels = self._open
        level, asked, frame = 0, "", None
        for number, request_id in recipients:
            channel = channels.get(number)
            if channel is None:
                continue
            if channel.level != level or request_id != asked:
                level, asked = channel.level, request_id
                codec = self._codecs[level]
                if level not in tails:
                    tails[level] = codec.encode_tail(body)
                tail = tails[level]
                frame = None if tail is None else text_frame(codec.join(tail, request_id))
            channel.owed += size
            frames = channel.frames
            if not frames:
                touched.append(channel)
            if frame is not None:
                frames.append(frame)
                if level == 1:
                    channel.answered(kind, request_id)
