"""One connection's protocol without its socket: text in, actions out; frames of the gateway in, text out.

Called by channels.py; calls frames.py. Does no I/O, so that every rule here is tested without a socket.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from agentspace.v1 import annotations_pb2, error_pb2, turn_pb2
from agentspace.v1.frame_pb2 import ClientFrame
from agentspace.v1.gateway_service_pb2 import CloseReason
from bridge import closing
from bridge.closing import Closing
from bridge.decoding import FrameError
from bridge.frames import Codec

SUBPROTOCOLS = {"agentspace.v1": 1, "agentspace.v2": 2}
"""WebSocket subprotocol to level."""
MAX_PENDING = 256
"""How many requests of a level 1 connection may be unanswered at once."""
UNFINISHED = frozenset({turn_pb2.SessionCreated, turn_pb2.TurnStarted, turn_pb2.TextDelta})
"""Frames of level 1 after which more follows for the same request."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Hand the frame to the gateway."""

    frame: ClientFrame


@dataclass(frozen=True, slots=True)
class Send:
    """Send the text to the client."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket."""

    closing: Closing


Action = Forward | Send | Close


def negotiate(offered: Sequence[str]) -> tuple[int, str] | None:
    """Choose the level and the subprotocol to name in the answer ("" for none) from what the client offers.

    The first known offer wins; no offer is level 1. None: only unknown ones were offered, refuse the handshake.
    """
    for name in offered:
        if name in SUBPROTOCOLS:
            return SUBPROTOCOLS[name], name
    return None if offered else (1, "")


class Protocol:
    """What a connection of the codec's level may say and what it is told."""

    __slots__ = ("_codec", "_pending", "level")

    def __init__(self, codec: Codec) -> None:
        self.level = codec.level
        self._codec = codec
        # Only level 1 has to be told of its requests one by one when the gateway is lost: level 2 resumes.
        self._pending: Counter[str] | None = Counter() if codec.level == 1 else None

    def receive(self, text: str | bytes) -> list[Action]:
        """Take a text frame of the client."""
        try:
            frame = self._codec.decode(text)
        except FrameError as error:
            return [Send(self._invalid(error))]
        if self._pending is not None:
            if self._pending.total() >= MAX_PENDING:
                limit = {"limit": str(MAX_PENDING)}
                reason = error_pb2.ERROR_REASON_TOO_MANY_STREAMS
                return [Send(self._error(reason, "too many requests are unanswered", limit, frame.id))]
            self._pending[frame.id] += 1
        return [Forward(frame)]

    def answered(self, kind: type[Message], request_id: str) -> None:
        """A frame of the gateway, whose body is of the class `kind`, goes to a client of level 1."""
        if self._pending and kind not in UNFINISHED:
            self._settle(request_id)

    def unreachable(self, frame: ClientFrame) -> list[Action]:
        """Answer a frame that cannot be forwarded, because there is no connection to the gateway."""
        self._settle(frame.id)
        return [Send(self._unreachable(frame.id))]

    def lost(self) -> list[Action]:
        """The gateway is gone and with it everything that was asked: say so. At level 2 the client shall resume."""
        if self._pending is None:
            return [Close(closing.RESTART)]
        texts: list[Action] = [Send(self._unreachable(request_id)) for request_id in self._pending.elements()]
        self._pending.clear()
        return texts

    def closed(self, reason: CloseReason.ValueType) -> list[Action]:
        """The gateway closed the channel."""
        return [Close(CLOSINGS.get(reason, closing.INTERNAL))]

    def _settle(self, request_id: str) -> None:
        if self._pending is not None and request_id in self._pending:
            self._pending[request_id] -= 1
            if not self._pending[request_id]:
                del self._pending[request_id]

    def _invalid(self, error: FrameError) -> bytes:
        metadata = {"field": error.field, "expected": error.expected}
        return self._error(error_pb2.ERROR_REASON_INVALID_MESSAGE, error.message, metadata, error.request_id)

    def _unreachable(self, request_id: str) -> bytes:
        reason = error_pb2.ERROR_REASON_GATEWAY_UNREACHABLE
        return self._error(reason, "the gateway cannot be reached at the moment", {}, request_id)

    def _error(
        self, reason: error_pb2.ErrorReason.ValueType, message: str, metadata: dict[str, str], request_id: str
    ) -> bytes:
        value = error_pb2.ErrorReason.DESCRIPTOR.values_by_number[reason]
        retryable = value.GetOptions().Extensions[annotations_pb2.reason].retryable
        error = error_pb2.Error(code=reason, message=message, retryable=retryable, metadata=metadata)
        text = self._codec.encode(error, request_id)
        assert text is not None, "every level has the error frame"
        return text


CLOSINGS = {
    CloseReason.CLOSE_REASON_UNAUTHENTICATED: closing.UNAUTHENTICATED,
    CloseReason.CLOSE_REASON_RESTART: closing.RESTART,
    CloseReason.CLOSE_REASON_PROTOCOL: closing.INTERNAL,
}
"""The gateway's reason to the client's; a broken rule of Connect is the bridge's fault, not the client's."""
