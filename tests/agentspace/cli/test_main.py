"""The tree of commands: quick to load, complete, documented."""

import subprocess
import sys

import click
import pytest

from agentspace.cli.main import COMMANDS, EPILOG, cli
from tests.agentspace.command import PROGRAM, ROOT, call, finish, start
from tests.agentspace.json_door import json_door


@pytest.mark.parametrize("name", list(COMMANDS))
async def test_every_command_loads_and_explains_itself(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    result = await call(name, "--help")
    assert result.exit_code == 0


def test_help_loads_nothing_heavy() -> None:
    program = f"""
import sys
sys.argv = ["agentspace", "--help"]
try:
    {PROGRAM.replace("; ", chr(10) + "    ")}
except SystemExit as end:
    heavy = {{"grpc", "google.protobuf", "sqlalchemy", "anthropic", "aiohttp", "websockets", "prompt_toolkit"}}
    sys.exit(end.code or ", ".join(heavy & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Exit codes:" in done.stdout


async def test_an_unknown_command_is_a_usage_error() -> None:
    code, _, err = await finish(await start("nonsense"))
    assert code == 2
    assert "nonsense" in err


async def test_no_server_is_code_3() -> None:
    code, out, err = await finish(await start("usage", "--url", "http://127.0.0.1:1"))
    assert (code, out) == (3, "")
    assert "agentspace up" in err


@pytest.mark.parametrize("command", [("usage",), ("chat", "x"), ("attach", "s"), ("keys", "ls")])
async def test_a_token_that_cannot_be_sent_is_code_4(command: tuple[str, ...]) -> None:
    async with json_door() as door:
        result = await call(*command, "--url", door.url, environ={"AGENTSPACE_TOKEN": "hunter\u00e92"})
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "error: the token is not one line of printable ASCII (UNAUTHENTICATED)\n"


@pytest.mark.parametrize(("redirect", "shown"), [("<&-", "Hello world\n"), (">&-", "")])
async def test_a_closed_stream_is_like_dev_null(redirect: str, shown: str) -> None:
    async with json_door() as door:
        code, out, err = await finish(await start("chat", "x", "--url", door.url, redirect=redirect), b"")
    assert (code, out, err) == (0, shown, "")


async def test_what_a_stream_cannot_hold_is_replaced() -> None:
    async with json_door() as door:
        door.deltas = ["a \N{ROCKET} b"]
        process = await start("chat", "--url", door.url, PYTHONIOENCODING="ascii:strict")
        code, out, err = await finish(process, b"caf\xe9")
        sent = door.received[0]["content"]
    assert (code, out, err) == (0, "a ? b\n", "")
    assert sent == "caf\ufffd"


def test_the_documentation_tells_the_exit_codes_of_the_help() -> None:
    told = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for line in EPILOG.split("Environment:")[0].splitlines():
        code, _, meaning = line.strip().partition(" ")
        if code.isdecimal():
            assert f"| {code} | {meaning.strip()} |" in told
    for name in COMMANDS:
        assert f"agentspace {name}" in told


async def test_it_tells_its_version() -> None:
    code, out, _ = await finish(await start("--version"))
    assert code == 0
    assert out.strip()[0].isdigit()
