"""python -m standalone: one process with both doors, that stops in order and says why it cannot start."""

import asyncio
import json
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from agentspace.v1 import turn_pb2
from agentspace.v1.chat_service_pb2 import SendMessageRequest
from agentspace.v1.chat_service_pb2_grpc import ChatServiceStub
from standalone.__main__ import read_configs, run
from tests.fixtures.stack import ROOT, Talk, clean_environment
from tests.gateway.running import config, ended, running, stopped_at_once, waiting

MODEL = "scripted/echo"


async def started(home: Path, *arguments: str) -> Process:
    given = ["--home", str(home), "--model", MODEL, *(arguments or ("--port", "0", "--grpc-port", "0"))]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "standalone", *given), cwd=ROOT, env=clean_environment(), stdout=PIPE, stderr=PIPE
    )


async def ready(process: Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = json.loads(await process.stdout.readline())
    assert line.pop("event") == "ready"
    return dict(line)


def test_each_gets_the_flags_it_knows(tmp_path: Path) -> None:
    arguments = ["--home", str(tmp_path), "--port", "1", "--grpc-port", "2", "--model", MODEL, "--insecure"]
    gateway, bridge = read_configs([*arguments, "--host", "0.0.0.0"])
    assert (gateway.home, gateway.grpc_port, gateway.model, gateway.host) == (tmp_path, 2, MODEL, "0.0.0.0")
    assert (bridge.ports, bridge.host) == ((1,), "0.0.0.0")
    assert gateway.insecure
    assert gateway.socket is None
    assert not read_configs([])[0].insecure


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_configs(["--nonsense"])
    assert caught.value.code == 2
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_both_doors_and_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    process = await started(tmp_path / "home")
    async with asyncio.timeout(30):
        ports = await ready(process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{ports['port']}/ready") as answer:
                assert answer.status == 200, await answer.text()
            address = f"http://127.0.0.1:{ports['port']}/gateway"
            async with session.ws_connect(address, protocols=("agentspace.v2",)) as socket:
                talk = Talk(socket)
                assert (await talk.hear())["type"] == "hello"
                await talk.say("chat.send", content="over the socket")
                created, *_ = await talk.hear_until("chat.stream.end", "error")
                async with grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpcPort']}") as channel:
                    request = SendMessageRequest(session_id=created["sessionId"], content="over gRPC")
                    events = [event async for event in ChatServiceStub(channel).SendMessage(request)]
                assert "".join(event.text.delta for event in events) == "over gRPC"
                process.send_signal(number)
                assert await talk.closed() == 1012
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b""), err
    assert b"Traceback" not in err


async def test_a_turn_may_end_while_it_drains(tmp_path: Path) -> None:
    process = await started(tmp_path / "home")
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        address = f"http://127.0.0.1:{(await ready(process))['port']}/gateway"
        async with session.ws_connect(address, protocols=("agentspace.v2",)) as socket:
            talk = Talk(socket)
            await talk.say("chat.send", content="x", model="scripted/count?n=30&delay=10ms")
            await talk.hear_until("chat.stream.delta")
            process.terminate()
            assert (await talk.hear_until("chat.stream.end", "error"))[-1]["type"] == "chat.stream.end"
            assert await talk.closed() == 1012
        assert await process.wait() == 0


async def test_says_why_it_cannot_start(tmp_path: Path) -> None:
    process = await started(tmp_path / "home")
    async with asyncio.timeout(30):
        ports = await ready(process)
        for arguments, word in [
            (("--home", str(tmp_path / "home"), "--port", "0", "--grpc-port", "0"), b"another gateway"),
            (("--home", str(tmp_path / "b"), "--port", str(ports["port"]), "--grpc-port", "0"), b"cannot start"),
            (("--home", str(tmp_path / "c"), "--port", "0", "--grpc-port", str(ports["grpcPort"])), b"cannot start"),
        ]:
            other = await started(tmp_path / "home", *arguments)
            out, err = await other.communicate()
            assert (other.returncode, out) == (1, b""), err
            assert word in err
            assert b"Traceback" not in err
        process.terminate()
        await process.communicate()


async def test_a_port_that_is_taken_costs_no_waiting_turn(tmp_path: Path) -> None:
    turn_id = await waiting(tmp_path / "home")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await started(tmp_path / "home", "--grpc-port", "0", "--port", str(taken.getsockname()[1]))
        async with asyncio.timeout(30):
            await process.communicate()
    assert process.returncode == 1
    async with running(config(tmp_path / "home", AGENTSPACE_DRAIN_SECONDS="20")) as app:
        assert await ended(app, turn_id) == turn_pb2.TURN_STATE_COMPLETED


async def test_a_stop_ends_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    await waiting(home)
    await stopped_at_once(home, run(*read_configs(["--home", str(home), "--port", "0", "--grpc-port", "0"])))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("module", ["gateway", "standalone"])
async def test_says_in_one_line_that_the_home_cannot_be_written(tmp_path: Path, module: str) -> None:
    (tmp_path / "agentspace.db.lock").mkdir()
    command = (sys.executable, "-m", module, "--home", str(tmp_path), "--grpc-port", "0")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=clean_environment(), stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(20):
        said, why = await process.communicate()
    assert (process.returncode, said) == (1, b"")
    assert b"Traceback" not in why
    assert b"cannot start: the database cannot be used" in why


@pytest.mark.parametrize("redirection", ["</dev/null", "<&-"])
@pytest.mark.parametrize("module", ["gateway", "bridge", "standalone"])
async def test_says_in_one_line_that_stdin_cannot_be_watched(tmp_path: Path, module: str, redirection: str) -> None:
    command = (sys.executable, "-m", module, "--home", str(tmp_path), "--exit-with-stdin")
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$@" {redirection}', "sh", *command),
        cwd=ROOT,
        env=clean_environment(),
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(20):
        said, why = await process.communicate()
    assert (process.returncode, said) == (2, b"")
    assert why == b"error: --exit-with-stdin: stdin is no pipe, socket or terminal\n"


async def test_runs_and_stops_without_stdin(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "standalone", "--home", str(tmp_path), "--port", "0", "--grpc-port", "0")
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" <&-', "sh", *command), cwd=ROOT, env=clean_environment(), stdout=PIPE, stderr=PIPE
    )
    async with asyncio.timeout(20):
        await ready(process)
        process.terminate()
        _, why = await process.communicate()
    assert (process.returncode, why) == (0, b"")
