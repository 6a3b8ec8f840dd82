"""The gateway's App in this process, with a real database, real sockets and the scripted models; and a peer of its
Connect. Used by the tests of gateway/rpc, gateway/app and standalone."""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from agentspace.v1.gateway_service_pb2 import (
    ChannelClose,
    ChannelOpen,
    ChannelRequest,
)
from gateway.app import App
from gateway.config import Config, read_config
from gateway.rpc.connect import Connection, Delivery
from tests.fixtures.deliveries import shared_out

MODEL = "scripted/echo"
PATIENCE = 10.0


def config(home: Path, *arguments: str, **environment: str) -> Config:
    """Settings for a gateway on free ports, with a Unix socket in its home."""
    seen = {"AGENTSPACE_DRAIN_SECONDS": "0", **environment}
    fixed = ["--home", str(home), "--grpc-port", "0", "--socket", str(home / "gateway.sock"), "--model", MODEL]
    return read_config([*fixed, *arguments], seen)


@asynccontextmanager
async def running(settings: Config) -> AsyncIterator[App]:
    """A started app; drained and closed at the end."""
    app = App(settings)
    await app.start()
    try:
        yield app
    finally:
        await app.drain()
        await app.close()


def token(home: Path) -> str:
    """The operator's token."""
    return (home / "token").read_text(encoding="ascii").strip()


def bearer(value: str) -> tuple[tuple[str, str], ...]:
    """Call metadata with that token."""
    return (("authorization", f"Bearer {value}"),)


@asynccontextmanager
async def dialled(target: str) -> AsyncIterator[grpc.aio.Channel]:
    """A gRPC channel to `host:port` or `unix:path`."""
    async with asyncio.timeout(PATIENCE * 2), grpc.aio.insecure_channel(target) as channel:
        yield channel


def told(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    """A status's code and ErrorInfo; its message must be the details' own."""
    details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(details)
    assert status.details[0].Unpack(info)
    assert status.message == error.details()
    return error.code(), info


async def refused(call: Awaitable[Any]) -> str:
    """The reason for which a call is refused."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return told(error)[1].reason
    raise AssertionError("the call was answered")


Heard = tuple[int, str, ServerFrame]


class Peer:
    """The other side of a Connection: opens channels, sends frames, keeps what it hears in order."""

    def __init__(self, app: App, *, vouched: bool = True) -> None:
        self._ready = asyncio.Event()
        self.connection = Connection(
            app.methods, app.calls, app.credentials, lambda _: self._ready.set(), app.spawn, vouched=vouched
        )
        self.batches: list[list[Delivery]] = []
        self.hastes: list[int] = []
        """How much of a hurry each batch was in."""
        self.heard: list[Heard] = []
        self.closed: dict[int, int] = {}
        """Channel to close reason."""

    def open(self, channel: int, level: int = 2, token: str = "", window: int = 0) -> None:
        """Open a channel."""
        opening = ChannelOpen(bearer_token=token, level=level, window_bytes=window)
        self._send(ChannelRequest(channel=channel, open=opening))

    def say(self, channel: int, request_id: str, **body: Any) -> None:
        """Send a frame: its member of ClientFrame and the member's fields."""
        self._send(ChannelRequest(channel=channel, frame=ClientFrame(id=request_id, **body)))

    def acknowledge(self, channel: int, count: int) -> None:
        """So many bytes have left."""
        self._send(ChannelRequest(channel=channel, acknowledged_bytes=count))

    def close(self, channel: int) -> None:
        """The client is gone."""
        self._send(ChannelRequest(channel=channel, close=ChannelClose()))

    async def until(self, found: Callable[[], Any]) -> None:
        """Collect until `found` gives something."""
        async with asyncio.timeout(PATIENCE):
            while not found():
                await self._ready.wait()
                self.collect()

    def collect(self) -> None:
        """Take the next batch."""
        self._ready.clear()
        haste = self.connection.haste
        batch = self.connection.collect()
        if not batch:
            return
        self.batches.append(batch)
        self.hastes.append(haste)
        heard, closed = shared_out(batch)
        self.heard += heard
        self.closed.update(closed)

    def frames(self, channel: int, request_id: str) -> list[ServerFrame]:
        """What answered a request so far."""
        return [frame for number, name, frame in self.heard if (number, name) == (channel, request_id)]

    def kinds(self, channel: int, request_id: str) -> list[str]:
        """The frames' members, neighbouring deltas as one."""
        kinds: list[str] = []
        for frame in self.frames(channel, request_id):
            kind = frame.WhichOneof("body") or ""
            if kind != "chat_stream_delta" or kinds[-1:] != [kind]:
                kinds.append(kind)
        return kinds

    def text(self, channel: int, request_id: str) -> str:
        """The deltas' text."""
        return "".join(frame.chat_stream_delta.delta for frame in self.frames(channel, request_id))

    def size(self, channel: int) -> int:
        """What was sent to a channel counts so many bytes against its window."""
        return sum(frame.ByteSize() for number, _, frame in self.heard if number == channel)

    async def answer(self, channel: int, request_id: str, kind: str) -> Any:
        """The first frame of that member which answers the request, as soon as it is there."""
        await self.until(lambda: kind in self.kinds(channel, request_id))
        return next(getattr(f, kind) for f in self.frames(channel, request_id) if f.HasField(kind))  # type: ignore[arg-type]

    def _send(self, request: ChannelRequest) -> None:
        self.connection.receive([request])


async def waiting(home: Path) -> str:
    """Leave a turn in the home that waits for the next start and takes a while; gives its id."""
    async with running(config(home)) as app:
        peer = Peer(app)
        peer.open(1)
        peer.say(1, "a", chat_send={"content": "x", "model": "scripted/fail?with=hang"})
        session = (await peer.answer(1, "a", "chat_accepted")).session_id
        send = {"content": "x", "model": "scripted/count?n=20&delay=10ms", "on_busy": "ON_BUSY_QUEUE"}
        peer.say(1, "b", chat_send={"session_id": session, **send})
        return str((await peer.answer(1, "b", "chat_accepted")).turn_id)


async def ended(app: App, turn_id: str) -> int:
    """The state in which a turn ends."""
    peer = Peer(app)
    peer.open(1)
    peer.say(1, "a", turn_wait={"turn_id": turn_id})
    return int((await peer.answer(1, "a", "turn_wait")).turn.state)


async def stopped_at_once(home: Path, serving: Coroutine[Any, Any, None]) -> None:
    """Serve from a home in which nobody can write, so that the start takes seconds; SIGTERM ends it long before."""
    with sqlite3.connect(home / "agentspace.db", isolation_level=None) as database:
        database.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(serving)
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(2):
            await task
        database.execute("ROLLBACK")
    database.close()
