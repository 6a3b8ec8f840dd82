"""An ordinary stop: SIGTERM or SIGINT to a quiet house, in either order, ends both with 0 and leaves nothing about."""

import asyncio
import signal
import sqlite3
from contextlib import closing

import aiohttp
import pytest

from tests.agentspace.command import start
from tests.fixtures.stack import Server, Stack, running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.doors import ENDS, door, hear, ready, said

# What an idle server may take to leave, in seconds.
PROMPT = 3.0


async def ended(server: Server, number: signal.Signals) -> None:
    """Signal and wait; it leaves promptly with 0."""
    server.process.send_signal(number)
    async with asyncio.timeout(PROMPT):
        assert await server.process.wait() == 0


def complaints(stack: Stack) -> list[str]:
    """Log lines that tell of trouble."""
    bad = ("Traceback", "ERROR", "error", "exception", "never awaited", "Warning", "destroyed")
    return [line for line in stack.logs().splitlines() if any(word in line for word in bad)]


@pytest.mark.requirement("stop.clean")
@pytest.mark.parametrize(("first", "number"), [("gateway", signal.SIGTERM), ("bridge", signal.SIGINT)])
async def test_both_end_with_nothing_left(first: str, number: signal.Signals) -> None:
    async with Upstream().serve() as upstream, running_stack(upstream.url) as stack:
        session = ""
        for name in ("websocket", "grpc"):
            fields = {"sessionId": session} if session else {}
            async with door(name, stack).open("chat.send", content=f"over {name}", **fields) as stream:
                session = (await hear(stream, *ENDS))[0].get("sessionId", session)
        async with (
            stack.talk() as talk,
            stack.talk(level=1) as old,
            door("grpc", stack).open("session.watch", sessionId=session) as watcher,
        ):
            await talk.hear()
            await hear(watcher, "session.snapshot")
            leaving = [asyncio.create_task(each.closed()) for each in (talk, old)]
            servers = [stack.gateway, stack.bridge]
            for server in servers if first == "gateway" else servers[::-1]:
                await ended(server, number)
            # Whoever was connected is told to come back.
            assert await asyncio.gather(*leaving) == [1012, 1012]
        assert not complaints(stack)
        assert not stack.socket.exists()
        with closing(sqlite3.connect(stack.home / "agentspace.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT count(*) FROM turns WHERE state <= 2").fetchone() == (0,)
        await stack.start_gateway()
        await stack.start_bridge()
        await ready(stack)
        async with door("websocket", stack).open("chat.send", content="again", sessionId=session) as stream:
            assert said(await hear(stream, *ENDS)) == "You said: again"
        assert [words for _, words in upstream.chats[-1].said()][::2] == ["over websocket", "over grpc", "again"]


@pytest.mark.requirement("stop.clean")
async def test_up_ends_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("h")
    process = await start(
        *("up", "--home", str(home), "--port", "0", "--grpc-port", "0", "--model", "scripted/echo"),
        ANTHROPIC_API_KEY="",
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            while "http://" not in (line := (await process.stdout.readline()).decode()):
                assert line
        runtime = home / "runtime.json"
        assert runtime.exists()
        address = "http://" + line.partition("http://")[2].split()[0]
        async with aiohttp.ClientSession() as session, session.get(f"{address}/ready") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            out, err = await process.communicate()
        assert process.returncode == 0, (out, err)
        assert b"Traceback" not in out + err
        assert not runtime.exists()
        assert not (home / "gateway.sock").exists()
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{address}/health")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
