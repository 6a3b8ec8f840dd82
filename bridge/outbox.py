"""What one Connect call has still to send: requests go in one by one and come out in batches.

Used by calls.py, a new one for each call, so that nothing meant for one call can leave on another.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from agentspace.v1.gateway_service_pb2 import ChannelRequest, ConnectRequest

BATCH_BYTES = 2 * 1024 * 1024
"""The largest batch: room for a frame of the largest size, and below the 4 MiB every gRPC server takes."""
FLUSH_SECONDS = 0.002
"""How far batches are apart under load: one costs both sides far more than a request in it."""
ROUNDS = 5
"""How many rounds of the event loop a batch of messages waits when it is due, so that others may join it; they end
after FLUSH_SECONDS."""
FREE_BATCHES = 4
"""How many go at once after a rest."""
FULL_BYTES = 4 * 1024 * 1024
"""How much may wait before drain holds back those who send."""


class Outbox:
    """Requests on their way out, through `send`, which answers False when it can take no more before `sent`."""

    def __init__(self, send: Callable[[ConnectRequest], bool]) -> None:
        self._send = send
        self._waiting: deque[tuple[ChannelRequest, int]] = deque()
        self._bytes = 0
        self._due = 0.0
        self._blocked = False
        self._closed = False
        self._flush_at: asyncio.Handle | None = None
        self._urgent = False
        self._room = asyncio.Event()
        self._room.set()

    def put(self, request: ChannelRequest) -> None:
        """Add a request, to be sent with all that is ready: at once what is urgent and a few batches of messages, and
        under load each FLUSH_SECONDS after the one before has left. Dropped once closed."""
        if self._closed:
            return
        size = request.ByteSize()
        self._waiting.append((request, size))
        self._bytes += size
        if self._bytes > FULL_BYTES:
            self._room.clear()
        # Somebody waits for the answer to a single question; a message has a commit and a provider before it.
        urgent = request.HasField("frame") and not request.frame.HasField("chat_send")
        if self._flush_at is None or (urgent and not self._urgent):
            self._schedule(urgent=urgent)

    def sent(self) -> None:
        """There is room again behind what was sent."""
        self._blocked = False
        self._schedule(urgent=False)

    async def drain(self) -> None:
        """Wait until there is room."""
        if not self._room.is_set():
            await self._room.wait()

    def close(self) -> None:
        """Drop what waits and send no more."""
        self._closed = True
        self._waiting.clear()
        if self._flush_at is not None:
            self._flush_at.cancel()
        self._room.set()

    def _schedule(self, *, urgent: bool) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        if self._waiting and not self._blocked and not self._closed:
            loop = asyncio.get_running_loop()
            self._urgent = urgent
            # Even at once is one round of the loop later: what else is ready goes along.
            if urgent:
                self._flush_at = loop.call_soon(self._flush)
            elif self._due <= (now := loop.time()):
                self._flush_at = loop.call_soon(self._round, ROUNDS, now + FLUSH_SECONDS)
            else:
                self._flush_at = loop.call_at(self._due, self._round, ROUNDS, self._due + FLUSH_SECONDS)

    def _round(self, left: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        if left > 1 and loop.time() < until:
            self._flush_at = loop.call_soon(self._round, left - 1, until)
        else:
            self._flush()

    def _flush(self) -> None:
        self._flush_at = None
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._blocked = not self._send(ConnectRequest(channels=self._take()))
        # The time it took is no rest; and nothing waits longer than once, however much was urgent before.
        due = min(max(self._due, began - FREE_BATCHES * FLUSH_SECONDS), began)
        self._due = due + FLUSH_SECONDS + (loop.time() - began)
        self._schedule(urgent=False)

    def _take(self) -> list[ChannelRequest]:
        batch: list[ChannelRequest] = []
        total = 0
        while self._waiting and (not batch or total + self._waiting[0][1] <= BATCH_BYTES):
            request, size = self._waiting.popleft()
            batch.append(request)
            total += size
        self._bytes -= total
        if self._bytes <= FULL_BYTES // 2:
            self._room.set()
        return batch
