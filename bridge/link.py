"""The port between the bridge and the gateway: requests one way, batches of responses the other, and four questions.

Used by channels.py, websocket.py and http.py. calls.py implements it over gRPC; a server that runs both in one process
has the same connection without a call.
"""

from collections.abc import Sequence
from typing import Protocol

from google.protobuf.message import Message

from agentspace.v1.frame_pb2 import Hello
from agentspace.v1.gateway_service_pb2 import ChannelRequest, GetReadinessResponse

Delivery = tuple[Message, int, Sequence[tuple[int, str]]]
"""What some channels get: the member of a ServerFrame, or a ChannelClosed; how many bytes the ServerFrame has on the
wire; and to whom it goes, as (channel, id of the request)."""


class LinkError(Exception):
    """The gateway refused a question or cannot be reached.

    reason: a name of the contract's ErrorReason without its prefix, for instance "UNAUTHENTICATED".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Receiver(Protocol):
    """Who hears what comes from the gateway. Neither method may wait or raise."""

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        """Take what came together, in order."""

    def on_lost(self) -> None:
        """Every channel is closed; what was sent and not answered may or may not have been executed."""


class Link(Protocol):
    """The way to the gateway."""

    @property
    def connected(self) -> bool:
        """What is sent now goes out."""

    async def opened(self) -> None:
        """Wait until it is connected."""

    async def run(self, receiver: Receiver) -> None:
        """Keep the connection, making it again whenever it is lost. Ends only by being cancelled."""

    def send(self, request: ChannelRequest) -> None:
        """Send in order, in one batch with whatever else is ready. Dropped while not connected."""

    async def drain(self) -> None:
        """Wait until what was sent and has not left is little enough to send more."""

    async def hello(self, token: str) -> Hello:
        """Ask who the bearer of the token is; empty for a local peer. Raises LinkError."""

    async def readiness(self) -> GetReadinessResponse:
        """Ask whether a chat would work. Raises LinkError."""

    async def metrics(self) -> str:
        """Ask for the gateway's metrics in Prometheus' text format. Raises LinkError."""

    async def read_key(self, provider: str, token: str) -> str:
        """Ask for a provider's key in clear. Raises LinkError."""
