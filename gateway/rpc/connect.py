"""Connect: frames of many channels over one call. `Connection` is the call without its transport: requests in, batches
out.

server gives it a gRPC stream; a bridge in the same process gives it its own callbacks. It finds a frame's method in
the table that direct calls use. Nothing is queued for a slow channel: its feeds are not read until it acknowledges
what it has.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from google.protobuf.message import Message

from agentspace.v1 import annotations_pb2, error_pb2, frame_pb2, gateway_service_pb2
from gateway.domain import turn_event
from gateway.domain.access import Credentials, Principal
from gateway.domain.error import GatewayError, invalid
from gateway.rpc.methods import Calls, Feed, Method, members_by_type

DEFAULT_WINDOW_BYTES = 1024 * 1024
TAKE_CHARACTERS = 64 * 1024
BATCH_FRAMES = 512
REQUESTS_AT_ONCE = 256
CHANNELS_AT_ONCE = 100_000

Delivery = tuple[Message, int, Sequence[tuple[int, str]]]
"""What some channels get: the member of a ServerFrame, or a ChannelClosed; how many bytes the ServerFrame would have;
and to whom it goes, as (channel, id of the request)."""

FRAME_MEMBERS = members_by_type(frame_pb2.ServerFrame, "body")
"""The name of a ServerFrame's member by the class of its value."""
_FIELDS = {cls: frame_pb2.ServerFrame.DESCRIPTOR.fields_by_name[name] for cls, name in FRAME_MEMBERS.items()}
_LEVEL = {cls: field.GetOptions().Extensions[annotations_pb2.frame].level for cls, field in _FIELDS.items()}
_HEAD_BYTES = {cls: 2 if field.number < 16 else 3 for cls, field in _FIELDS.items()}
"""What a member takes before its first byte, if it has less than 128: its tag and its length."""
_FRAME_TYPE = {
    field.name: field.GetOptions().Extensions[annotations_pb2.frame].type
    for field in frame_pb2.ClientFrame.DESCRIPTOR.oneofs_by_name["body"].fields
}


class _Channel:
    """One client connection."""

    __slots__ = ("caller", "held", "level", "number", "reads", "streams", "tasks", "unacknowledged", "window")

    def __init__(self, number: int, caller: Principal, level: int, window: int) -> None:
        self.number = number
        self.caller = caller
        self.level = level
        self.window = window
        self.unacknowledged = 0
        self.streams: set[_Stream] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.reads: set[asyncio.Task[None]] = set()
        """Those of the tasks that may end with the channel."""
        self.held: deque[frame_pb2.ClientFrame] = deque()

    @property
    def full(self) -> bool:
        """What is on its way fills the window."""
        return self.unacknowledged >= self.window

    @property
    def requests(self) -> int:
        """How many are open, those held back included."""
        return len(self.tasks) + len(self.streams) + len(self.held)


class _Stream:
    """One open request of a channel that a feed answers."""

    __slots__ = ("channel", "connection", "feed", "recipient", "watched")

    def __init__(self, connection: "Connection", channel: _Channel, request_id: str, watched: str) -> None:
        self.connection = connection
        self.channel = channel
        self.recipient = channel.number, request_id
        self.watched = watched
        self.feed: Feed | None = None

    def wake(self) -> None:
        connection = self.connection
        connection.awake[self] = None
        if not connection.is_ready:
            connection.is_ready = True
            connection.on_ready()


