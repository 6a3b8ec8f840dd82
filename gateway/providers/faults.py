"""Every fault of the Messages API as one GatewayError. anthropic asks it; nothing of the request or of the key gets
into an error, and of the provider's own words only a short, clean piece.
"""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from agentspace.v1 import error_pb2
from agentspace.v1.error_pb2 import ErrorReason, Execution
from gateway.domain.error import MAY_HAVE_EXECUTED, NOT_STARTED, GatewayError

WORDS_LIMIT = 300
PIECE = 12
"""How many characters of a key in a row give something away."""
LONGEST_RETRY_MS = 24 * 60 * 60 * 1000

# The status a type of error has when it comes as the answer to a request; `error` events have no status of their own.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_SPENT = re.compile(r"credit balance|spend(ing)?[ _](limit|cap)|usage limits?\b|_billing_|_not_billable", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"prompt is too long|exceeds? .{0,40}context|context (window|length|size).{0,40}exceed|exceed_context",
    re.IGNORECASE,
)
_LIMIT = re.compile(r"> ?(\d+) maximum")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def words(text: object, key: str) -> str:
    """The provider's words, fit for people: the key and its pieces masked, no control characters, at most WORDS_LIMIT
    characters."""
    said = text[: 10 * WORDS_LIMIT] if isinstance(text, str) else ""
    return _UNPRINTABLE.sub(" ", _masked(said, key))[:WORDS_LIMIT].strip()


def _masked(said: str, key: str) -> str:
    """Without any PIECE characters of the key in a row: some providers repeat the half of it."""
    length = min(PIECE, len(key))
    if not length:
        return said
    pieces = {key[at : at + length] for at in range(len(key) - length + 1)}
    hidden: set[int] = set()
    for at in range(len(said) - length + 1):
        if said[at : at + length] in pieces:
            hidden.update(range(at, at + length))
    shown = ["…" if at in hidden else character for at, character in enumerate(said)]
    return re.sub("…+", "…", "".join(shown))


def refused(provider: str, status: int, body: bytes, headers: Mapping[str, str], key: str) -> GatewayError:
    """The answer was an HTTP error: its status, its body (whatever it is) and its headers (in whatever case)."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    # Not every server that speaks the API wraps its errors as the API does.
    error = said.get("error", said) if isinstance(said, dict) else None
    execution = NOT_STARTED if 300 <= status < 500 or status == 529 else MAY_HAVE_EXECUTED
    return _fault(provider, status, error, key, _retry_after_ms(headers), execution)


def broken_off(provider: str, error: object, key: str) -> GatewayError:
    """An `error` event ended the stream: its `error` object."""
    kind = error.get("type") if isinstance(error, Mapping) else None
    status = _STATUS.get(kind, 500) if isinstance(kind, str) else 500
    return _fault(provider, status, error, key, 0, MAY_HAVE_EXECUTED)


def truncated(provider: str, how: str) -> GatewayError:
    """The answer stopped before its end."""
    return GatewayError(
        error_pb2.ERROR_REASON_UPSTREAM_TRUNCATED,
        f"{provider}: the answer {how} before its end",
        execution=MAY_HAVE_EXECUTED,
    )


def unreachable(provider: str) -> GatewayError:
    """No connection."""
    return GatewayError(error_pb2.ERROR_REASON_UPSTREAM_UNREACHABLE, f"{provider}: no connection could be made")


def silent(provider: str) -> GatewayError:
    """The transport's own time limit, far above those of a turn, ran out."""
    return GatewayError(
        error_pb2.ERROR_REASON_UPSTREAM_TIMEOUT,
        f"{provider}: nothing was heard for too long",
        metadata={"limit": "idle"},
        execution=MAY_HAVE_EXECUTED,
    )


def unusable_key(provider: str) -> GatewayError:
    """The key cannot even be sent."""
    return GatewayError(
        error_pb2.ERROR_REASON_UPSTREAM_AUTH,
        f"{provider}: the key holds characters that no key has",
        metadata={"status": "", "provider": provider},
    )


def missing_key(provider: str) -> GatewayError:
    """There is no key."""
    return GatewayError(
        error_pb2.ERROR_REASON_PROVIDER_KEY_MISSING,
        f"there is no key for {provider!r}",
        metadata={"provider": provider},
    )


def _fault(
    provider: str, status: int, error: object, key: str, retry_after_ms: int, execution: Execution.ValueType
) -> GatewayError:
    detail: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    kind = words(detail.get("type"), key)[:64]
    said = words(detail.get("message"), key)
    causes = detail.get("details")
    code = words(causes.get("error_code"), key) if isinstance(causes, Mapping) else ""
    reason, metadata = _reason(provider, status, kind, f"{kind} {code} {said}")
    return GatewayError(
        reason,
        f"{provider} answered {status}: {said or kind or 'no explanation'}",
        metadata=metadata,
        retry_after_ms=retry_after_ms,
        execution=execution,
    )


def _reason(provider: str, status: int, kind: str, everything: str) -> tuple[ErrorReason.ValueType, dict[str, str]]:
    number = {"status": str(status)}
    if status == 402 or (status in (400, 403, 429) and _SPENT.search(everything)):
        return error_pb2.ERROR_REASON_UPSTREAM_SPEND_LIMIT, number
    if status in (401, 403):
        return error_pb2.ERROR_REASON_UPSTREAM_AUTH, {**number, "provider": provider}
    if status == 429:
        return error_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED, number
    if status in (408, 409) or status >= 500:
        return error_pb2.ERROR_REASON_UPSTREAM_OVERLOADED, number
    if status == 413 or (status == 400 and _TOO_LONG.search(everything)):
        limit = _LIMIT.search(everything)
        return error_pb2.ERROR_REASON_CONTEXT_TOO_LARGE, {"limitTokens": limit[1] if limit else ""}
    return error_pb2.ERROR_REASON_UPSTREAM_REJECTED, {**number, "upstreamType": kind}


def _retry_after_ms(headers: Mapping[str, str]) -> int:
    """The advice in milliseconds, at most a day. A date is measured against the answer's own `date`.

    0 is none, so "at once" is 1: run_turn takes a rate limit without advice for final.
    """
    given = headers.get("retry-after", "")
    try:
        wait = float(given) * 1000
    except ValueError:
        try:
            wait = (
                parsedate_to_datetime(given) - parsedate_to_datetime(headers.get("date", ""))
            ).total_seconds() * 1000
        except (ValueError, TypeError, OverflowError):
            return 0
    # Not a number compares as False.
    return max(round(min(wait, LONGEST_RETRY_MS)), 1) if wait >= 0 else 0
