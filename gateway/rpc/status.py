"""Errors on the wire: which gRPC code each reason is, and the google.rpc.Status of a GatewayError. The table is total,
by test."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from agentspace.v1 import error_pb2
from agentspace.v1.error_pb2 import ErrorReason

DOMAIN = "agentspace.dev"

_CODES = {
    error_pb2.ERROR_REASON_INVALID_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_SESSION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_STREAM_IN_PROGRESS: grpc.StatusCode.ABORTED,
    error_pb2.ERROR_REASON_NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    error_pb2.ERROR_REASON_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    error_pb2.ERROR_REASON_MISSING_SCOPE: grpc.StatusCode.PERMISSION_DENIED,
    error_pb2.ERROR_REASON_IDEMPOTENCY_CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    error_pb2.ERROR_REASON_QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_TURN_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_MESSAGE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_ETAG_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_PROVIDER_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    error_pb2.ERROR_REASON_PROVIDER_KEY_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_CONTEXT_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_UPSTREAM_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    error_pb2.ERROR_REASON_UPSTREAM_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_UPSTREAM_REJECTED: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_UPSTREAM_AUTH: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_UPSTREAM_SPEND_LIMIT: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_TURN_INTERRUPTED: grpc.StatusCode.ABORTED,
    error_pb2.ERROR_REASON_SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_STORAGE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_VAULT_UNAVAILABLE: grpc.StatusCode.FAILED_PRECONDITION,
    error_pb2.ERROR_REASON_AUDIT_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_TOO_MANY_STREAMS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    error_pb2.ERROR_REASON_GATEWAY_UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    error_pb2.ERROR_REASON_INTERNAL: grpc.StatusCode.INTERNAL,
    error_pb2.ERROR_REASON_SESSION_DELETED: grpc.StatusCode.NOT_FOUND,
}


def grpc_code(reason: ErrorReason.ValueType) -> grpc.StatusCode:
    """The gRPC code of a reason."""
    return _CODES[reason]


def reason_name(reason: ErrorReason.ValueType) -> str:
    """The reason without its prefix, as ErrorInfo and JSON have it."""
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


def rich_status(error: error_pb2.Error) -> status_pb2.Status:
    """The status with ErrorInfo always, RetryInfo where there is advice, and BadRequest where a field is named."""
    info = error_details_pb2.ErrorInfo(reason=reason_name(error.code), domain=DOMAIN, metadata=dict(error.metadata))
    info.metadata["retryable"] = "true" if error.retryable else "false"
    if error.execution:
        name = error_pb2.Execution.Name(error.execution).removeprefix("EXECUTION_").lower()
        info.metadata["execution"] = name
    if error.turn_id:
        info.metadata["turnId"] = error.turn_id
    details = [_any(info)]
    if error.retry_after_ms:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.code == error_pb2.ERROR_REASON_INVALID_MESSAGE and "field" in error.metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.metadata["field"], description=error.metadata.get("expected", "")
        )
        details.append(_any(error_details_pb2.BadRequest(field_violations=[violation])))
    return status_pb2.Status(code=_CODES[error.code].value[0], message=error.message, details=details)


def _any(
    message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
