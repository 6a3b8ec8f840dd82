"""A provider that costs next to nothing: the Messages API's event stream, one write a delta, paced as the request says.

Run by processes as `python -m benchmarks.upstream`; prints {"port": N}. The last user message holds the pace:
`deltas=150 gap_us=20000 first_us=5000`. A gap of 0 sends the deltas back to back, still one write each.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import cast

import orjson
import uvloop

from benchmarks.stamp import LENGTH, stamp

PACE = re.compile(r"deltas=(\d+) gap_us=(\d+) first_us=(\d+)")


def event(fields: Mapping[str, object]) -> bytes:
    """One event as a chunk of the body."""
    data = b"event: %s\ndata: %s\n\n" % (str(fields["type"]).encode(), orjson.dumps(fields))
    return b"%x\r\n%s\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nrequest-id: req_1\r\n\r\n"
OPEN = event(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "bench",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 12, "output_tokens": 1},
        },
    }
) + event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
PING = event({"type": "ping"})
HOLE = b"0" * LENGTH
DELTA_HEAD, DELTA_TAIL = event(
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": HOLE.decode()}}
).split(HOLE)


def closing(deltas: int) -> bytes:
    """What follows the last delta."""
    last = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": deltas},
    }
    return event({"type": "content_block_stop", "index": 0}) + event(last) + event({"type": "message_stop"})


class Stream(asyncio.Protocol):
    """One connection; answers one request after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = b""
        self._timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller."""
        # uvloop does not call its transports asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The caller has hung up."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Wait for the whole request, then answer it."""
        self._buffer += data
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if length is None or len(body) < int(length[1]):
            return
        self._buffer = b""
        content = orjson.loads(body)["messages"][-1]["content"]
        pace = PACE.search(content if isinstance(content, str) else content[-1]["text"])
        self._deltas, gap, first = (int(number) for number in pace.groups()) if pace else (1, 0, 0)
        self._number, self._gap = 0, gap / 1e6
        self._transport.write(HEAD + OPEN + PING)
        self._due = self._loop.time() + first / 1e6
        self._timer = self._loop.call_at(self._due, self._step)

    def _step(self) -> None:
        if self._number == self._deltas:
            self._transport.write(closing(self._deltas) + b"0\r\n\r\n")
            self._timer = None
            return
        self._transport.write(DELTA_HEAD + stamp(self._number) + DELTA_TAIL)
        self._number += 1
        self._due += self._gap
        # The end of the answer follows its last delta at once.
        late = not self._gap or self._number == self._deltas or self._due <= self._loop.time()
        self._timer = self._loop.call_soon(self._step) if late else self._loop.call_at(self._due, self._step)


async def main() -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stream(loop), "127.0.0.1", 0, backlog=1024)
    print(orjson.dumps({"port": server.sockets[0].getsockname()[1]}).decode(), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
