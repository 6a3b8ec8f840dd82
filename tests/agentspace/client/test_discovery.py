"""Finding the server and the token."""

import json
import os
from pathlib import Path

import pytest

from agentspace.client.discovery import Server, environment, find_server, home_folder, read_runtime
from agentspace.client.errors import UnreachableError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    said = {"pid": os.getpid(), "port": 4000, "grpcPort": 4001, "startedAt": "2026-01-02T03:04:05.678Z"}
    (tmp_path / "runtime.json").write_text(json.dumps(said), encoding="utf-8")
    (tmp_path / "token").write_text("operator\n", encoding="ascii")
    return tmp_path


def test_the_home_names_the_server_and_gives_its_token(home: Path) -> None:
    assert find_server(home=home, environ={}) == Server("http://127.0.0.1:4000", "operator", "runtime.json")
    assert find_server(environ={"AGENTSPACE_HOME": str(home)}).token == "operator"
    assert "operator" not in repr(find_server(home=home, environ={}))


def test_a_server_on_another_host_is_named_with_it(home: Path) -> None:
    file = home / "runtime.json"
    for host, url in (("::1", "http://[::1]:4000"), ("127.0.0.2", "http://127.0.0.2:4000")):
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), "host": host}), encoding="utf-8")
        assert find_server(home=home, environ={}) == Server(url, "operator", "runtime.json")


def test_the_homes_token_goes_nowhere_else(home: Path) -> None:
    assert find_server("http://other:1/", home, {}) == Server("http://other:1", None, "--url")
    assert find_server(None, home, {"AGENTSPACE_URL": "http://127.0.0.1:4000"}).token is None


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1:4000", "http://127.0.0.1:4000"),
        ("wss://host/base/gateway", "https://host/base"),
        ("http://[::1]:4000/gateway/", "http://[::1]:4000"),
    ],
)
def test_an_address_may_be_given_as_people_know_it(given: str, url: str) -> None:
    assert find_server(given, environ={}).url == url
    assert find_server(environ={"AGENTSPACE_URL": given}).url == url


@pytest.mark.parametrize("given", ["http://host:0", "http://host:x", "unix:///path", "http://[::1"])
def test_what_can_be_no_address_is_said(given: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server"):
        find_server(given, environ={})


def test_a_token_of_the_environment_goes_where_it_is_told(home: Path) -> None:
    environ = {"AGENTSPACE_TOKEN": "mine", "AGENTSPACE_URL": "https://far"}
    assert find_server(None, home, environ) == Server("https://far", "mine", "AGENTSPACE_URL")
    assert find_server("http://near", home, environ).url == "http://near"
    assert find_server(None, home, {"AGENTSPACE_TOKEN": " mine\r\n"}).token == "mine"
    assert find_server(None, home, {"AGENTSPACE_TOKEN": " \n"}).token == "operator"


def test_a_token_that_cannot_be_sent_is_not_passed_over(home: Path) -> None:
    (home / "token").write_bytes(b"op\xe9rator\n")
    assert find_server(home=home, environ={}).token == "op\ufffdrator"


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 0, "port": 1, "grpcPort": 2, "startedAt": ""}', '{"pid": "x"}'])
def test_a_stale_or_broken_file_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "runtime.json").write_text(text, encoding="utf-8")
    (tmp_path / "token").write_text("operator", encoding="ascii")
    assert read_runtime(tmp_path) is None
    assert_no_server(tmp_path)


def test_a_file_of_a_dead_process_names_nobody(home: Path) -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    said = {"pid": child, "port": 4000, "grpcPort": 4001, "startedAt": ""}
    (home / "runtime.json").write_text(json.dumps(said), encoding="utf-8")
    assert read_runtime(home) is None


def assert_no_server(home: Path) -> None:
    """Of a home that was named, and so nobody else's server will do."""
    for named, environ in ((home, {}), (None, {"AGENTSPACE_HOME": str(home)})):
        with pytest.raises(UnreachableError, match=f"no server runs for {home}"):
            find_server(None, named, environ)


def test_without_a_word_about_the_home_the_default_port_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_server(environ={}) == Server("http://127.0.0.1:3271", None, "default")


def test_home_folder(tmp_path: Path) -> None:
    assert home_folder(tmp_path, {"AGENTSPACE_HOME": "/x"}) == tmp_path
    assert home_folder(None, {"AGENTSPACE_HOME": "/x"}) == Path("/x")
    assert home_folder(None, {}) == Path.home() / ".agentspace"
    assert environment() is os.environ
