"""The bearer token, before it is sent."""

import pytest

from agentspace.client.credentials import authorization
from agentspace.client.errors import DeniedError


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_no_token_is_no_header(token: str | None) -> None:
    assert authorization(token) == ""


def test_white_space_around_it_is_left_out() -> None:
    assert authorization(" secret\r\n") == "Bearer secret"


@pytest.mark.parametrize("token", ["hunter\n2", "hünter2", "hunter\x7f2", "hunter\udce92"])
def test_what_no_header_can_carry_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(DeniedError) as caught:
        authorization(token)
    assert "hunter" not in str(caught.value)
