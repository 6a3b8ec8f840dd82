"""A database that cannot be written for a while: typed errors, no corruption, and recovery without a restart."""

import asyncio
import resource
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager

import aiohttp
import pytest

from tests.fixtures.script import text
from tests.fixtures.stack import Stack
from tests.journeys.conftest import House
from tests.journeys.doors import ENDS, Door, door, hear, ready, said
from tests.journeys.test_crash import check_database

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Another process, as far as SQLite can tell, is in the middle of a write."""
    with closing(sqlite3.connect(stack.home / "agentspace.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(stack: Stack) -> Iterator[None]:
    """No file may grow: what a full disk looks like to the gateway."""
    pid, whole = stack.gateway.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, whole)


@asynccontextmanager
async def held_turn(house: House, way: Door, name: str) -> AsyncIterator[tuple[str, str, asyncio.Event]]:
    """A turn that waits after its first delta: its session, its id and its gate."""
    gate = asyncio.Event()
    house.upstream.play(text("a", "b", "c", gates={1: gate}))
    async with way.open("chat.send", content=name) as stream:
        frames = await hear(stream, "chat.stream.delta")
        yield frames[0]["sessionId"], frames[1]["turnId"], gate


async def not_ready(stack: Stack) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/ready") as answer:
        assert answer.status == 503
        parts = (await answer.json())["parts"]
        assert [part["name"] for part in parts if not part["ready"]] == ["storage"]


@pytest.mark.requirement("disk.recovers")
@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
@pytest.mark.parametrize(("trouble", "name"), [("locked", "websocket"), ("full", "grpc"), ("full", "websocket")])
async def test_recovers_without_a_restart(house: House, trouble: str, name: str) -> None:
    way = door(name, house.stack)
    name = f"{trouble} {name}"
    troubled = {"locked": locked, "full": full}[trouble]
    async with AsyncExitStack() as stack:
        session, turn, gate = await stack.enter_async_context(held_turn(house, way, f"runs {name}"))
        async with way.open("session.watch", sessionId=session, epoch=0, afterSeq=0) as stream:
            with troubled(house.stack):
                async with asyncio.timeout(15):
                    async with way.open("chat.send", content=f"refused {name}", idempotencyKey=name) as refused:
                        error = await refused.next()
                assert (error["type"], error["code"], error["retryable"]) == ("error", "STORAGE_UNAVAILABLE", True)
                assert str(house.stack.home) not in error["message"]
                await not_ready(house.stack)
                # Deltas do not wait for the disk; the end does.
                gate.set()
                frames = await hear(stream, "chat.stream.delta")
                while said(frames) != "abc":
                    frames += await hear(stream, "chat.stream.delta")
                # Reading works.
                assert (await way.ask("session.history", sessionId=session))["messages"]
                assert (await way.ask("turn.get", turnId=turn))["turn"]["state"] == "running"
            frames = await hear(stream, *ENDS)
            assert frames[-1]["type"] == "chat.stream.end"
    await ready(house.stack)
    async with way.open("chat.send", content=f"refused {name}", idempotencyKey=name) as stream:
        frames = await hear(stream, *ENDS)
    assert said(frames) == f"You said: refused {name}"
    assert not frames[1]["duplicate"]
    assert len(house.calls(f"refused {name}")) == 1
    async with way.open("chat.send", content=f"next {name}", sessionId=session) as stream:
        assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
    assert house.calls(f"next {name}")[0].said()[:2] == [("user", f"runs {name}"), ("assistant", "abc")]
    check_database(house.stack.home)


@pytest.mark.requirement("disk.recovers")
@pytest.mark.requirement("cancel.prompt")
async def test_cancel_is_answered_while_the_database_is_locked(house: House) -> None:
    way = door("grpc", house.stack)
    async with held_turn(house, way, "cancelled while locked") as (session, turn, _):
        with locked(house.stack):
            cancel = asyncio.create_task(way.ask("turn.cancel", turnId=turn))
            async with asyncio.timeout(5):
                await house.calls("cancelled while locked")[0].ended.wait()
        answer = await cancel
    assert answer["type"] == "turn.cancel" or answer["code"] == "STORAGE_UNAVAILABLE"
    assert (await way.ask("turn.wait", turnId=turn))["turn"]["state"] == "cancelled"
    async with way.open("chat.send", content="after the lock", sessionId=session) as stream:
        assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
