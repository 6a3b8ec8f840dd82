"""Why a socket is closed: every close code with its reason, and whether the client should connect again.

Used by protocol.py, channels.py and websocket.py. The documentation prints this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Closing:
    """A close code, the reason that travels with it (at most 123 bytes) and what the client should do.

    reconnect: connecting again, after a short and random wait, may work without a change.
    """

    code: int
    reason: str
    reconnect: bool

    def frame(self) -> bytes:
        """The close frame that says so (RFC 6455, section 5.5.1)."""
        payload = self.code.to_bytes(2) + self.reason.encode()
        return bytes((0x88, len(payload))) + payload


NORMAL = Closing(1000, "closed", reconnect=False)
GOING_AWAY = Closing(1001, "going away", reconnect=True)
PROTOCOL_ERROR = Closing(1002, "the WebSocket protocol was broken", reconnect=False)
BINARY = Closing(1003, "text frames only", reconnect=False)
ABNORMAL = Closing(1006, "the connection was lost", reconnect=True)
INVALID_TEXT = Closing(1007, "text must be UTF-8", reconnect=False)
TOO_BIG = Closing(1009, "a frame holds at most 1 MiB", reconnect=False)
INTERNAL = Closing(1011, "a fault of the server", reconnect=True)
RESTART = Closing(1012, "the service restarts: connect again and resume", reconnect=True)
TRY_LATER = Closing(1013, "the gateway cannot be reached: try again later", reconnect=True)
UNAUTHENTICATED = Closing(4401, "the token is unknown, expired or revoked", reconnect=False)

TABLE = (
    NORMAL,
    GOING_AWAY,
    PROTOCOL_ERROR,
    BINARY,
    ABNORMAL,
    INVALID_TEXT,
    TOO_BIG,
    INTERNAL,
    RESTART,
    TRY_LATER,
    UNAUTHENTICATED,
)
"""All of them by code. 1000 and 1001 also come from clients; 1006 is never sent, only seen."""
