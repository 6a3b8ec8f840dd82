"""Both doors as one: a journey is written once, in the frames of the contract, and walks over the WebSocket and gRPC.

Used by the journeys. What a gRPC call answers is put into the frames a level 2 connection would have been sent, so that
both are compared word for word; a status without ErrorInfo, or a lost socket, is GoneError.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import aiohttp
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from agentspace.v1 import chat_service_pb2 as chat
from agentspace.v1 import session_service_pb2, usage_service_pb2
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from agentspace.v1.session_service_pb2_grpc import SessionServiceStub
from agentspace.v1.usage_service_pb2_grpc import UsageServiceStub
from bridge.frames import Codec
from tests.fixtures.stack import Stack

Frame = dict[str, Any]
ENDS = ("chat.stream.end", "error")
DOORS = ("websocket", "grpc")
PATIENCE = 20.0


class GoneError(Exception):
    """The connection is gone. `code`: the WebSocket's close code, where there was one."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"the connection is gone ({code})")
        self.code = code


class Stream(Protocol):
    """The answers to one request."""

    async def next(self) -> Frame:
        """The next frame. Raises GoneError."""

    async def drop(self) -> None:
        """Leave without a word."""


async def hear(stream: Stream, *types: str) -> list[Frame]:
    """All frames up to the first of one of these types, that one included; heartbeats are left out."""
    frames: list[Frame] = []
    async with asyncio.timeout(PATIENCE):
        while not frames or frames[-1]["type"] not in types:
            frame = await stream.next()
            if frame["type"] != "heartbeat":
                frames.append(frame)
    return frames


class Door(Protocol):
    """One way in."""

    name: str
    stack: Stack

    def open(self, type_: str, **fields: Any) -> "Any":
        """A context with the Stream that answers chat.send or session.watch."""

    async def ask(self, type_: str, **fields: Any) -> Frame:
        """The one answer to any other request; an error is an answer."""


class SocketStream:
    """A socket of its own."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self.socket = socket

    async def next(self) -> Frame:
        """The next frame."""
        async with asyncio.timeout(PATIENCE):
            message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise GoneError(self.socket.close_code)
        frame: Frame = json.loads(message.data)
        return frame

    async def drop(self) -> None:
        """End the TCP connection without a close frame."""
        connector = self._session.connector
        assert connector is not None
        await connector.close()


class WebSocketDoor:
    """Frames of level 2."""

    name = "websocket"

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @asynccontextmanager
    async def open(self, type_: str, **fields: Any) -> AsyncIterator[SocketStream]:
        """A fresh socket with one request on it; hello is heard."""
        async with aiohttp.ClientSession() as session:
            try:
                socket = await session.ws_connect(
                    f"{self.stack.url}/gateway", protocols=("agentspace.v2",), max_msg_size=0
                )
            except (aiohttp.ClientError, OSError) as error:
                raise GoneError from error
            try:
                stream = SocketStream(session, socket)
                assert (await stream.next())["type"] == "hello"
                with suppress(ConnectionError):
                    await socket.send_json({"type": type_, "id": "r", **fields})
                yield stream
            finally:
                with suppress(ConnectionError, RuntimeError):
                    async with asyncio.timeout(PATIENCE):
                        await socket.close()

    async def ask(self, type_: str, **fields: Any) -> Frame:
        """One request on a fresh socket."""
        async with self.open(type_, **fields) as stream:
            frame = await stream.next()
        assert frame.pop("requestId") == "r"
        return frame


METHODS: dict[str, tuple[Any, str, type[Message]]] = {
    "session.create": (SessionServiceStub, "CreateSession", session_service_pb2.CreateSessionRequest),
    "session.get": (SessionServiceStub, "GetSession", session_service_pb2.GetSessionRequest),
    "session.history": (SessionServiceStub, "ListMessages", session_service_pb2.ListMessagesRequest),
    "session.delete": (SessionServiceStub, "DeleteSession", session_service_pb2.DeleteSessionRequest),
    "turn.cancel": (ChatServiceStub, "CancelTurn", chat.CancelTurnRequest),
    "turn.get": (ChatServiceStub, "GetTurn", chat.GetTurnRequest),
    "turn.list": (ChatServiceStub, "ListTurns", chat.ListTurnsRequest),
    "turn.wait": (ChatServiceStub, "WaitTurn", chat.WaitTurnRequest),
    "usage.query": (UsageServiceStub, "QueryUsage", usage_service_pb2.QueryUsageRequest),
    "usage.records": (UsageServiceStub, "ListUsageRecords", usage_service_pb2.ListUsageRecordsRequest),
    "chat.send": (ChatServiceStub, "SendMessage", chat.SendMessageRequest),
    "session.watch": (ChatServiceStub, "WatchSession", chat.WatchSessionRequest),
}
CODEC = Codec(2)


def request(type_: str, fields: Frame) -> Message:
    """The method's request with the frame's fields."""
    enums = {"onBusy": "ON_BUSY_", "onDisconnect": "ON_DISCONNECT_"}
    spelt = {name: enums[name] + value.upper() if name in enums else value for name, value in fields.items()}
    return json_format.ParseDict(spelt, METHODS[type_][2]())


def framed(answer: Message) -> Frame:
    """The answer as a frame."""
    text = CODEC.encode(answer, "")
    assert text is not None
    frame: Frame = json.loads(text)
    return frame


def refused(error: grpc.aio.AioRpcError) -> Frame:
    """The status as an error frame. Raises GoneError when it is gRPC's own."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            info = error_details_pb2.ErrorInfo()
            status = status_pb2.Status.FromString(value)
            assert status.details[0].Unpack(info)
            assert info.domain == "agentspace.dev"
            metadata = dict(info.metadata)
            retryable = metadata.pop("retryable") == "true"
            return {
                "type": "error",
                "code": info.reason,
                "message": status.message,
                "retryable": retryable,
                "metadata": metadata,
            }
    raise GoneError from error


