"""What calls raise. Built by status (gRPC) and websocket (JSON) from the contract's error reasons; caught by users.

AgentSpaceError
    UnreachableError       nobody answers, the server is going down, or the connection broke and stayed broken
    DeniedError            no credentials, bad ones, or a scope is missing
    InvalidRequestError    the request is malformed, or the server does not know it
    NotFoundError          no such session, turn, message, model or provider
    ConflictError          the session is busy, or something changed meanwhile
    LimitReachedError      a queue or the number of streams is full
    ProviderError          the model's provider failed or refused, or its key is missing
    TurnInterruptedError   the gateway stopped before the answer was complete
    ServerError            a fault of the server
        StreamGapError     the answer could not be continued without a gap or a repeat
"""

from collections.abc import Mapping
from typing import Any


class AgentSpaceError(Exception):
    """A failed request, or a turn that ended without a complete answer.

    reason: the contract's ErrorReason without its prefix, for instance "SESSION_NOT_FOUND".
    message: for people. retryable: the same request may succeed later. retry_after: seconds to wait first; None: no
    advice. metadata: the changing parts of the message. execution: "not_started", "may_have_executed" or "" (unknown).
    session_id, turn_id: set when the error ended a turn.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        execution: str = "",
        session_id: str = "",
        turn_id: str = "",
    ) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})
        self.execution = execution
        self.session_id = session_id
        self.turn_id = turn_id


class UnreachableError(AgentSpaceError):
    """Nobody answers, the server is going down, or the connection broke and stayed broken."""


class DeniedError(AgentSpaceError):
    """No credentials, bad ones, or a scope is missing (metadata "scope")."""


class InvalidRequestError(AgentSpaceError):
    """The request is malformed (metadata "field", "expected"), or the server does not know it."""


class NotFoundError(AgentSpaceError):
    """No such session, turn, message, model or provider."""


class ConflictError(AgentSpaceError):
    """The session is busy (metadata "turnId"), or something changed meanwhile."""


class LimitReachedError(AgentSpaceError):
    """A queue or the number of streams is full (metadata "limit")."""


class ProviderError(AgentSpaceError):
    """The model's provider failed or refused, or its key is missing."""


class TurnInterruptedError(AgentSpaceError):
    """The gateway stopped before the answer was complete; the text up to the last checkpoint is stored. Sending the
    message again needs a new idempotency key."""


class ServerError(AgentSpaceError):
    """A fault of the server."""


class StreamGapError(ServerError):
    """The answer could not be continued without a gap or a repeat. What is stored can be read with list_messages."""


FAMILIES: Mapping[str, type[AgentSpaceError]] = {
    "INVALID_MESSAGE": InvalidRequestError,
    "SESSION_NOT_FOUND": NotFoundError,
    "STREAM_IN_PROGRESS": ConflictError,
    "NOT_IMPLEMENTED": InvalidRequestError,
    "UNAUTHENTICATED": DeniedError,
    "MISSING_SCOPE": DeniedError,
    "IDEMPOTENCY_CONFLICT": ConflictError,
    "QUEUE_FULL": LimitReachedError,
    "TURN_NOT_FOUND": NotFoundError,
    "MESSAGE_NOT_FOUND": NotFoundError,
    "MODEL_NOT_FOUND": NotFoundError,
    "ETAG_MISMATCH": ConflictError,
    "PROVIDER_NOT_FOUND": NotFoundError,
    "PROVIDER_KEY_MISSING": ProviderError,
    "CONTEXT_TOO_LARGE": ProviderError,
    "UPSTREAM_OVERLOADED": ProviderError,
    "UPSTREAM_RATE_LIMITED": ProviderError,
    "UPSTREAM_TIMEOUT": ProviderError,
    "UPSTREAM_UNREACHABLE": ProviderError,
    "UPSTREAM_TRUNCATED": ProviderError,
    "UPSTREAM_REJECTED": ProviderError,
    "UPSTREAM_AUTH": ProviderError,
    "UPSTREAM_SPEND_LIMIT": ProviderError,
    "TURN_INTERRUPTED": TurnInterruptedError,
    "SHUTTING_DOWN": UnreachableError,
    "STORAGE_UNAVAILABLE": ServerError,
    "VAULT_UNAVAILABLE": ServerError,
    "AUDIT_UNAVAILABLE": ServerError,
    "TOO_MANY_STREAMS": LimitReachedError,
    "GATEWAY_UNREACHABLE": UnreachableError,
    "INTERNAL": ServerError,
    "SESSION_DELETED": NotFoundError,
}
"""The class of every reason; a reason of a newer server is a ServerError."""


def build(reason: str, message: str, **details: Any) -> AgentSpaceError:
    """The exception of a reason; `details` are AgentSpaceError's keyword arguments."""
    return FAMILIES.get(reason, ServerError)(reason, message, **details)


def unreachable(message: str) -> UnreachableError:
    """A connection that could not be made or that broke."""
    return UnreachableError("GATEWAY_UNREACHABLE", message, retryable=True)


def untrusted(url: str, why: str) -> UnreachableError:
    """A server whose TLS certificate does not count; to try again does not help."""
    message = f"the certificate of {url} is not trusted: {why}; SSL_CERT_FILE can name those that are"
    return UnreachableError("GATEWAY_UNREACHABLE", message)
