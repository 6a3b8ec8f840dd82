"""From gRPC statuses to exceptions."""

import grpc
import grpc.aio
import pytest

from agentspace.client import errors, status
from agentspace.v1.error_pb2 import ERROR_REASON_SESSION_DELETED, Error


def failed(code: grpc.StatusCode, said: str = "said") -> errors.AgentSpaceError:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=said)
    return status.from_rpc(error)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.UnreachableError),
        (grpc.StatusCode.CANCELLED, errors.UnreachableError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.DeniedError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.InvalidRequestError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.ServerError),
    ],
)
def test_a_status_of_another_hand(code: grpc.StatusCode, kind: type[Exception]) -> None:
    assert type(failed(code)) is kind
    assert failed(code).message == "said"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("SERVER: Received message larger than max (5242921 vs. 4194304)", errors.InvalidRequestError),
        ("CLIENT: Sent message larger than max (5242921 vs. 4194304)", errors.InvalidRequestError),
        ("CLIENT: Received message larger than max (5242921 vs. 4194304)", errors.ServerError),
    ],
)
def test_a_message_over_the_limit_is_the_fault_of_its_sender(said: str, kind: type[Exception]) -> None:
    assert type(failed(grpc.StatusCode.RESOURCE_EXHAUSTED, said)) is kind


def test_the_contract_says_what_is_retryable() -> None:
    assert status.retryable("UPSTREAM_OVERLOADED")
    assert not status.retryable("SESSION_NOT_FOUND")
    assert not status.retryable("OF_A_NEWER_SERVER")


def test_an_error_message() -> None:
    error = status.from_message(Error(code=ERROR_REASON_SESSION_DELETED, message="gone", metadata={"a": "b"}))
    assert (type(error), error.reason, error.execution) == (errors.NotFoundError, "SESSION_DELETED", "")
    assert (error.retry_after, error.metadata) == (None, {"a": "b"})
