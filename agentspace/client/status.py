"""From gRPC statuses and the contract's Error message to exceptions. Called by stream and gateway."""

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from agentspace.client import errors
from agentspace.v1 import annotations_pb2, error_pb2

DOMAIN = "agentspace.dev"
STATUS_TRAILER = "grpc-status-details-bin"
PREFIX = "ERROR_REASON_"
BROKEN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
"""Codes that mean a broken connection or a dying server when no ErrorInfo of ours comes with them."""
TOO_LARGE = ("SERVER: Received message larger than max", "CLIENT: Sent message larger than max")
"""How gRPC itself begins when a request is over a limit; the code alone says no more than that something ran out."""


def from_rpc(error: grpc.aio.AioRpcError) -> errors.AgentSpaceError:
    """The exception of a failed call."""
    status = _status(error)
    reason, metadata, retry_after = "", {}, None
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    if reason:
        # Beside the reason's own metadata the gateway tells there what an Error message has fields for.
        said, execution = metadata.pop("retryable", ""), metadata.pop("execution", "")
        return errors.build(
            reason,
            status.message,
            retryable=said == "true" if said else retryable(reason),
            retry_after=retry_after,
            metadata=metadata,
            execution=execution,
        )
    text = error.details() or error.code().name
    if error.code() in BROKEN:
        return errors.unreachable(text)
    if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return errors.build("UNAUTHENTICATED", text)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return errors.build("NOT_IMPLEMENTED", text)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and text.startswith(TOO_LARGE):
        return errors.build("INVALID_MESSAGE", text)
    return errors.build("INTERNAL", text)


def from_message(error: error_pb2.Error) -> errors.AgentSpaceError:
    """The exception of a turn's terminal error."""
    execution = error_pb2.Execution.Name(error.execution).removeprefix("EXECUTION_").lower()
    return errors.build(
        error_pb2.ErrorReason.Name(error.code).removeprefix(PREFIX),
        error.message,
        retryable=error.retryable,
        retry_after=error.retry_after_ms / 1000 or None,
        metadata=error.metadata,
        execution="" if execution == "unspecified" else execution,
        session_id=error.session_id,
        turn_id=error.turn_id,
    )


def retryable(reason: str) -> bool:
    """What the contract says of a reason; False for one this client does not know."""
    value = error_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(PREFIX + reason)
    return value is not None and value.GetOptions().Extensions[annotations_pb2.reason].retryable


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_TRAILER and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()
