"""`agentspace up`: starts both, tells about it, and leaves nothing behind."""

import asyncio
import errno
import json
import os
import signal
import socket
import stat
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from agentspace.cli.options import Failure
from agentspace.cli.up import Plan, choose_port
from tests.agentspace.command import finish, start
from tests.agentspace.servers import notes, write_servers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_servers(tmp_path)
    return tmp_path


async def up(folder: Path, *options: str) -> Process:
    home = ["--home", str(folder / "home"), "--port", "0", "--grpc-port", "0"]
    return await start("up", *home, *options, cwd=folder)


async def announced(process: Process) -> str:
    """What is printed up to the line to paste."""
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(20):
        while b"grpcurl" not in said:
            line = await process.stdout.readline()
            assert line, (said, await process.stderr.read() if process.stderr else b"")
            said += line
    return said.decode()


def pids(folder: Path) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[2]) for line in notes(folder) if " started " in line}


async def gone(folder: Path, count: int) -> None:
    """Wait until so many servers have noted their end."""
    async with asyncio.timeout(20):
        while sum(" started " not in line for line in notes(folder)) < count:
            await asyncio.sleep(0)


async def test_it_tells_where_and_stops_in_order(folder: Path) -> None:
    process = await up(folder, "--model", "scripted/echo")
    said = await announced(process)
    runtime = folder / "home" / "runtime.json"
    told = json.loads(runtime.read_text(encoding="utf-8"))
    assert told["pid"] == process.pid
    assert told["startedAt"].endswith("Z")
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime.parent.stat().st_mode) == 0o700
    assert f"ws://127.0.0.1:{told['port']}/gateway" in said
    assert f"127.0.0.1:{told['grpcPort']}" in said
    assert "not ready: provider: wrong\n  or start with another --model" in said
    assert "agentspace keys" not in said
    gateway, bridge = (json.loads(line.split(" ", 3)[3]) for line in notes(folder))
    place = str(folder / "home" / "gateway.sock")
    assert gateway[-5:] == ["--socket", place, "--model", "scripted/echo", "--exit-with-stdin"]
    assert bridge[-3:] == ["--gateway", f"unix:{place}", "--exit-with-stdin"]
    process.send_signal(signal.SIGTERM)
    code, _, err = await finish(process)
    assert (code, err) == (0, "")
    assert [line for line in notes(folder) if " started " not in line] == ["gateway terminated", "bridge terminated"]
    assert not runtime.exists()


@pytest.mark.parametrize(("host", "told"), [("::1", "[::1]"), ("127.0.0.2", "127.0.0.2"), ("localhost", "localhost")])
async def test_it_tells_an_address_where_it_can_be_reached(folder: Path, host: str, told: str) -> None:
    process = await up(folder, "--host", host, "--insecure")
    said = await announced(process)
    runtime = json.loads((folder / "home" / "runtime.json").read_text(encoding="utf-8"))
    assert runtime["host"] == told.strip("[]")
    assert f"HTTP       http://{told}:{runtime['port']}\n" in said
    assert f"gRPC       {told}:{runtime['grpcPort']}\n" in said
    assert "not ready: provider: wrong" in said
    code, _, err = await finish(await up(folder))
    assert (code, err) == (1, f"error: already running at http://{told}:{runtime['port']} (process {process.pid})\n")
    process.terminate()
    await finish(process)


