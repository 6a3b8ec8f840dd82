"""A secret shows itself to nobody who does not ask."""

import logging

import pytest

from gateway.domain.secret import Secret

CANARY = "sk-ant-canary-0123456789"


def test_only_reveal_gives_it_out(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(CANARY)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("%s %r %s", secret, secret, {"key": [secret]})
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", f"{(secret,)}", "%s" % secret, caplog.text]  # noqa: UP031
    assert all("canary" not in text for text in shown)
    assert secret.reveal() == CANARY


def test_it_has_no_attributes_to_dump() -> None:
    assert not hasattr(Secret(CANARY), "__dict__")


@pytest.mark.parametrize(("value", "masked"), [(CANARY, "…6789"), ("x" * 12, "…xxxx"), ("x" * 11, "…"), ("", "…")])
def test_the_mask_gives_away_four_characters_of_long_keys_only(value: str, masked: str) -> None:
    assert Secret(value).masked() == masked
