"""Who callers are and what they may do."""

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.access import ALL_SCOPES, LOCAL, OPERATOR, Credentials
from gateway.domain.error import GatewayError

TOKEN = "operator-token-0123456789"


def test_the_operator_is_told_by_the_token() -> None:
    assert Credentials(TOKEN, trust_local=False).identify(TOKEN) is OPERATOR


def test_no_token_is_local_only_where_that_is_trusted() -> None:
    assert Credentials(TOKEN, trust_local=True).identify("") is LOCAL
    with pytest.raises(GatewayError, match="needed"):
        Credentials(TOKEN, trust_local=False).identify("")


@pytest.mark.parametrize("token", ["x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä", "\udcff"])
@pytest.mark.parametrize("trust_local", [True, False])
def test_a_wrong_token_is_refused_even_where_none_would_do(token: str, trust_local: bool) -> None:
    with pytest.raises(GatewayError) as caught:
        Credentials(TOKEN, trust_local=trust_local).identify(token)
    assert caught.value.reason == error_pb2.ERROR_REASON_UNAUTHENTICATED
    assert token not in caught.value.message or len(token) == 1


def test_credentials_do_not_keep_the_token() -> None:
    credentials = Credentials(TOKEN, trust_local=True)
    assert TOKEN not in repr(vars(credentials))


def test_local_callers_never_touch_keys_or_audit() -> None:
    for scope in ("keys", "keys:read", "audit"):
        with pytest.raises(GatewayError) as caught:
            LOCAL.require(scope)
        assert caught.value.reason == error_pb2.ERROR_REASON_MISSING_SCOPE
        assert caught.value.metadata == {"scope": scope}
    for scope in ("", "chat", "sessions", "usage"):
        LOCAL.require(scope)


def test_the_operator_may_do_everything() -> None:
    for scope in ("", *ALL_SCOPES):
        OPERATOR.require(scope)
