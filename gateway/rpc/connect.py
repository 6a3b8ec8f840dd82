"""Connect: frames of many channels over one call. `Connection` is the call without its transport: requests in, batches
out.

server gives it a gRPC stream; a bridge in the same process gives it its own callbacks. It finds a frame's method in
the table that direct calls use. Nothing is queued for a slow channel: its feeds are not read until it acknowledges
what it has.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message

from agentspace.v1 import error_pb2, frame_pb2, gateway_service_pb2
from gateway.domain import turn_event
from gateway.domain.access import Credentials
from gateway.domain.error import GatewayError, invalid
from gateway.domain.ids import resolve_session
from gateway.rpc.channel import Channel, Stream
from gateway.rpc.frames import FRAME_TYPE, LEVEL, frame_bytes
from gateway.rpc.methods import Calls, Feed, Method
from gateway.rpc.pace import NOW, SOON

DEFAULT_WINDOW_BYTES = 1024 * 1024
TAKE_CHARACTERS = 64 * 1024
BATCH_FRAMES = 512
BATCH_BYTES = 4 * 1024 * 1024
"""A batch ends with the frame that brings it to so much."""
FRAME_BYTES = 16 * 1024 * 1024
"""The largest frame that is sent. A few of them behind a batch still fit into what gRPC takes, see server."""
REQUESTS_AT_ONCE = 256
SMALL_AND_LATE = "turn.wait"
"""The reading frame that does not count among a channel's ANSWERS_AT_ONCE."""
REQUEST_ID_CHARACTERS = 256
REFUSALS_BYTES = 4 * 1024 * 1024
"""How far over its window a channel may come by being told that it asks too much."""
HELD_BYTES = 8 * 1024 * 1024
"""How large the requests of a channel that are held back may be together."""
CHANNELS_AT_ONCE = 100_000

Delivery = tuple[Message, int, Sequence[tuple[int, str]]]
"""What some channels get: the member of a ServerFrame, or a ChannelClosed; how many bytes the ServerFrame would have;
and to whom it goes, as (channel, id of the request)."""


