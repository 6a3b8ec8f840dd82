"""The link over gRPC: one Connect call for all channels, made again when it is lost, and the gateway's unary methods.

Built by __main__.py; implements link.py. grpc_call.py makes the calls. Both ways a message is handled where it is read
or written: there is no task and no thread in between.
"""

import asyncio
import logging
import random
from typing import TypeVar

from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from agentspace.v1.frame_pb2 import Hello
from agentspace.v1.gateway_service_pb2 import (
    ChannelRequest,
    ConnectResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    GetReadinessRequest,
    GetReadinessResponse,
    HelloRequest,
    HelloResponse,
)
from agentspace.v1.key_service_pb2 import ReadKeyRequest, ReadKeyResponse
from bridge.grpc_call import Call, CallError, ask, code_name
from bridge.http2_connection import Connection, LostError
from bridge.link import Delivery, LinkError, Receiver
from bridge.outbox import Outbox

LOG = logging.getLogger(__name__)
T = TypeVar("T", bound=Message)

GATEWAY = "agentspace.v1.GatewayService"
KEYS = "agentspace.v1.KeyService"

ANSWER_SECONDS = 5.0
"""How long a unary call may take, with waiting for its turn."""
ASKED_AT_ONCE = 64
"""How many unary calls run at a time: fewer than any server's limit of streams."""
RETRY_SECONDS = 0.05
"""How long to wait after a call that has ended; doubled each time that nothing came."""
LONGEST_RETRY_SECONDS = 2.0
DIAL_SECONDS = 5.0
"""How long it may take from connecting to the gateway's first word."""
REDIAL_SECONDS = 0.05
"""How long to wait after a connection that failed; doubled each time."""
LONGEST_REDIAL_SECONDS = 0.5
SILENT_SECONDS = 3.0
"""How long the gateway may be away before it is logged: a restart takes less."""


class GrpcLink:
    """The way to a gateway at "unix:PATH" or "host:port"."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._connection: Connection | None = None
        self._outbox: Outbox | None = None
        self._opened = asyncio.Event()
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)

    @property
    def connected(self) -> bool:
        """There is a call to send on."""
        return self._outbox is not None

    async def opened(self) -> None:
        """Wait until there is a call."""
        await self._opened.wait()

    async def run(self, receiver: Receiver) -> None:
        """Keep a Connect call, until cancelled."""
        wait = RETRY_SECONDS
        try:
            while True:
                connection = await self._reach()
                if await self._hold(connection, receiver):
                    wait = RETRY_SECONDS
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, LONGEST_RETRY_SECONDS)
        finally:
            if self._connection is not None:
                self._connection.close()

    async def _reach(self) -> Connection:
        """Give the connection there is, or a new one as soon as there is a gateway."""
        if self._connection is not None and self._connection.usable:
            return self._connection
        away = asyncio.get_running_loop().call_later(SILENT_SECONDS, self._tell_away)
        wait = REDIAL_SECONDS
        try:
            while True:
                if self._connection is not None:
                    self._connection.close()
                try:
                    async with asyncio.timeout(DIAL_SECONDS):
                        self._connection = await self._dial()
                        await self._connection.settled
                        return self._connection
                except (OSError, LostError, TimeoutError):
                    pass
                except Exception:  # a bug must not be the last dial
                    LOG.exception("dialling the gateway failed")
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_REDIAL_SECONDS)
        finally:
            away.cancel()

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._target.startswith("unix:"):
            path = self._target.removeprefix("unix:")
            _, connection = await loop.create_unix_connection(lambda: Connection("localhost"), path)
        else:
            host, _, port = self._target.rpartition(":")
            _, connection = await loop.create_connection(lambda: Connection(self._target), host.strip("[]"), int(port))
        return connection

    def _tell_away(self) -> None:
        LOG.warning("the gateway cannot be reached; trying on", extra={"gateway": self._target})

    async def _hold(self, connection: Connection, receiver: Receiver) -> bool:
        """Make a Connect call and stay until it ends. False: nothing came that could be used."""
        came = False

        def take(message: bytes) -> None:
            nonlocal came
            receiver.on_batch(unpacked(ConnectResponse.FromString(message)))
            came = True

        call = Call(connection, f"/{GATEWAY}/Connect", (), take, lambda: outbox.sent())
        self._outbox = outbox = Outbox(lambda batch: call.send(batch.SerializeToString()))
        self._opened.set()
        try:
            status = await call.ended
            if status.code == Code.OK:
                # It stops in order, and so may we.
                LOG.info("the gateway ended the connection")
            else:
                LOG.warning("the connection to the gateway is lost", extra={"code": code_name(status)})
        except Exception:
            # A frame that cannot be shared out must not end the bridge: the channels start afresh.
            LOG.exception("a batch of the gateway could not be handled")
        finally:
            call.cancel()
            outbox.close()
            self._outbox = None
            self._opened.clear()
            receiver.on_lost()
        return came

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
        return (await self._ask(GATEWAY, "Hello", HelloRequest(), HelloResponse, token)).hello

    async def readiness(self) -> GetReadinessResponse:
        """Call GatewayService.GetReadiness."""
        return await self._ask(GATEWAY, "GetReadiness", GetReadinessRequest(), GetReadinessResponse)

    async def metrics(self) -> str:
        """Call GatewayService.GetMetrics."""
        return (await self._ask(GATEWAY, "GetMetrics", GetMetricsRequest(), GetMetricsResponse)).text

    async def read_key(self, provider: str, token: str) -> str:
        """Call KeyService.ReadKey."""
        request = ReadKeyRequest(provider=provider)
        return (await self._ask(KEYS, "ReadKey", request, ReadKeyResponse, token)).key

    async def _ask(self, service: str, method: str, request: Message, answer: type[T], token: str = "") -> T:
        if self._connection is None:
            raise LinkError("GATEWAY_UNREACHABLE", "the gateway cannot be reached")
        path = f"/{service}/{method}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._asking:
                data = await ask(self._connection, path, request.SerializeToString(), token, ANSWER_SECONDS)
                return answer.FromString(data)
        except CallError as error:
            raise LinkError(_reason(error.status), error.status.message) from None
        except TimeoutError:
            raise LinkError("GATEWAY_UNREACHABLE", "there was no answer in time") from None


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


def _reason(status: Status) -> str:
    info = ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason)
    return WITHOUT_DETAILS.get(status.code, "INTERNAL")


WITHOUT_DETAILS = {
    Code.UNAVAILABLE: "GATEWAY_UNREACHABLE",
    Code.DEADLINE_EXCEEDED: "GATEWAY_UNREACHABLE",
    Code.UNAUTHENTICATED: "UNAUTHENTICATED",
    Code.PERMISSION_DENIED: "MISSING_SCOPE",
}
"""What a status without ErrorInfo means: it comes from gRPC itself, not from the gateway's services."""
