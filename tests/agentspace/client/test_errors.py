"""The tree of exceptions covers the contract."""

import pytest

from agentspace.client import errors
from agentspace.v1.error_pb2 import ErrorReason


def test_every_reason_has_a_class() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}
    assert set(errors.FAMILIES) == reasons


def test_every_class_stands_in_the_drawing() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert errors.__doc__ is not None
    assert classes == {word for word in errors.__doc__.split() if word.endswith("Error")}


def test_build_knows_the_reason_and_keeps_the_details() -> None:
    error = errors.build("QUEUE_FULL", "full", retryable=True, retry_after=2.0, metadata={"limit": "20"})
    assert isinstance(error, errors.LimitReachedError)
    assert str(error) == "QUEUE_FULL: full"
    assert (error.retryable, error.retry_after, error.metadata) == (True, 2.0, {"limit": "20"})


@pytest.mark.parametrize("reason", ["INTERNAL", "OF_A_NEWER_SERVER"])
def test_unknown_reasons_are_faults_of_the_server(reason: str) -> None:
    assert type(errors.build(reason, "")) is errors.ServerError
    assert str(errors.build(reason, "")) == reason
