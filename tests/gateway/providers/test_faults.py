"""Which fault is which error, and that no error tells a secret."""

import json
from typing import Any

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import MAY_HAVE_EXECUTED, NOT_STARTED, GatewayError
from gateway.providers import faults

KEY = "sk-ant-secret-0123456789"


def refused(
    status: int, kind: str = "x_error", message: str = "words", code: str = "", headers: dict[str, str] | None = None
) -> GatewayError:
    error = {"type": kind, "message": message, "details": {"error_code": code}}
    return faults.refused(
        "anthropic", status, json.dumps({"type": "error", "error": error}).encode(), headers or {}, KEY
    )


def name(error: GatewayError) -> str:
    return error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


@pytest.mark.parametrize(
    ("status", "message", "code", "reason", "execution"),
    [
        (400, "max_tokens: too large", "", "UPSTREAM_REJECTED", NOT_STARTED),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", "", "CONTEXT_TOO_LARGE", NOT_STARTED),
        (400, "the request exceeds the available context size", "", "CONTEXT_TOO_LARGE", NOT_STARTED),
        (400, "input length and `max_tokens` exceed context limit", "", "CONTEXT_TOO_LARGE", NOT_STARTED),
        (400, "You have reached your specified API usage limits.", "", "UPSTREAM_SPEND_LIMIT", NOT_STARTED),
        (400, "Your credit balance is too low", "", "UPSTREAM_SPEND_LIMIT", NOT_STARTED),
        (401, "invalid key", "", "UPSTREAM_AUTH", NOT_STARTED),
        (402, "billing", "", "UPSTREAM_SPEND_LIMIT", NOT_STARTED),
        (403, "no", "", "UPSTREAM_AUTH", NOT_STARTED),
        (403, "no", "linked_organization_spend_limit_reached", "UPSTREAM_SPEND_LIMIT", NOT_STARTED),
        (404, "model: claude-x", "", "UPSTREAM_REJECTED", NOT_STARTED),
        (408, "", "", "UPSTREAM_OVERLOADED", NOT_STARTED),
        (409, "", "", "UPSTREAM_OVERLOADED", NOT_STARTED),
        (413, "", "", "CONTEXT_TOO_LARGE", NOT_STARTED),
        (422, "", "", "UPSTREAM_REJECTED", NOT_STARTED),
        (429, "", "", "UPSTREAM_RATE_LIMITED", NOT_STARTED),
        (429, "", "ramp_limit_exceeded", "UPSTREAM_RATE_LIMITED", NOT_STARTED),
        (429, "", "enforced_spend_limit_reached", "UPSTREAM_SPEND_LIMIT", NOT_STARTED),
        (500, "", "", "UPSTREAM_OVERLOADED", MAY_HAVE_EXECUTED),
        (504, "", "", "UPSTREAM_OVERLOADED", MAY_HAVE_EXECUTED),
        (529, "", "", "UPSTREAM_OVERLOADED", NOT_STARTED),
    ],
)
def test_refusals(status: int, message: str, code: str, reason: str, execution: int) -> None:
    error = refused(status, message=message, code=code)
    assert (name(error), error.execution) == (reason, execution)


def test_metadata_has_what_the_contract_names() -> None:
    assert refused(400, "invalid_request_error").metadata == {"status": "400", "upstreamType": "invalid_request_error"}
    assert refused(401).metadata == {"status": "401", "provider": "anthropic"}
    assert refused(529).metadata == {"status": "529"}
    assert refused(400, message="prompt is too long: 9 tokens > 8 maximum").metadata == {"limitTokens": "8"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("overloaded_error", "UPSTREAM_OVERLOADED"),
        ("api_error", "UPSTREAM_OVERLOADED"),
        ("timeout_error", "UPSTREAM_OVERLOADED"),
        ("rate_limit_error", "UPSTREAM_RATE_LIMITED"),
        ("invalid_request_error", "UPSTREAM_REJECTED"),
        ("authentication_error", "UPSTREAM_AUTH"),
        ("billing_error", "UPSTREAM_SPEND_LIMIT"),
        ("something_new", "UPSTREAM_OVERLOADED"),
        (None, "UPSTREAM_OVERLOADED"),
        ([], "UPSTREAM_OVERLOADED"),
    ],
)
def test_errors_in_the_stream_may_have_executed(kind: Any, reason: str) -> None:
    error = faults.broken_off("anthropic", {"type": kind, "message": "m"}, KEY)
    assert (name(error), error.execution) == (reason, MAY_HAVE_EXECUTED)


