"""app.py: what a start makes, what a drain lets end, and what a close leaves behind."""

import asyncio
import itertools
import signal
import socket
import sqlite3
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from agentspace.v1 import turn_pb2
from gateway.__main__ import run as serve_until_told
from gateway.app import App, operator_token, product_version
from gateway.storage.database import Database
from tests.fixtures.stack import ROOT, clean_environment
from tests.gateway.running import Peer, config, ended, running, stopped_at_once, token, waiting

HANG = "scripted/fail?with=hang"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


async def begun(app: App, model: str) -> tuple[Peer, turn_pb2.MessageAccepted]:
    peer = Peer(app)
    peer.open(1)
    peer.say(1, "a", chat_send={"content": "x", "model": model})
    accepted = await peer.answer(1, "a", "chat_accepted")
    await peer.answer(1, "a", "chat_stream_start")
    return peer, accepted


async def test_the_home_is_its_owners_alone(home: Path) -> None:
    async with running(config(home)) as app:
        assert app.grpc_port > 0
        assert home.stat().st_mode & 0o777 == 0o700
        for name in ("token", "gateway.sock"):
            assert (home / name).stat().st_mode & 0o777 == 0o600
        assert (home / "agentspace.db").exists()
    assert not (home / "gateway.sock").exists()


async def test_the_token_is_made_once(home: Path) -> None:
    async with running(config(home)):
        first = token(home)
    async with running(config(home)) as app:
        assert token(home) == first
        assert app.credentials.identify(first).name == "operator"
    assert len(first) >= 43


def test_a_token_that_was_never_written_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    made = operator_token(path)
    assert len(made) >= 43
    assert operator_token(path) == made
    assert [child.name for child in tmp_path.iterdir()] == ["token"]


async def test_a_socket_file_left_behind_is_replaced(home: Path) -> None:
    home.mkdir()
    path = home / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with running(config(home)):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()
    assert not path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(home: Path) -> None:
    home.mkdir()
    notes = home / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(RuntimeError, match=r"notes\.txt is there and no socket"):
        await App(config(home, "--socket", str(notes))).start()
    assert notes.read_text() == "mine"
    async with running(config(home)):
        # Whoever puts something else there meanwhile keeps it too.
        (home / "gateway.sock").unlink()
        (home / "gateway.sock").write_text("mine")
    assert (home / "gateway.sock").read_text() == "mine"


async def test_drain_lets_a_turn_end(home: Path) -> None:
    async with running(config(home, AGENTSPACE_DRAIN_SECONDS="20")) as app:
        peer, accepted = await begun(app, "scripted/count?n=20&delay=10ms")
        await app.drain()
        await peer.answer(1, "a", "chat_stream_end")
        peer.say(1, "b", chat_send={"content": "more"})
        await peer.answer(1, "b", "error")
        peer.say(1, "c", turn_get={"turn_id": accepted.turn_id})
        assert (await peer.answer(1, "c", "turn_get")).turn.state == turn_pb2.TURN_STATE_COMPLETED


async def test_drain_lets_a_turn_end_that_is_just_being_accepted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, go, write = asyncio.Event(), asyncio.Event(), Database.write

    async def slow(store: Database, work: Any) -> Any:
        result = await write(store, work)
        stored.set()
        await go.wait()
        return result

    async with running(config(home, AGENTSPACE_DRAIN_SECONDS="20")) as app:
        peer = Peer(app)
        peer.open(1)
        monkeypatch.setattr(Database, "write", slow)
        peer.say(1, "a", chat_send={"content": "hello", "model": "scripted/count?n=20&delay=10ms"})
        await stored.wait()
        draining = asyncio.create_task(app.drain())
        for _ in range(200):
            await asyncio.sleep(0)
        assert not draining.done()
        go.set()
        await draining
        await peer.answer(1, "a", "chat_stream_end")


