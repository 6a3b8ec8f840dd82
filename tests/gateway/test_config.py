"""config.py: flags before environment before defaults, and a plain word where they make no sense."""

import base64
from pathlib import Path

import pytest

from bridge.config import read_config as read_bridge_config
from gateway.config import DEFAULT_GRPC_PORT, DEFAULT_MODEL, parser, read_config
from gateway.usecases.pulse import TimeLimits

NUMBERS = [
    "AGENTSPACE_GRPC_PORT",
    "AGENTSPACE_DRAIN_SECONDS",
    "AGENTSPACE_IDEMPOTENCY_HOURS",
    "AGENTSPACE_MAX_TOKENS",
    "AGENTSPACE_FIRST_BYTE_SECONDS",
    "AGENTSPACE_IDLE_SECONDS",
    "AGENTSPACE_PINGED_SECONDS",
    "AGENTSPACE_TOTAL_SECONDS",
    "AGENTSPACE_UNWATCHED_SECONDS",
]
MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
URLS = ["ANTHROPIC_BASE_URL", "AGENTSPACE_LOCAL_URL"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str, **environment: str) -> str:
    """What is said when the settings are refused."""
    with pytest.raises(SystemExit) as caught:
        read_config(arguments, environment)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_defaults() -> None:
    config = read_config([], {})
    assert config.home == Path("~/.agentspace").expanduser()
    assert (config.host, config.grpc_port) == ("127.0.0.1", DEFAULT_GRPC_PORT)
    assert (config.model, config.insecure, config.limits) == (DEFAULT_MODEL, False, TimeLimits())
    assert config.anthropic_url == "https://api.anthropic.com"
    assert config.local_url == "http://127.0.0.1:18080"
    assert (config.anthropic_key, config.master_key) == (None, None)
    assert (config.drain_seconds, config.idempotency_hours, config.max_tokens) == (20, 24, 8192)


def test_environment(tmp_path: Path) -> None:
    config = read_config(
        [],
        {
            "AGENTSPACE_HOME": str(tmp_path),
            "AGENTSPACE_MODEL": "scripted/echo",
            "ANTHROPIC_BASE_URL": "https://proxy.example/anthropic",
            "AGENTSPACE_LOCAL_URL": "http://127.0.0.1:9",
            "ANTHROPIC_API_KEY": " sk-secret \n",
            "AGENTSPACE_MASTER_KEY": MASTER_KEY,
            **{name: str(number) for number, name in enumerate(NUMBERS, 1)},
        },
    )
    assert (config.home, config.model) == (tmp_path, "scripted/echo")
    assert (config.anthropic_url, config.local_url) == ("https://proxy.example/anthropic", "http://127.0.0.1:9")
    assert config.anthropic_key is not None
    assert config.anthropic_key.reveal() == "sk-secret"
    assert (config.grpc_port, config.drain_seconds, config.idempotency_hours, config.max_tokens) == (1, 2, 3, 4)
    assert config.limits == TimeLimits(5, 6, 7, 8, 9)
    assert "secret" not in repr(config)
    assert MASTER_KEY not in repr(config)


def test_flags_come_first(tmp_path: Path) -> None:
    arguments = ["--home", str(tmp_path), "--grpc-port", "0", "--model", "scripted/story", "--socket", "s.sock"]
    seen = {"AGENTSPACE_HOME": "/elsewhere", "AGENTSPACE_GRPC_PORT": "5", "AGENTSPACE_MODEL": "scripted/echo"}
    config = read_config(arguments, seen)
    assert (config.home, config.grpc_port, config.model) == (tmp_path, 0, "scripted/story")
    assert config.socket == Path("s.sock").absolute()


def test_the_socket_is_where_a_bridge_of_the_same_home_looks() -> None:
    home = Path("/short")
    found = read_config(["--home", str(home)], {}).socket
    assert f"unix:{found}" == read_bridge_config(["--home", str(home)], {}).gateway
    assert read_config(["--home", "/" + "x" * 100], {}).socket is None


def test_an_empty_variable_is_no_variable() -> None:
    assert read_config([], dict.fromkeys([*NUMBERS, *URLS, "AGENTSPACE_HOME", "ANTHROPIC_API_KEY"], "")) == (
        read_config([], {})
    )


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", "1e12"])
def test_numbers_must_be_numbers(capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    assert name in refusal(capsys, **{name: text})


@pytest.mark.parametrize("text", ["0", "0.5"])
def test_an_answer_has_a_token(capsys: pytest.CaptureFixture[str], text: str) -> None:
    said = refusal(capsys, AGENTSPACE_MAX_TOKENS=text)
    assert said == f"error: AGENTSPACE_MAX_TOKENS={text}: expected a number from 1 on\n"


@pytest.mark.parametrize("text", ["hunter2", MASTER_KEY[:-4], f"{MASTER_KEY}!"])
def test_a_master_key_is_32_bytes(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert refusal(capsys, AGENTSPACE_MASTER_KEY=text) == "error: AGENTSPACE_MASTER_KEY is not 32 bytes in base64\n"


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("url", ["api.example", "ftp://x.example", "https://", "http://[::1", "http://h:99999", "/v1"])
def test_addresses_must_be_addresses(capsys: pytest.CaptureFixture[str], name: str, url: str) -> None:
    assert name in refusal(capsys, **{name: url})


def test_a_refused_address_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hidden" not in refusal(capsys, ANTHROPIC_BASE_URL="ftp://me:hidden@x.example")


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_is_a_port(capsys: pytest.CaptureFixture[str], port: str) -> None:
    assert "0 to 65535" in refusal(capsys, "--grpc-port", port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_beyond_loopback_only_when_asked_for(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert "--insecure" in refusal(capsys, "--host", host)
    assert read_config(["--host", host, "--insecure"], {}).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback(host: str) -> None:
    assert read_config(["--host", host], {}).host == host


def test_no_secret_is_a_flag() -> None:
    flags = {option for action in parser()._actions for option in action.option_strings}
    assert not {flag for flag in flags if "key" in flag or "token" in flag or "secret" in flag}