class CallStream:
    """A call."""

    def __init__(self, call: Any, member: str) -> None:
        self._call = call
        self._member = member
        self._failed = ""

    async def next(self) -> Frame:
        """The next frame; after a turn's error the status must say the same, and is then GoneError."""
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            frame = refused(error)
            if self._failed:
                assert frame["code"] == self._failed, "the status repeats the error"
                raise GoneError from error
            return frame
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not ours: gRPC tells in this way that the call was cancelled.
            raise GoneError from None
        if answer is grpc.aio.EOF:
            raise GoneError
        frame = framed(getattr(answer, answer.WhichOneof("event")))
        if frame["type"] == "error":
            self._failed = frame["code"]
        return frame

    async def drop(self) -> None:
        """Cancel the call."""
        self._call.cancel()


class GrpcDoor:
    """The services themselves."""

    name = "grpc"

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @asynccontextmanager
    async def open(self, type_: str, **fields: Any) -> AsyncIterator[CallStream]:
        """A call on a fresh channel."""
        stub, method, _ = METHODS[type_]
        async with self.stack.channel() as channel:
            call = getattr(stub(channel), method)(request(type_, fields))
            try:
                yield CallStream(call, method)
            finally:
                call.cancel()

    async def ask(self, type_: str, **fields: Any) -> Frame:
        """A unary call on a fresh channel."""
        stub, method, _ = METHODS[type_]
        async with self.stack.channel() as channel:
            try:
                call = getattr(stub(channel), method)
                return framed(await call(request(type_, fields), timeout=PATIENCE))
            except grpc.aio.AioRpcError as error:
                return refused(error)


async def ready(stack: Stack) -> None:
    """Return when GET /ready answers 200: both servers are up and have found each other."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(f"{stack.url}/ready") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


def door(name: str, stack: Stack) -> WebSocketDoor | GrpcDoor:
    """The door of that name."""
    return WebSocketDoor(stack) if name == "websocket" else GrpcDoor(stack)


def said(frames: list[Frame]) -> str:
    """The text of the deltas."""
    return "".join(frame["delta"] for frame in frames if frame["type"] == "chat.stream.delta")
