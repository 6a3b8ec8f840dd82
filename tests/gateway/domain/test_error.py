"""GatewayError carries the contract's reasons."""

from agentspace.v1 import error_pb2
from gateway.domain.error import (
    NOT_STARTED,
    GatewayError,
    invalid,
    message_not_found,
    session_not_found,
    turn_not_found,
)


def test_an_error_is_safe_until_said_otherwise() -> None:
    error = GatewayError(error_pb2.ERROR_REASON_INTERNAL, "broken")
    assert (error.execution, error.retry_after_ms, error.metadata) == (NOT_STARTED, 0, {})
    assert str(error) == error.message == "broken"


def test_code_is_the_reason_without_its_prefix() -> None:
    assert invalid("title", "text").code == "INVALID_MESSAGE"


def test_metadata_is_the_errors_own() -> None:
    given = {"scope": "keys"}
    error = GatewayError(error_pb2.ERROR_REASON_MISSING_SCOPE, "no", metadata=given)
    given["scope"] = "audit"
    assert error.metadata == {"scope": "keys"}


def test_each_reason_has_the_metadata_the_contract_names() -> None:
    error = invalid("title", "text")
    assert (error.message, error.metadata) == ("title: expected text", {"field": "title", "expected": "text"})
    assert session_not_found("s").metadata == {"sessionId": "s"}
    assert turn_not_found("t").metadata == {"turnId": "t"}
    assert message_not_found("m").metadata == {"messageId": "m"}