@pytest.mark.parametrize("error", [None, "text", [1], {"message": 5, "type": {}, "details": 3}])
def test_any_shape_of_error_will_do(error: object) -> None:
    assert name(faults.broken_off("anthropic", error, KEY)) == "UPSTREAM_OVERLOADED"
    assert name(faults.refused("anthropic", 418, json.dumps({"error": error}).encode(), {}, KEY)) == "UPSTREAM_REJECTED"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"null", b"[]", b"5", b'"x"', b"{}", b"\xff", b'{"error": "\\ud800"}']
)
def test_any_body_will_do(body: bytes) -> None:
    error = faults.refused("anthropic", 503, body, {}, KEY)
    assert (name(error), error.message) == ("UPSTREAM_OVERLOADED", "anthropic answered 503: no explanation")


def test_an_error_without_its_wrapping_is_understood() -> None:
    error = faults.refused("local", 400, b'{"type": "x", "message": "prompt is too long"}', {}, "")
    assert name(error) == "CONTEXT_TOO_LARGE"


@pytest.mark.parametrize(
    ("headers", "milliseconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7000),
        ({"retry-after": "0.25"}, 250),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "0.0001"}, 1),
        ({"retry-after": ""}, 0),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "inf"}, faults.LONGEST_RETRY_MS),
        ({"retry-after": "99999999999"}, faults.LONGEST_RETRY_MS),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 00:00:30 GMT", "date": "Mon, 23 Nov 2026 00:00:00 GMT"}, 30_000),
        ({"retry-after": "Mon, 23 Nov 2026 00:00:00 GMT", "date": "Mon, 23 Nov 2026 00:00:30 GMT"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 00:00:00 GMT", "date": "Mon, 23 Nov 2026 00:00:00 GMT"}, 1),
        ({"retry-after": f"Mon, 23 Nov {'9' * 20} 00:00:00 GMT", "date": "Mon, 23 Nov 2026 00:00:00 GMT"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 00:00:00 GMT", "date": f"Mon, 23 Nov 2026 00:00:00 +{'9' * 20}"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 00:00:30 GMT"}, 0),
        ({"retry-after": "Mon, 23 Nov 2026 00:00:30 GMT", "date": "Mon, 23 Nov 2026 00:00:00"}, 0),
    ],
)
def test_advice_to_wait(headers: dict[str, str], milliseconds: int) -> None:
    assert refused(429, headers=headers).retry_after_ms == milliseconds


@pytest.mark.parametrize("said", [f"key {KEY} is bad", "x" * 295 + KEY, "\x1b[31mred\r\n\x00\x9b", "y" * 5000])
def test_the_providers_words_are_made_harmless(said: str) -> None:
    for error in (refused(400, kind=said, message=said, code=said), refused(401, message=said)):
        everything = f"{error.message} {error.metadata}"
        assert "sk-ant-secret" not in everything
        assert everything.isprintable()
        assert len(everything) < 600


def test_pieces_of_the_key_are_masked_and_nothing_else() -> None:
    key = "sk-ant-" + "0123456789abcdef" * 3
    said = f"{key[:20]}... or ...{key[-14:]} of {key}{key}, ending in {key[-4:]}"
    assert faults.words(said, key) == "…... or ...… of …, ending in cdef"
    assert faults.words("a short one", "short") == "a … one"
    assert faults.words("no key", "") == "no key"


def test_plain_faults() -> None:
    assert name(faults.truncated("anthropic", "stopped")) == "UPSTREAM_TRUNCATED"
    assert faults.truncated("anthropic", "stopped").execution == MAY_HAVE_EXECUTED
    assert name(faults.unreachable("anthropic")) == "UPSTREAM_UNREACHABLE"
    assert faults.unreachable("anthropic").execution == NOT_STARTED
    assert faults.silent("anthropic").metadata == {"limit": "idle"}
    assert faults.missing_key("anthropic").metadata == {"provider": "anthropic"}
    assert name(faults.unusable_key("anthropic")) == "UPSTREAM_AUTH"
