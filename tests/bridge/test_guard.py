"""guard.py: every Host, Origin and Authorization header that was ever a hole somewhere."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from bridge.guard import Guard, TokenError, bearer, is_local, is_loopback

GUARD = Guard(frozenset({"gateway.example", "other.example:8443"}), frozenset({"https://app.example"}))


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:3271",
        "LOCALHOST:1",
        "127.0.0.1:3271",
        "127.8.9.10",
        "[::1]",
        "[::1]:3271",
        "gateway.example",
        "gateway.example:9999",
        "other.example:8443",
    ],
)
def test_own_names_are_let_in(host: str) -> None:
    assert GUARD.refusal(headers(("Host", host))) == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:3271",
        "other.example",
        "other.example:8444",
        "xgateway.example",
        "gateway.example.",
        "localhost.",
        "localhost@evil.example",
        "localhost:3271@evil.example",
        "localhost:",
        "localhost:80x",
        "localhost:123456",
        "localhost, evil.example",
        "localhost/evil",
        "127.1",
        "127.0.0.256",
        "127.0.0.1.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "0.0.0.0:3271",
        "10.0.0.1",
        "[::]",
        "[::2]:3271",
        "[::ffff:127.0.0.1]",
        "::1",
        "[::1",
        " localhost",
        "localhost\x00",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    assert "Host" in GUARD.refusal(headers(("Host", host)))


def test_one_host_exactly() -> None:
    assert GUARD.refusal(headers())
    assert GUARD.refusal(headers(("Host", "localhost"), ("Host", "localhost")))


@pytest.mark.parametrize("origin", ["http://localhost:3271", "https://localhost:3271", "https://app.example"])
def test_own_origins_are_let_in(origin: str) -> None:
    assert GUARD.refusal(headers(("Host", "localhost:3271"), ("Origin", origin))) == ""


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://localhost",
        "http://localhost:3272",
        "http://127.0.0.1:3271",
        "http://[::1]:3271",
        "http://evil.example",
        "http://localhost:3271.evil.example",
        "http://localhost:3271/",
        "http://localhost:3271@evil.example",
        "http://evil.example#http://localhost:3271",
        "ws://localhost:3271",
        "file://",
        "HTTP://localhost:3271",
        "https://app.example.evil.com",
        "https://app.example:443",
        "https://app.example/",
        "http://app.example",
        "https://xapp.example",
        "https://app.example https://evil.example",
        "chrome-extension://abc",
        " http://localhost:3271",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    assert "Origin" in GUARD.refusal(headers(("Host", "localhost:3271"), ("Origin", origin)))


def test_one_origin_at_most() -> None:
    own = ("Origin", "http://localhost")
    assert GUARD.refusal(headers(("Host", "localhost"), own, own))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "localhost"])
def test_loopback(address: str) -> None:
    assert is_loopback(address)
    assert is_local(address, headers())


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "example.org"])
def test_not_loopback(address: str) -> None:
    assert not is_loopback(address)


@pytest.mark.parametrize("name", ["Forwarded", "x-forwarded-for", "X-Real-IP"])
def test_peer_behind_a_proxy_is_not_local(name: str) -> None:
    assert not is_local("127.0.0.1", headers((name, "10.0.0.1")))


def test_token_is_read() -> None:
    assert bearer(headers()) == ""
    assert bearer(headers(("Authorization", "Bearer abc-._~+/123="))) == "abc-._~+/123="
    assert bearer(headers(("authorization", "bearer abc"))) == "abc"


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a b", "Bearer  abc", "Bearer ä", "Bearer " + "x" * 513],
)
def test_malformed_token_is_refused(value: str) -> None:
    with pytest.raises(TokenError):
        bearer(headers(("Authorization", value)))


def test_two_tokens_are_refused() -> None:
    with pytest.raises(TokenError):
        bearer(headers(("Authorization", "Bearer a"), ("Authorization", "Bearer b")))