@pytest.mark.parametrize(
    ("host", "near"),
    [("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("::", "::1"), ("0::0", "::1"), ("10.9.8.7", "10.9.8.7"), ("a", "a")],
)
def test_every_address_is_reached_at_loopback(tmp_path: Path, host: str, near: str) -> None:
    plan = Plan(tmp_path, host, 1, 2, None, 1.0, insecure=True, socket=tmp_path / "gateway.sock")
    assert plan.near_host == near


@pytest.mark.parametrize(
    ("host", "name"),
    [
        pytest.param("::1", "home", id="IPv6"),
        # A home whose path is too long for a Unix socket.
        pytest.param("127.0.0.2", "h" * 100, id="long"),
    ],
)
async def test_a_chat_finds_its_way_to_another_host(tmp_path: Path, host: str, name: str) -> None:
    home = ["--home", str(tmp_path / name)]
    options = ["--port", "0", "--grpc-port", "0", "--insecure", "--model", "scripted/echo"]
    process = await start("up", *home, "--host", host, *options)
    said = await announced(process)
    assert "\nready\n" in said
    code, out, err = await finish(await start("chat", "hello", *home), b"")
    assert (code, out, err) == (0, "hello\n", "")
    process.terminate()
    await finish(process)


async def test_where_the_home_makes_the_sockets_path_too_long_it_is_elsewhere(folder: Path) -> None:
    home = ["--home", str(folder / ("h" * 100)), "--port", "0", "--grpc-port", "0"]
    process = await start("up", *home, cwd=folder, TMPDIR=str(folder))
    await announced(process)
    gateway, bridge = (json.loads(line.split(" ", 3)[3]) for line in notes(folder))
    place = Path(gateway[gateway.index("--socket") + 1])
    assert bridge[-3:] == ["--gateway", f"unix:{place}", "--exit-with-stdin"]
    assert len(str(place)) < 100
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    process.terminate()
    await finish(process)
    assert not place.parent.exists()


@pytest.mark.parametrize("name", ["gateway", "bridge"])
async def test_a_dead_server_takes_the_other_along(folder: Path, name: str) -> None:
    process = await up(folder)
    await announced(process)
    os.kill(pids(folder)[name], signal.SIGKILL)
    code, _, err = await finish(process)
    assert code == 1
    assert f"the {name} stopped unexpectedly" in err
    assert sum("terminated" in line for line in notes(folder)) == 1
    assert not (folder / "home" / "runtime.json").exists()


async def test_a_server_that_does_not_start(folder: Path) -> None:
    (folder / "bridge.fails").touch()
    code, _, err = await finish(await up(folder))
    assert code == 1
    assert "the bridge did not start (exit code 7)" in err
    assert "gateway terminated" in notes(folder)


async def test_a_vault_that_is_not_ready_is_told_with_its_place(folder: Path) -> None:
    (folder / "vault").touch()
    process = await up(folder)
    assert f"the master key is AGENTSPACE_MASTER_KEY, else the file {folder}/home/master.key" in await announced(
        process
    )
    process.terminate()
    await finish(process)


async def test_settings_that_are_refused_are_told_by_the_server_alone(folder: Path) -> None:
    (folder / "gateway.refuses").touch()
    code, _, err = await finish(await up(folder))
    assert (code, err) == (2, "")


@pytest.mark.parametrize("options", [(), ("--one-process",)])
async def test_a_wrong_option_is_said_in_one_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, _, err = await finish(await start("up", "--home", str(tmp_path), "--host", "0.0.0.0", *options))
    assert code == 2
    assert err.startswith("error: 0.0.0.0 is not loopback: give --insecure")
    assert err.count("\n") == 1


async def test_a_host_of_another_machine_is_said_in_one_line(tmp_path: Path) -> None:
    code, _, err = await finish(await start("up", "--home", str(tmp_path), "--host", "192.0.2.1", "--insecure"))
    assert code == 1
    assert err.startswith("error: cannot listen on port ")
    assert err.count("\n") == 1


async def test_a_drain_time_is_named_as_it_was_given(tmp_path: Path) -> None:
    code, _, err = await finish(await start("up", "--home", str(tmp_path), AGENTSPACE_DRAIN_SECONDS="abc"))
    assert code == 2
    assert "AGENTSPACE_DRAIN_SECONDS" in err


async def test_a_home_open_to_others_is_told_and_left_alone(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    home.chmod(0o755)
    process = await up(folder)
    await announced(process)
    process.terminate()
    _, _, err = await finish(process)
    assert err == f"warning: {home} is open to others (0755); run: chmod 700 {home}\n"
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


async def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = await finish(await start("up", "--home", str(tmp_path / "file" / "home")))
    assert (code, err) == (1, f"error: the home {tmp_path / 'file' / 'home'} cannot be made: Not a directory\n")


async def test_no_orphans_after_kill_9(folder: Path) -> None:
    process = await up(folder)
    await announced(process)
    process.kill()
    await finish(process)
    await gone(folder, 2)
    assert sorted(line for line in notes(folder) if "orphaned" in line) == ["bridge orphaned", "gateway orphaned"]


async def draining(folder: Path, number: int) -> Process:
    """An `up` that was told to stop, and waits for a gateway that does not."""
    (folder / "gateway.stuck").touch()
    process = await up(folder)
    await announced(process)
    process.send_signal(number)
    await gone(folder, 1)
    return process


async def test_a_second_signal_ends_a_stuck_server(folder: Path) -> None:
    process = await draining(folder, signal.SIGINT)
    process.send_signal(signal.SIGINT)
    code, _, _ = await finish(process)
    assert code == 0


async def test_until_the_servers_have_ended_the_home_names_them(folder: Path) -> None:
    process = await draining(folder, signal.SIGTERM)
    runtime = folder / "home" / "runtime.json"
    assert json.loads(runtime.read_text(encoding="utf-8"))["pid"] == process.pid
    code, _, err = await finish(await up(folder))
    assert code == 1
    assert "already running" in err
    process.send_signal(signal.SIGTERM)
    await finish(process)
    assert not runtime.exists()


async def test_a_closed_terminal_stops_it_in_order(folder: Path) -> None:
    process = await up(folder)
    await announced(process)
    process.send_signal(signal.SIGHUP)
    code, _, err = await finish(process)
    assert (code, err) == (0, "")
    assert [line for line in notes(folder) if " started " not in line] == ["gateway terminated", "bridge terminated"]
    assert not (folder / "home" / "runtime.json").exists()


async def test_a_terminal_that_is_closed_twice_does_not_hurry_it(folder: Path) -> None:
    process = await draining(folder, signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    code, _, err = await finish(await up(folder))
    assert code == 1
    assert "already running" in err
    process.send_signal(signal.SIGTERM)
    code, _, _ = await finish(process)
    assert code == 0


async def test_with_nohup_it_outlives_its_terminal(folder: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = await up(folder)
    finally:
        signal.signal(signal.SIGHUP, before)
    await announced(process)
    process.send_signal(signal.SIGHUP)
    code, _, err = await finish(await up(folder))
    assert code == 1
    assert "already running" in err
    process.terminate()
    code, _, _ = await finish(process)
    assert code == 0


async def test_one_home_has_one_server(folder: Path) -> None:
    process = await up(folder)
    await announced(process)
    code, _, err = await finish(await up(folder))
    assert code == 1
    assert "already running" in err
    process.terminate()
    await finish(process)


async def test_a_file_left_behind_by_a_crash_is_no_server(folder: Path) -> None:
    listener = taken()
    port = listener.getsockname()[1]
    listener.close()
    home = folder / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    # Somebody has the number of the process that crashed.
    said = {"pid": os.getpid(), "port": port, "grpcPort": port, "startedAt": ""}
    (home / "runtime.json").write_text(json.dumps(said), encoding="utf-8")
    process = await up(folder)
    await announced(process)
    assert json.loads((home / "runtime.json").read_text(encoding="utf-8"))["pid"] == process.pid
    process.terminate()
    await finish(process)


def taken(port: int = 0) -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_a_named_port_that_is_taken_is_an_error() -> None:
    with taken() as listener, pytest.raises(Failure, match="is taken"):
        choose_port("127.0.0.1", listener.getsockname()[1], firm=True, option="--port")


@pytest.mark.parametrize("firm", [True, False])
def test_an_address_of_another_machine_is_not_a_taken_port(firm: bool) -> None:
    with pytest.raises(
        Failure, match=r"^cannot listen on port 4000 of 192\.0\.2\.1: it is no address of this machine$"
    ):
        choose_port("192.0.2.1", 4000, firm=firm, option="--port")


def test_a_port_that_is_not_allowed_is_not_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(Failure, match=r"^cannot listen on port 80 of 127\.0\.0\.1: Permission denied$"):
        choose_port("127.0.0.1", 80, firm=True, option="--port")


def test_the_default_gives_way_to_the_next() -> None:
    with taken() as listener:
        port = listener.getsockname()[1]
        chosen = choose_port("127.0.0.1", port, firm=False, option="--port")
        assert port < chosen <= port + 10
        assert choose_port("127.0.0.1", chosen, firm=False, option="--port", taken=chosen) > chosen
    assert choose_port("127.0.0.1", 0, firm=True, option="--port") == 0
