"""DirectLink: the bridge's way to a gateway in the same process. The same messages as over gRPC, handed over as they
are.

Built by __main__; implements bridge.link. Below it are the gateway's method table and Connection, which serve gRPC too.
"""

import asyncio

from google.protobuf.message import Message

from agentspace.v1.error_pb2 import ErrorReason
from agentspace.v1.frame_pb2 import Hello
from agentspace.v1.gateway_service_pb2 import (
    ChannelRequest,
    GetMetricsRequest,
    GetMetricsResponse,
    GetReadinessRequest,
    GetReadinessResponse,
    HelloRequest,
    HelloResponse,
)
from agentspace.v1.key_service_pb2 import ReadKeyRequest, ReadKeyResponse
from bridge.link import LinkError, Receiver
from gateway.app import App
from gateway.domain.error import GatewayError
from gateway.rpc.connect import Connection
from gateway.rpc.methods import Method
from gateway.rpc.pace import Pace


class DirectLink:
    """Talks to `app`, from `open` on."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._methods: dict[str, Method] = {}
        self._connection: Connection | None = None
        self._receiver: Receiver | None = None
        self._pace: Pace | None = None
        self._started = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Say that the app has started."""
        self._started.set()

    @property
    def connected(self) -> bool:
        """While `run` runs, after `open`."""
        return self._connection is not None

    async def opened(self) -> None:
        """Wait until it is connected."""
        await self._opened.wait()

    async def run(self, receiver: Receiver) -> None:
        """Serve the bridge's channels until cancelled."""
        await self._started.wait()
        self._methods = {method.name: method for method in self._app.methods}
        self._receiver = receiver
        self._pace = Pace(self._flush, asyncio.get_running_loop())
        self._connection = Connection(
            self._app.methods,
            self._app.calls,
            self._app.credentials,
            self._pace.hurry,
            self._app.spawn,
            vouched=True,
        )
        self._opened.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._opened.clear()
            connection, self._connection = self._connection, None
            connection.close()
            receiver.on_lost()

    def send(self, request: ChannelRequest) -> None:
        """Hand over at once."""
        if self._connection is not None:
            self._connection.receive((request,))

    async def drain(self) -> None:
        """Nothing waits here."""

    def flush(self) -> None:
        """Hand over at once what is ready."""
        while self._connection is not None and self._connection.haste:
            self._flush()

    def _flush(self) -> None:
        if self._connection is None or self._receiver is None or self._pace is None:
            return
        self._pace.begin()
        try:
            if batch := self._connection.collect():
                self._receiver.on_batch(batch)
        finally:
            self._pace.left()

    async def hello(self, token: str) -> Hello:
        """Who the bearer of the token is."""
        response = await self._call("Hello", HelloRequest(), token)
        assert isinstance(response, HelloResponse)
        return response.hello

    async def readiness(self) -> GetReadinessResponse:
        """Whether a chat would work."""
        response = await self._call("GetReadiness", GetReadinessRequest(), "")
        assert isinstance(response, GetReadinessResponse)
        return response

    async def metrics(self) -> str:
        """The gateway's metrics."""
        response = await self._call("GetMetrics", GetMetricsRequest(), "")
        assert isinstance(response, GetMetricsResponse)
        return response.text

    async def read_key(self, provider: str, token: str) -> str:
        """A provider's key in clear."""
        response = await self._call("ReadKey", ReadKeyRequest(provider=provider), token)
        assert isinstance(response, ReadKeyResponse)
        return response.key

    async def _call(self, method: str, request: Message, token: str) -> Message:
        if self._connection is None:
            raise LinkError("GATEWAY_UNREACHABLE", "the gateway is not running yet, or no more")
        try:
            caller = self._app.credentials.identify(token, vouched=True)
            calls = self._app.calls
            return await calls.owned(calls.unary(self._methods[method], request, caller))
        except GatewayError as error:
            name = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            raise LinkError(name, error.message) from None
