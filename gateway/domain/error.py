"""GatewayError: every failure the gateway announces, as a reason of the contract. Raised everywhere in gateway, turned
into statuses and frames by rpc only.
"""

from collections.abc import Mapping

from agentspace.v1 import error_pb2
from agentspace.v1.error_pb2 import ErrorReason, Execution

NOT_STARTED = error_pb2.EXECUTION_NOT_STARTED
MAY_HAVE_EXECUTED = error_pb2.EXECUTION_MAY_HAVE_EXECUTED


class GatewayError(Exception):
    """A failure with a reason.

    `message` is for people and holds no secret; `metadata` has every changing part of it under the names that
    error.proto gives for the reason. `retry_after_ms` 0 means no advice.
    """

    def __init__(
        self,
        reason: ErrorReason.ValueType,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int = 0,
        execution: Execution.ValueType = NOT_STARTED,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_ms = retry_after_ms
        self.execution = execution

    @property
    def code(self) -> str:
        """The reason without its prefix, for instance "SESSION_NOT_FOUND"."""
        return error_pb2.ErrorReason.Name(self.reason).removeprefix("ERROR_REASON_")


def invalid(field: str, expected: str) -> GatewayError:
    """INVALID_MESSAGE for a field whose value is not what was expected."""
    return GatewayError(
        error_pb2.ERROR_REASON_INVALID_MESSAGE,
        f"{field}: expected {expected}",
        metadata={"field": field, "expected": expected},
    )


def session_not_found(session_id: str) -> GatewayError:
    """SESSION_NOT_FOUND."""
    return GatewayError(
        error_pb2.ERROR_REASON_SESSION_NOT_FOUND,
        f"there is no session {session_id!r}",
        metadata={"sessionId": session_id},
    )


def message_not_found(message_id: str) -> GatewayError:
    """MESSAGE_NOT_FOUND."""
    return GatewayError(
        error_pb2.ERROR_REASON_MESSAGE_NOT_FOUND,
        f"the session's present history has no message {message_id!r}",
        metadata={"messageId": message_id},
    )


def turn_not_found(turn_id: str) -> GatewayError:
    """TURN_NOT_FOUND."""
    return GatewayError(
        error_pb2.ERROR_REASON_TURN_NOT_FOUND, f"there is no turn {turn_id!r}", metadata={"turnId": turn_id}
    )
