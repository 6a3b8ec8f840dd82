"""A bridge on a free port, in front of a gateway that gives canned answers and remembers what it was told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from agentspace.v1 import error_pb2, frame_pb2, gateway_service_pb2, turn_pb2
from agentspace.v1.frame_pb2 import ClientFrame, Hello, ServerFrame
from agentspace.v1.gateway_service_pb2 import ChannelRequest, ChannelResponse, ConnectResponse, Recipient
from agentspace.v1.gateway_service_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from agentspace.v1.key_service_pb2 import ReadKeyResponse
from agentspace.v1.key_service_pb2_grpc import KeyServiceServicer, add_KeyServiceServicer_to_server
from bridge.app import serve
from bridge.calls import GrpcLink
from bridge.config import Config

TOKEN = "operator-token"
REFUSALS = {
    "nobody": (grpc.StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND"),
    "empty": (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_KEY_MISSING"),
    "sealed": (grpc.StatusCode.UNAVAILABLE, "VAULT_UNAVAILABLE"),
    "unheard": (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE"),
    "denied": (grpc.StatusCode.PERMISSION_DENIED, "MISSING_SCOPE"),
}


class CannedGateway(GatewayServiceServicer, KeyServiceServicer):
    """Answers chat.send by its content: "hold" never, "flood" as the window allows, all else by an echo."""

    def __init__(self) -> None:
        self.requests: list[ChannelRequest] = []
        self.hellos = 0
        self.outgoing: asyncio.Queue[ConnectResponse | None] = asyncio.Queue()
        self.window: dict[int, int] = {}
        self._heard = asyncio.Condition()
        self._flooded: dict[int, str] = {}

    async def Connect(self, requests: Any, context: Any) -> AsyncIterator[ConnectResponse]:
        self.outgoing = outgoing = asyncio.Queue()
        reader = asyncio.create_task(self._read(requests))
        try:
            while (response := await outgoing.get()) is not None:
                yield response
        finally:
            reader.cancel()

    async def Hello(self, request: Any, context: Any) -> gateway_service_pb2.HelloResponse:
        self.hellos += 1
        token = _token(context)
        if token not in ("", TOKEN):
            await _abort(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        limits = frame_pb2.Limits(max_frame_bytes=5, queue_depth=20)
        hello = Hello(protocol="agentspace.v2", principal="operator" if token else "local", limits=limits)
        return gateway_service_pb2.HelloResponse(hello=hello)

    async def GetReadiness(self, request: Any, context: Any) -> gateway_service_pb2.GetReadinessResponse:
        parts = [gateway_service_pb2.ReadinessPart(name="storage", ready=True)]
        return gateway_service_pb2.GetReadinessResponse(ready=True, parts=parts)

    async def GetMetrics(self, request: Any, context: Any) -> gateway_service_pb2.GetMetricsResponse:
        return gateway_service_pb2.GetMetricsResponse(text="agentspace_turns_total 1\n")

    async def ReadKey(self, request: Any, context: Any) -> ReadKeyResponse:
        if _token(context) != TOKEN:
            await _abort(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        if request.provider in REFUSALS:
            await _abort(context, *REFUSALS[request.provider])
        return ReadKeyResponse(provider=request.provider, key="sk-secret")

    def say(self, channel: int, frame: ServerFrame, request_id: str = "") -> None:
        """Send a frame to a channel."""
        self.say_all([(channel, request_id)], frame)

    def say_all(self, recipients: list[tuple[int, str]], *frames: ServerFrame) -> None:
        """Send frames in one batch, each to all recipients."""
        to = [Recipient(channel=channel, request_id=request_id) for channel, request_id in recipients]
        self.outgoing.put_nowait(
            ConnectResponse(channels=[ChannelResponse(recipients=to, frame=frame) for frame in frames])
        )

    def close_channel(self, channel: int, reason: Any) -> None:
        """Close a channel."""
        item = ChannelResponse(recipients=[Recipient(channel=channel)], closed={"reason": reason})
        self.outgoing.put_nowait(ConnectResponse(channels=[item]))

    async def until(self, count: int, action: str) -> list[ChannelRequest]:
        """Wait for that many requests of an action: "open", "frame", "acknowledged_bytes" or "close"."""

        def found() -> list[ChannelRequest]:
            return [request for request in self.requests if request.WhichOneof("action") == action]

        async with asyncio.timeout(5), self._heard:
            await self._heard.wait_for(lambda: len(found()) >= count)
        return found()

    async def _read(self, requests: Any) -> None:
        async for batch in requests:
            for request in batch.channels:
                self._take(request)
            async with self._heard:
                self._heard.notify_all()

    def _take(self, request: ChannelRequest) -> None:
        self.requests.append(request)
        channel = request.channel
        if request.HasField("open"):
            self.window[channel] = request.open.window_bytes
            if request.open.bearer_token not in ("", TOKEN):
                self.close_channel(channel, gateway_service_pb2.CLOSE_REASON_UNAUTHENTICATED)
        elif request.HasField("frame"):
            self._answer(channel, request.frame)
        elif request.HasField("acknowledged_bytes"):
            self.window[channel] += request.acknowledged_bytes
            self._flood(channel)

    def _answer(self, channel: int, frame: ClientFrame) -> None:
        if not frame.HasField("chat_send"):
            error = error_pb2.Error(code=error_pb2.ERROR_REASON_NOT_IMPLEMENTED, message="not here")
            self.say(channel, ServerFrame(error=error), frame.id)
        elif frame.chat_send.content == "flood":
            self._flooded[channel] = frame.id
            self._flood(channel)
        elif frame.chat_send.content != "hold":
            self.say_all(
                [(channel, frame.id)],
                ServerFrame(session_created={"session_id": "s", "session_key": "agent:default:s"}),
                ServerFrame(chat_accepted={"session_id": "s", "turn_id": "t"}),
                ServerFrame(chat_stream_start={"session_id": "s", "model": "m", "turn_id": "t"}),
                ServerFrame(chat_stream_delta={"delta": frame.chat_send.content}),
                ServerFrame(chat_stream_end={}),
            )

    def _flood(self, channel: int) -> None:
        frame = ServerFrame(chat_stream_delta=turn_pb2.TextDelta(delta="x" * 30_000))
        while channel in self._flooded and self.window[channel] > 0:
            self.window[channel] -= frame.ByteSize()
            self.say(channel, frame, self._flooded[channel])


def _token(context: Any) -> str:
    return str(dict(context.invocation_metadata()).get("authorization", "")).removeprefix("Bearer ")


async def _abort(context: Any, code: grpc.StatusCode, reason: str) -> None:
    detail = Packed()
    detail.Pack(ErrorInfo(reason=reason, domain="agentspace.dev"))
    await context.abort_with_status(rpc_status.to_status(Status(code=code.value[0], message="no", details=[detail])))


@asynccontextmanager
async def running_gateway(gateway: CannedGateway, address: Path | str) -> AsyncIterator[int]:
    """Serve the gateway on a Unix socket or a host:port; gives the port."""
    server = grpc.aio.server()
    add_GatewayServiceServicer_to_server(gateway, server)
    add_KeyServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port(address if isinstance(address, str) else f"unix:{address}")
    await server.start()
    try:
        yield port
    finally:
        gateway.outgoing.put_nowait(None)
        await server.stop(0)


def config(socket: Path, **changes: Any) -> Config:
    """Settings for tests."""
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "ports": (0,),
        "gateway": f"unix:{socket}",
        "hosts": frozenset({"gateway.example"}),
        "origins": frozenset({"https://app.example"}),
        "max_connections": 50,
        "certificate": None,
        "private_key": None,
    }
    return Config(**(settings | changes))


@asynccontextmanager
async def running_bridge(settings: Config) -> AsyncIterator[int]:
    """Serve a bridge; gives its port whether or not there is a gateway."""
    async with serve(settings, GrpcLink(settings.gateway), head_seconds=0.3, link_seconds=0) as port:
        yield port


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.sock"


@pytest.fixture
async def gateway(socket_path: Path) -> AsyncIterator[CannedGateway]:
    canned = CannedGateway()
    async with running_gateway(canned, socket_path):
        yield canned


@pytest.fixture
async def port(gateway: CannedGateway, socket_path: Path) -> AsyncIterator[int]:
    settings = config(socket_path)
    async with serve(settings, GrpcLink(settings.gateway), head_seconds=0.3) as port:
        yield port
