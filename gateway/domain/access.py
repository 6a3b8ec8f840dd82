"""Who may do what: principals, scopes and the credentials they come from."""

import hashlib
import hmac
from dataclasses import dataclass

from agentspace.v1 import error_pb2
from gateway.domain.error import GatewayError

ALL_SCOPES = ("chat", "sessions", "usage", "keys", "keys:read", "audit")
LOCAL_SCOPES = ("chat", "sessions", "usage")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `name` scopes idempotency keys and appears in the audit log."""

    name: str
    scopes: tuple[str, ...]

    def require(self, scope: str) -> None:
        """Raises MISSING_SCOPE unless the principal holds `scope`; the empty scope is everybody's."""
        if scope and scope not in self.scopes:
            raise GatewayError(
                error_pb2.ERROR_REASON_MISSING_SCOPE,
                f"this needs the scope {scope!r}; send the operator's bearer token",
                metadata={"scope": scope},
            )


LOCAL = Principal("local", LOCAL_SCOPES)
OPERATOR = Principal("operator", ALL_SCOPES)


class Credentials:
    """Tells principals by bearer token. Keeps a hash only; compares in constant time."""

    def __init__(self, operator_token: str, *, trust_local: bool) -> None:
        self._operator = _digest(operator_token)
        self._trust_local = trust_local

    def identify(self, bearer_token: str, *, vouched: bool = False) -> Principal:
        """The caller with that token; without one, `local` where the door is a local one, or where a peer of the same
        machine and user, who looks at the callers himself, vouches for this one.

        Raises UNAUTHENTICATED otherwise.
        """
        if not bearer_token and (self._trust_local or vouched):
            return LOCAL
        if bearer_token and hmac.compare_digest(_digest(bearer_token), self._operator):
            return OPERATOR
        raise GatewayError(
            error_pb2.ERROR_REASON_UNAUTHENTICATED,
            "the bearer token is not known" if bearer_token else "a bearer token is needed",
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