class Connection:
    """One call of Connect. `on_ready` is called when `collect` has something to give; `spawn` starts the tasks of
    requests; `vouched` as in Credentials."""

    def __init__(
        self,
        methods: list[Method],
        calls: Calls,
        credentials: Credentials,
        on_ready: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        *,
        vouched: bool = False,
    ) -> None:
        self._methods = {method.frame: method for method in methods if method.frame}
        self._calls = calls
        self._credentials = credentials
        self._spawn = spawn
        self._vouched = vouched
        self._channels: dict[int, _Channel] = {}
        self._answers: deque[Delivery] = deque()
        self.on_ready = on_ready
        self.awake: dict[_Stream, None] = {}
        self.is_ready = False
        self.ending = False
        self.urgent = False
        """There is an answer to a single question, which is worth a batch of its own."""

    # --- in ---------------------------------------------------------------------------------------------------------

    def receive(self, batch: Iterable[gateway_service_pb2.ChannelRequest]) -> None:
        """Take a batch from the peer."""
        for request in batch:
            action = request.WhichOneof("action")
            if action == "open":
                self._open(request.channel, request.open)
            elif (channel := self._channels.get(request.channel)) is None:
                continue
            elif action == "frame":
                self._frame(channel, request.frame)
            elif action == "acknowledged_bytes":
                channel.unacknowledged -= request.acknowledged_bytes
                self._go_on(channel)
            elif action == "close":
                self._close(channel)

    def close(self) -> None:
        """The call is over."""
        for channel in tuple(self._channels.values()):
            self._close(channel)

    @property
    def backlog(self) -> int:
        """Answers that wait to be collected. Who sees many reads no more requests."""
        return len(self._answers)

    def _open(self, number: int, opening: gateway_service_pb2.ChannelOpen) -> None:
        if number in self._channels:
            self._refuse(self._channels[number])
            return
        if len(self._channels) >= CHANNELS_AT_ONCE:
            self._send_closed([number], gateway_service_pb2.CLOSE_REASON_PROTOCOL)
            return
        try:
            caller = self._credentials.identify(opening.bearer_token, vouched=self._vouched)
        except GatewayError:
            self._send_closed([number], gateway_service_pb2.CLOSE_REASON_UNAUTHENTICATED)
            return
        window = opening.window_bytes or DEFAULT_WINDOW_BYTES
        self._channels[number] = _Channel(number, caller, opening.level or 1, window)

    def _close(self, channel: _Channel) -> None:
        self._channels.pop(channel.number, None)
        channel.held.clear()
        for task in channel.reads:
            task.cancel()
        for stream in tuple(channel.streams):
            self._end(stream)

    def _refuse(self, channel: _Channel) -> None:
        """The peer broke a rule of Connect."""
        self._close(channel)
        self._send_closed([channel.number], gateway_service_pb2.CLOSE_REASON_PROTOCOL)

    def _go_on(self, channel: _Channel) -> None:
        """There may be room in the window again."""
        if channel.full:
            return
        for stream in channel.streams:
            stream.wake()
        held, channel.held = channel.held, deque()
        for frame in held:
            self._frame(channel, frame)

    def _frame(self, channel: _Channel, frame: frame_pb2.ClientFrame) -> None:
        body = frame.WhichOneof("body")
        if body is None:
            self._answer(channel, frame.id, turn_event.error_message(invalid("type", "expected a known frame")))
        elif body == "session_unwatch":
            self._unwatch(channel, frame.id, frame.session_unwatch.session_id)
        elif channel.requests >= REQUESTS_AT_ONCE and channel.full:
            self._refuse(channel)
        elif channel.requests >= REQUESTS_AT_ONCE:
            error = GatewayError(
                error_pb2.ERROR_REASON_TOO_MANY_STREAMS,
                f"{REQUESTS_AT_ONCE} requests are open on this connection",
                metadata={"limit": str(REQUESTS_AT_ONCE)},
            )
            self._answer(channel, frame.id, turn_event.error_message(error))
        elif channel.full:
            # Its answer would wait here for a peer that does not read.
            channel.held.append(frame)
        else:
            method = self._methods[_FRAME_TYPE[body]]
            request: Message = getattr(frame, body)
            serve = self._serve_unary if method.stream is None else self._serve_stream
            task = self._spawn(serve(channel, frame.id, method, request))
            channel.tasks.add(task)
            task.add_done_callback(channel.tasks.discard)
            if method.safe and method.stream is None:
                channel.reads.add(task)
                task.add_done_callback(channel.reads.discard)

    async def _serve_unary(self, channel: _Channel, request_id: str, method: Method, request: Message) -> None:
        try:
            response = await self._calls.unary(method, request, channel.caller)
        except GatewayError as error:
            response = turn_event.error_message(error)
        self._answer(channel, request_id, response)

    async def _serve_stream(self, channel: _Channel, request_id: str, method: Method, request: Message) -> None:
        watched = getattr(request, "session_id", "") if method.frame == "session.watch" else ""
        stream = _Stream(self, channel, request_id, watched)
        try:
            feed = await self._calls.stream(method, request, channel.caller, stream.wake)
        except GatewayError as error:
            self._answer(channel, request_id, turn_event.error_message(error))
            return
        if channel.number not in self._channels:
            feed.close()
            return
        stream.feed = feed
        channel.streams.add(stream)
        stream.wake()

    def _unwatch(self, channel: _Channel, request_id: str, session: str) -> None:
        wanted = session.rsplit(":", 1)[-1]
        for stream in tuple(channel.streams):
            if stream.watched and stream.watched.rsplit(":", 1)[-1] == wanted:
                self._end(stream)
        self._answer(channel, request_id, frame_pb2.SessionUnwatched(session_id=wanted))

    def _end(self, stream: _Stream) -> None:
        stream.channel.streams.discard(stream)
        self.awake.pop(stream, None)
        if stream.feed is not None:
            stream.feed.close()

    # --- out --------------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Tell every channel, after what is ready for it, that the gateway goes down. When `collect` has given that,
        the call is to end."""
        self.ending = True
        self._signal()

    def _send_closed(self, numbers: list[int], reason: gateway_service_pb2.CloseReason.ValueType) -> None:
        self._answers.append(_closed(numbers, reason))
        self._signal()

    def _answer(self, channel: _Channel, request_id: str, body: Message) -> None:
        if channel.number in self._channels:
            size = frame_bytes(body)
            channel.unacknowledged += size
            self._answers.append((body, size, [(channel.number, request_id)]))
            self.urgent = True
            self._signal()

    def _signal(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self.on_ready()

    def collect(self) -> list[Delivery]:
        """The next batch; empty when there is nothing, until `on_ready` is called again."""
        self.urgent = False
        batch: list[Delivery] = []
        while self._answers and len(batch) < BATCH_FRAMES:
            batch.append(self._answers.popleft())
        awake, self.awake = self.awake, {}
        # What one list of items became: watchers at the same place of a log are given the same list.
        given: dict[tuple[int, int], tuple[Sequence[Message], list[tuple[int, str]], int]] = {}
        for stream in awake:
            if len(batch) >= BATCH_FRAMES:
                self.awake[stream] = None
                continue
            channel, feed = stream.channel, stream.feed
            if feed is None or channel.unacknowledged >= channel.window:
                continue
            if items := feed.take(TAKE_CHARACTERS):
                level = channel.level
                place = id(items), level
                if place in given:
                    _, recipients, total = given[place]
                    recipients.append(stream.recipient)
                else:
                    recipients, total = [stream.recipient], 0
                    for item in items:
                        if _LEVEL[type(item)] <= level:
                            size = frame_bytes(item)
                            total += size
                            batch.append((item, size, recipients))
                    # With the list itself: ids are only unique among the living.
                    given[place] = items, recipients, total
                channel.unacknowledged += total
            if feed.done:
                self._end(stream)
        if self.ending and not (self._answers or self.awake):
            batch.append(_closed(list(self._channels), gateway_service_pb2.CLOSE_REASON_RESTART))
            self.close()
        self.is_ready = bool(self._answers or self.awake)
        if self.is_ready:
            self.on_ready()
        return batch


def frame_bytes(body: Message) -> int:
    """The size on the wire of the ServerFrame with this member."""
    size = body.ByteSize()
    head = _HEAD_BYTES[type(body)]
    # A length has seven bits a byte.
    return size + head if size < 128 else size + head + (size.bit_length() - 1) // 7


def _closed(numbers: list[int], reason: gateway_service_pb2.CloseReason.ValueType) -> Delivery:
    return gateway_service_pb2.ChannelClosed(reason=reason), 0, [(number, "") for number in numbers]
