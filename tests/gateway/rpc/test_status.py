"""status.py: the table of reasons is total, and a status carries what the contract promises."""

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from agentspace.v1 import error_pb2
from agentspace.v1.error_pb2 import ErrorReason
from gateway.domain import turn_event
from gateway.domain.error import GatewayError, invalid
from gateway.rpc.status import DOMAIN, grpc_code, reason_name, rich_status

REASONS = [number for number in ErrorReason.values() if number != error_pb2.ERROR_REASON_UNSPECIFIED]


def details(status: status_pb2.Status, kind: type[Message]) -> list[Any]:
    found = []
    for packed in status.details:
        detail = kind()
        if packed.Unpack(detail):
            found.append(detail)
    return found


@pytest.mark.parametrize("reason", REASONS, ids=ErrorReason.Name)
def test_every_reason_is_a_status(reason: ErrorReason.ValueType) -> None:
    code = grpc_code(reason)
    assert code not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    status = rich_status(turn_event.error_message(GatewayError(reason, "why")))
    assert (status.code, status.message) == (code.value[0], "why")
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert (info.domain, f"ERROR_REASON_{info.reason}") == (DOMAIN, ErrorReason.Name(reason))
    assert info.metadata["retryable"] == str(turn_event.is_retryable(reason)).lower()
    assert info.metadata["execution"] == "not_started"


@pytest.mark.parametrize("reason", REASONS, ids=ErrorReason.Name)
def test_what_grpc_clients_retry_by_themselves_is_retryable(reason: ErrorReason.ValueType) -> None:
    if grpc_code(reason) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        assert turn_event.is_retryable(reason)


def test_unspecified_is_no_reason() -> None:
    with pytest.raises(KeyError):
        grpc_code(error_pb2.ERROR_REASON_UNSPECIFIED)


def test_name_has_no_prefix() -> None:
    assert reason_name(error_pb2.ERROR_REASON_QUEUE_FULL) == "QUEUE_FULL"


def test_advice_to_wait() -> None:
    error = GatewayError(error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED, "busy", retry_after_ms=1500)
    (retry,) = details(rich_status(turn_event.error_message(error)), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


def test_a_field_is_named() -> None:
    status = rich_status(turn_event.error_message(invalid("content", "not blank")))
    (bad,) = details(status, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("content", "not blank")]


def test_a_turns_error_names_the_turn() -> None:
    error = error_pb2.Error(
        code=error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED,
        turn_id="turn_1",
        execution=error_pb2.EXECUTION_MAY_HAVE_EXECUTED,
        metadata={"status": "500"},
    )
    (info,) = details(rich_status(error), error_details_pb2.ErrorInfo)
    assert info.metadata["turnId"] == "turn_1"
    assert info.metadata["execution"] == "may_have_executed"
    assert info.metadata["status"] == "500"
