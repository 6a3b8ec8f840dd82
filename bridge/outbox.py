"""What one Connect call has still to send: requests go in one by one and come out in batches.

Used by calls.py, a new one for each call, so that nothing meant for one call can leave on another. Does no I/O.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from agentspace.v1.gateway_service_pb2 import ChannelRequest, ConnectRequest

BATCH_BYTES = 2 * 1024 * 1024
"""The largest batch: room for a frame of the largest size, and below the 4 MiB every gRPC server takes."""
FLUSH_SECONDS = 0.003
"""How far batches are apart under load: one costs both sides about 150 us, whatever is in it."""
FREE_BATCHES = 4
"""How many go at once after a rest."""
FULL_BYTES = 4 * 1024 * 1024
"""How much may wait before drain holds back those who send."""


class Outbox:
    """Requests on their way out."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[ChannelRequest, int]] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._urgent = asyncio.Event()
        self._closed = False

    def put(self, request: ChannelRequest) -> None:
        """Add a request; dropped once closed."""
        if self._closed:
            return
        if request.HasField("frame") and not request.frame.HasField("chat_send"):
            # Somebody waits for the answer to a single question; a message has a commit and a provider before it.
            self._urgent.set()
        size = request.ByteSize()
        self._waiting.append((request, size))
        self._bytes += size
        if self._bytes > FULL_BYTES:
            self._room.clear()
        self._ready.set()

    async def drain(self) -> None:
        """Wait until there is room."""
        if not self._room.is_set():
            await self._room.wait()

    def close(self) -> None:
        """Drop what waits and end batches."""
        self._closed = True
        self._waiting.clear()
        self._ready.set()
        self._urgent.set()
        self._room.set()

    async def batches(self) -> AsyncIterator[ConnectRequest]:
        """Give everything that is ready, until closed: at once what is urgent and a few batches of messages, and under
        load each FLUSH_SECONDS after the one before has left, which is when the next is asked for."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while not self._closed:
            await self._ready.wait()
            if (early := due - loop.time()) > 0 and not self._urgent.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(early):
                        await self._urgent.wait()
            self._urgent.clear()
            if self._waiting:
                began = loop.time()
                yield ConnectRequest(channels=self._take())
                # The time it took is no rest; and nothing waits longer than once, however much was urgent before.
                due = min(max(due, began - FREE_BATCHES * FLUSH_SECONDS), began) + FLUSH_SECONDS + (loop.time() - began)
            if not self._waiting and not self._closed:
                self._ready.clear()

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