class Connection:
    """One call of Connect. `on_ready` is called when `collect` has something to give, and again when that is in more of
    a hurry, which it is told (see pace); `spawn` starts the tasks of requests; `vouched` as in Credentials."""

    def __init__(
        self,
        methods: list[Method],
        calls: Calls,
        credentials: Credentials,
        on_ready: Callable[[int], None],
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        *,
        vouched: bool = False,
    ) -> None:
        self._methods = {method.frame: method for method in methods if method.frame}
        self._calls = calls
        self._credentials = credentials
        self._spawn = spawn
        self._vouched = vouched
        self._channels: dict[int, Channel] = {}
        self._answers: deque[Delivery] = deque()
        self.on_ready = on_ready
        self.awake: dict[Stream, None] = {}
        self.haste = 0
        """How much of a hurry what is ready is in; 0 when there is nothing."""
        self.ending = False

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
        self._channels[number] = Channel(number, caller, opening.level or 1, window)

    def _close(self, channel: Channel) -> None:
        self._channels.pop(channel.number, None)
        channel.held.clear()
        channel.held_bytes = 0
        for task in channel.reads:
            task.cancel()
        for stream in tuple(channel.streams):
            self._end(stream)

    def _refuse(self, channel: Channel) -> None:
        """The peer broke a rule of Connect."""
        self._close(channel)
        self._send_closed([channel.number], gateway_service_pb2.CLOSE_REASON_PROTOCOL)

    def _go_on(self, channel: Channel) -> None:
        """There may be room in the window again."""
        if not channel.full:
            for stream in channel.streams:
                stream.wake(True)
            self._take_up(channel)

    def _take_up(self, channel: Channel) -> None:
        """Go on with what is held back."""
        while channel.held and not channel.busy:
            frame, size = channel.held.popleft()
            channel.held_bytes -= size
            self._start(channel, frame)

    def _frame(self, channel: Channel, frame: frame_pb2.ClientFrame) -> None:
        body = frame.WhichOneof("body")
        if len(frame.id) > REQUEST_ID_CHARACTERS:
            # Each frame of the answer would carry it, and no window counts it.
            self._refuse(channel)
        elif body is None:
            self._answer(channel, frame.id, turn_event.error_message(invalid("type", "a known frame")))
        elif body == "session_unwatch":
            self._unwatch(channel, frame.id, frame.session_unwatch.session_id)
        elif channel.requests >= REQUESTS_AT_ONCE:
            self._refuse_one(channel, frame, REQUESTS_AT_ONCE, "requests are open on this connection")
        elif not (channel.held or channel.busy):
            self._start(channel, frame)
        elif channel.held_bytes + (size := frame.ByteSize()) > HELD_BYTES:
            self._refuse_one(channel, frame, HELD_BYTES, "bytes of requests wait on this connection")
        else:
            # Its answer would wait here for a peer that does not read, or has much to read first.
            channel.held.append((frame, size))
            channel.held_bytes += size

    def _refuse_one(self, channel: Channel, frame: frame_pb2.ClientFrame, limit: int, of_what: str) -> None:
        if channel.unacknowledged >= channel.window + REFUSALS_BYTES:
            # It does not read this either.
            self._refuse(channel)
            return
        error = GatewayError(
            error_pb2.ERROR_REASON_TOO_MANY_STREAMS, f"{limit} {of_what}", metadata={"limit": str(limit)}
        )
        self._answer(channel, frame.id, turn_event.error_message(error))

    def _start(self, channel: Channel, frame: frame_pb2.ClientFrame) -> None:
        body = frame.WhichOneof("body")
        assert body is not None
        method = self._methods[FRAME_TYPE[body]]
        request: Message = getattr(frame, body)
        if method.stream is not None:
            watched = getattr(request, "session_id", "") if method.frame == "session.watch" else ""
            stream = Stream(self, channel, frame.id, watched)
            channel.streams.add(stream)
            if watched:
                channel.answering.add(stream)
            self._spawn(self._serve_stream(stream, method, request))
            return
        task = self._spawn(self._serve_unary(channel, frame.id, method, request))
        channel.tasks.add(task)
        if method.safe:
            channel.reads.add(task)
            if method.frame != SMALL_AND_LATE:
                channel.answering.add(task)
        task.add_done_callback(partial(self._served, channel))

    def _served(self, channel: Channel, task: "asyncio.Task[None]") -> None:
        for tasks in (channel.tasks, channel.answering, channel.reads):
            tasks.discard(task)
        self._take_up(channel)

    async def _serve_unary(self, channel: Channel, request_id: str, method: Method, request: Message) -> None:
        try:
            response = await self._calls.unary(method, request, channel.caller)
        except GatewayError as error:
            response = turn_event.error_message(error)
        self._answer(channel, request_id, response)

    async def _serve_stream(self, stream: Stream, method: Method, request: Message) -> None:
        channel = stream.channel
        try:
            feed = await self._calls.stream(method, request, channel.caller, stream.wake)
        except GatewayError as error:
            if stream in channel.streams:
                self._end(stream)
                self._answer(channel, stream.recipient[1], turn_event.error_message(error))
            return
        if stream not in channel.streams:
            # The channel was closed, or nobody watches any more.
            feed.close()
            return
        stream.feed = feed
        stream.wake(True)

    def _unwatch(self, channel: Channel, request_id: str, reference: str) -> None:
        try:
            session = resolve_session(reference)
        except GatewayError as error:
            self._answer(channel, request_id, turn_event.error_message(error))
            return
        # First those that are held back: the end of a watch may start them.
        for waiting in tuple(channel.held):
            if _names(waiting[0].session_watch.session_id, session):
                channel.held.remove(waiting)
                channel.held_bytes -= waiting[1]
        for stream in tuple(channel.streams):
            if _names(stream.watched, session):
                self._end(stream)
        self._answer(channel, request_id, frame_pb2.SessionUnwatched(session_id=session))

    def _end(self, stream: Stream) -> None:
        channel = stream.channel
        channel.streams.discard(stream)
        self.awake.pop(stream, None)
        if stream.feed is not None:
            stream.feed.close()
            # The feed wakes its stream: a circle that would keep the whole turn for the garbage collector.
            stream.feed = None
        if stream in channel.answering:
            self._answered(stream)

    def _answered(self, stream: Stream) -> None:
        """What it began with is on its way, or is not wanted any more."""
        stream.channel.answering.discard(stream)
        self._take_up(stream.channel)

    # --- out --------------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Tell every channel, after what is ready for it, that the gateway goes down. When `collect` has given that,
        the call is to end."""
        self.ending = True
        self._signal(SOON)

    def _send_closed(self, numbers: list[int], reason: gateway_service_pb2.CloseReason.ValueType) -> None:
        self._answers.append(_closed(numbers, reason))
        self._signal(SOON)

    def _answer(self, channel: Channel, request_id: str, body: Message) -> None:
        if self._channels.get(channel.number) is channel:
            size = frame_bytes(body)
            if size > FRAME_BYTES:
                body, size = _too_large(size)
            channel.unacknowledged += size
            self._answers.append((body, size, [(channel.number, request_id)]))
            self._signal(NOW)

    def _signal(self, haste: int) -> None:
        if haste > self.haste:
            self.haste = haste
            self.on_ready(haste)

    def collect(self) -> list[Delivery]:
        """The next batch; empty when there is nothing, until `on_ready` is called again."""
        self.haste = 0
        batch: list[Delivery] = []
        room = BATCH_BYTES
        while self._answers and len(batch) < BATCH_FRAMES and room > 0:
            batch.append(self._answers.popleft())
            room -= batch[-1][1]
        self._read_feeds(batch, room)
        if self.ending and not (self._answers or self.awake):
            batch.append(_closed(list(self._channels), gateway_service_pb2.CLOSE_REASON_RESTART))
            self.close()
        if self._answers or self.awake:
            self._signal(SOON)
        return batch

    def _read_feeds(self, batch: list[Delivery], room: int) -> None:
        """Add what the feeds of awake streams give, up to about `room` bytes; who comes too late stays awake."""
        awake, self.awake = self.awake, {}
        # The list given last, and to which level: watchers at the same place of a log, who are woken one after the
        # other, are given the same.
        given: Sequence[Message] | None = None
        given_level, spoiled = 0, False
        # The feed read last, its level, and where it stood, if others may follow it from there.
        leader: Feed | None = None
        led, start = 0, None
        recipients: list[tuple[int, str]] = []
        total = 0
        for stream in awake:
            if len(batch) >= BATCH_FRAMES or room <= 0:
                self.awake[stream] = None
                continue
            channel, feed = stream.channel, stream.feed
            if feed is None or channel.unacknowledged >= channel.window:
                continue
            place, level = feed.place, channel.level
            if place is not None and place is start and level == led and leader is not None:
                feed.place, feed.after_seq = leader.place, leader.after_seq
                recipients.append(stream.recipient)
                channel.unacknowledged += total
                continue
            start = None
            items = feed.take(TAKE_CHARACTERS)
            if items:
                if items is not given or level != given_level:
                    given, given_level = items, level
                    recipients, total, spoiled = [], 0, False
                    for item in items:
                        if LEVEL[type(item)] <= level:
                            size = frame_bytes(item)
                            spoiled = size > FRAME_BYTES
                            batch.append((*(_too_large(size) if spoiled else (item, size)), recipients))
                            total += batch[-1][1]
                            if spoiled:
                                break
                    room -= total
                recipients.append(stream.recipient)
                channel.unacknowledged += total
                if feed.place is not None and not spoiled:
                    leader, led, start = feed, level, place
            if feed.done or (items and spoiled):
                self._end(stream)
            elif stream in channel.answering:
                self._answered(stream)


def _too_large(size: int) -> tuple[Message, int]:
    error = GatewayError(
        error_pb2.ERROR_REASON_INVALID_MESSAGE, f"the answer would have {size} bytes, more than {FRAME_BYTES}"
    )
    body = turn_event.error_message(error)
    return body, frame_bytes(body)


def _names(reference: str, session: str) -> bool:
    return bool(reference) and reference.rsplit(":", 1)[-1] == session


def _closed(numbers: list[int], reason: gateway_service_pb2.CloseReason.ValueType) -> Delivery:
    return gateway_service_pb2.ChannelClosed(reason=reason), 0, [(number, "") for number in numbers]
