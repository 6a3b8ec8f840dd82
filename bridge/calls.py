"""The link over gRPC: one Connect call for all channels, made again when it is lost, and the gateway's unary methods.

Built by app.py; implements link.py. One task reads the call, and gRPC's own task writes what the request stream yields:
two writers on one call would hang it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable
from typing import TypeVar

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agentspace.v1.frame_pb2 import Hello
from agentspace.v1.gateway_service_pb2 import (
    ChannelRequest,
    ConnectResponse,
    GetMetricsRequest,
    GetReadinessRequest,
    GetReadinessResponse,
    HelloRequest,
)
from agentspace.v1.gateway_service_pb2_grpc import GatewayServiceStub
from agentspace.v1.key_service_pb2 import ReadKeyRequest
from agentspace.v1.key_service_pb2_grpc import KeyServiceStub
from bridge.link import Delivery, LinkError, Receiver
from bridge.outbox import Outbox

LOG = logging.getLogger(__name__)
T = TypeVar("T")

ANSWER_SECONDS = 5.0
"""How long a unary call may take."""
RETRY_SECONDS = 0.05
"""How long to wait after a call that ended without a response; doubled each time."""
LONGEST_RETRY_SECONDS = 2.0
SILENT_SECONDS = 3.0
"""How long the gateway may be away before it is logged: a restart takes less."""
OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    # A gateway that comes back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A dead network or a frozen gateway is noticed in about a minute; more often than every 10 s a server takes for an
    # attack.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


class GrpcLink:
    """The way to a gateway at "unix:PATH" or "host:port". Close it when done."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        self._gateway = GatewayServiceStub(self._channel)
        self._keys = KeyServiceStub(self._channel)
        self._outbox: Outbox | None = None
        self._opened = asyncio.Event()

    @property
    def connected(self) -> bool:
        """There is a call to send on."""
        return self._outbox is not None

    async def opened(self) -> None:
        """Wait until there is a call."""
        await self._opened.wait()

    async def run(self, receiver: Receiver) -> None:
        """Keep a Connect call, until cancelled."""
        wait = 0.0
        while True:
            away = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._tell_away)
            try:
                await self._channel.channel_ready()
            finally:
                away.cancel()
            self._outbox = outbox = Outbox()
            self._opened.set()
            call = self._gateway.Connect(outbox.batches())
            try:
                async for response in call:
                    receiver.on_batch(unpacked(response))
                    wait = 0.0
                # It stops in order, and so may we.
                LOG.info("the gateway ended the connection")
            except grpc.aio.AioRpcError as error:
                LOG.warning("the connection to the gateway is lost", extra={"code": error.code().name})
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Not ours: gRPC tells in this way that the call was cancelled from the other side.
                LOG.warning("the gateway cancelled the connection")
            except Exception:
                # A frame that cannot be shared out must not end the bridge: the channels start afresh.
                LOG.exception("a batch of the gateway could not be handled")
            finally:
                call.cancel()
                outbox.close()
                self._outbox = None
                self._opened.clear()
                receiver.on_lost()
            # At once the first time: until the gateway is back, channel_ready waits.
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(max(wait * 2, RETRY_SECONDS), LONGEST_RETRY_SECONDS)

    def _tell_away(self) -> None:
        LOG.warning("the gateway cannot be reached; trying on", extra={"gateway": self._target})

    def send(self, request: ChannelRequest) -> None:
        """Send soon, in order."""
        if self._outbox is not None:
            self._outbox.put(request)

    async def drain(self) -> None:
        """Wait until there is room."""
        if self._outbox is not None:
            await self._outbox.drain()

    async def hello(self, token: str) -> Hello:
        """Call GatewayService.Hello."""
        call = self._gateway.Hello(HelloRequest(), metadata=_bearer(token), timeout=ANSWER_SECONDS)
        return (await _answer(call)).hello

    async def readiness(self) -> GetReadinessResponse:
        """Call GatewayService.GetReadiness."""
        return await _answer(self._gateway.GetReadiness(GetReadinessRequest(), timeout=ANSWER_SECONDS))

    async def metrics(self) -> str:
        """Call GatewayService.GetMetrics."""
        return (await _answer(self._gateway.GetMetrics(GetMetricsRequest(), timeout=ANSWER_SECONDS))).text

    async def read_key(self, provider: str, token: str) -> str:
        """Call KeyService.ReadKey."""
        request = ReadKeyRequest(provider=provider)
        return (await _answer(self._keys.ReadKey(request, metadata=_bearer(token), timeout=ANSWER_SECONDS))).key

    async def close(self) -> None:
        """Close the connection; run has been cancelled before."""
        await self._channel.close()


def unpacked(response: ConnectResponse) -> list[Delivery]:
    """A batch as its receiver takes it. A frame of a kind that this bridge does not know stays a ServerFrame."""
    batch: list[Delivery] = []
    for item in response.channels:
        to = item.recipients
        recipients = [(to[0].channel, to[0].request_id)] if len(to) == 1 else [(r.channel, r.request_id) for r in to]
        frame = item.frame
        kind = frame.WhichOneof("body")
        if kind is not None:
            batch.append((getattr(frame, kind), frame.ByteSize(), recipients))
        else:
            batch.append((item.closed if item.HasField("closed") else frame, frame.ByteSize(), recipients))
    return batch


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise LinkError(_reason(error), error.details() or "the gateway cannot be reached") from None


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            info = ErrorInfo()
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return WITHOUT_DETAILS.get(error.code(), "INTERNAL")


WITHOUT_DETAILS = {
    grpc.StatusCode.UNAVAILABLE: "GATEWAY_UNREACHABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "GATEWAY_UNREACHABLE",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "MISSING_SCOPE",
}
"""What a status without ErrorInfo means: it comes from gRPC itself, not from the gateway's services."""