async def test_drain_keeps_what_takes_too_long_as_interrupted(home: Path) -> None:
    async with running(config(home)) as app:
        peer, accepted = await begun(app, "scripted/fail?after=3&with=hang")
        await peer.until(lambda: peer.text(1, "a"))
        await app.drain()
        await peer.answer(1, "a", "error")
    async with running(config(home)) as app:
        peer = Peer(app)
        peer.open(1)
        peer.say(1, "c", turn_get={"turn_id": accepted.turn_id})
        assert (await peer.answer(1, "c", "turn_get")).turn.state == turn_pb2.TURN_STATE_INTERRUPTED


async def test_close_leaves_no_task_and_a_whole_database(home: Path) -> None:
    app = App(config(home))
    await app.start()
    await begun(app, HANG)
    await app.drain()
    await app.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not [task for task in others if "gateway" in repr(task.get_coro())]
    with sqlite3.connect(home / "agentspace.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


async def test_a_taken_port_refuses_the_start_and_leaves_nothing_open(home: Path) -> None:
    async with running(config(home)) as first:
        other = App(config(home.with_name("other"), "--grpc-port", str(first.grpc_port)))
        with pytest.raises(RuntimeError):
            await other.start()
    # The other home's database is free again.
    async with running(config(home.with_name("other"))):
        pass


async def test_a_start_that_fails_costs_no_waiting_turn(home: Path) -> None:
    turn_id = await waiting(home)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RuntimeError):
        await App(config(home, "--grpc-port", str(taken.getsockname()[1]))).start()
    async with running(config(home, AGENTSPACE_DRAIN_SECONDS="20")) as app:
        assert await ended(app, turn_id) == turn_pb2.TURN_STATE_COMPLETED


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_start_that_is_cancelled_costs_no_waiting_turn(
    home: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    turn_id = await waiting(home)
    stored, go, write, count = asyncio.Event(), asyncio.Event(), Database.write, itertools.count(1)

    async def slow(store: Database, work: Any) -> Any:
        result = await write(store, work)
        if next(count) == nth:
            stored.set()
            await go.wait()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Database, "write", slow)
        starting = asyncio.create_task(App(config(home, AGENTSPACE_DRAIN_SECONDS="20")).start())
        await stored.wait()
        starting.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await starting
    async with running(config(home, AGENTSPACE_DRAIN_SECONDS="20")) as app:
        assert await ended(app, turn_id) == turn_pb2.TURN_STATE_COMPLETED


async def test_a_stop_ends_the_start(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await waiting(home)
    await stopped_at_once(home, serve_until_told(config(home)))
    assert capsys.readouterr().out == ""


def test_version_is_a_version() -> None:
    assert product_version()[0].isdigit()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_says_that_it_is_ready_and_stops_in_order(home: Path, number: signal.Signals) -> None:
    arguments = ["--home", str(home), "--grpc-port", "0", "--model", "scripted/echo"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments), env=clean_environment(), cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).startswith(b'{"event": "ready", "grpcPort": ')
        process.send_signal(number)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")


async def test_the_process_stops_with_whoever_started_it(home: Path) -> None:
    arguments = ["--home", str(home), "--grpc-port", "0", "--model", "scripted/echo", "--exit-with-stdin"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *arguments), env=clean_environment(), cwd=ROOT, stdin=PIPE, stdout=PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    async with asyncio.timeout(30):
        await process.stdout.readline()
        process.stdin.close()
        assert await process.wait() == 0


async def test_the_process_says_why_it_cannot_start(home: Path) -> None:
    async with running(config(home)) as app:
        for folder, word in ((home, b"another gateway"), (home.with_name("other"), b"cannot start")):
            arguments = ["--home", str(folder), "--grpc-port", str(app.grpc_port)]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", *arguments),
                env=clean_environment(),
                cwd=ROOT,
                stdout=PIPE,
                stderr=PIPE,
            )
            async with asyncio.timeout(30):
                out, err = await process.communicate()
            assert (process.returncode, out) == (1, b"")
            assert word in err
            assert b"Traceback" not in err
