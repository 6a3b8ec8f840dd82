"""config.py: flags before environment before defaults."""

from pathlib import Path

import pytest

from bridge.config import Config, read_config


def read(*arguments: str, **environment: str) -> Config:
    return read_config(arguments, environment)


def test_defaults() -> None:
    config = read()
    assert (config.host, config.ports) == ("127.0.0.1", tuple(range(3271, 3282)))
    assert config.gateway == f"unix:{Path.home() / '.agentspace' / 'gateway.sock'}"
    assert (config.hosts, config.origins, config.max_connections) == (frozenset(), frozenset(), 10_000)


def test_environment(tmp_path: Path) -> None:
    config = read(
        AGENTSPACE_HOME=str(tmp_path),
        AGENTSPACE_PORT="4000",
        AGENTSPACE_ALLOWED_HOSTS="Gateway.Example, b:1,",
        AGENTSPACE_ALLOWED_ORIGINS="https://a.example",
    )
    assert (config.ports, config.gateway) == ((4000,), f"unix:{tmp_path}/gateway.sock")
    assert (config.hosts, config.origins) == ({"gateway.example", "b:1"}, {"https://a.example"})


def test_flags_come_first(tmp_path: Path) -> None:
    config = read("--home", str(tmp_path), "--port", "0", AGENTSPACE_HOME="/nowhere", AGENTSPACE_PORT="4000")
    assert (config.ports, config.gateway) == ((0,), f"unix:{tmp_path}/gateway.sock")
    assert read("--gateway", "127.0.0.1:3272").gateway == "127.0.0.1:3272"


@pytest.mark.parametrize("origin", ["https://a.example", "http://[::1]:8080", "chrome-extension://abcdef"])
def test_an_origin_is_what_a_browser_sends(origin: str) -> None:
    assert read(AGENTSPACE_ALLOWED_ORIGINS=origin).origins == {origin}


@pytest.mark.parametrize(
    "origin", ["a.example", "https://a.example/", "https://A.example", "*", "null", "https://", "https://me@a.example"]
)
def test_another_origin_is_refused(capsys: pytest.CaptureFixture[str], origin: str) -> None:
    with pytest.raises(SystemExit) as caught:
        read(AGENTSPACE_ALLOWED_ORIGINS=f"https://a.example,{origin}")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: AGENTSPACE_ALLOWED_ORIGINS: {origin!r} ")


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["--port", "65536"], ""),
        (["--port", "-1"], ""),
        ([], "http"),
        (["--host", "0.0.0.0"], ""),
        (["--host", "gateway.example"], ""),
        (["--tls-cert", "c.pem"], ""),
        (["--gateway", "gateway.example"], ""),
        (["--gateway", "unix:"], ""),
        (["--gateway", "gateway:65536"], ""),
        (["--gateway", f"{'x' * 64}:3272"], ""),
    ],
)
def test_nonsense_is_refused(arguments: list[str], variable: str) -> None:
    with pytest.raises(SystemExit) as caught:
        read(*arguments, AGENTSPACE_PORT=variable)
    assert caught.value.code == 2


def test_beyond_loopback_needs_tls_or_a_word() -> None:
    assert read("--host", "0.0.0.0", "--insecure").certificate is None
    assert read("--host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k").certificate == Path("c")
