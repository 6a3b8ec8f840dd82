"""local_server.py: who can come in, and when, and how it stops."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.rpc.local_server import LocalServer
from tests.gateway.running import dialled


class Waiting:
    """A server with one method, which answers when it is told to."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.cancelled = False
        self.server = LocalServer(1000)
        handlers: dict[str, Any] = {"wait": grpc.unary_unary_rpc_method_handler(self.wait)}
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", handlers)])

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return request


@asynccontextmanager
async def asked(folder: Path) -> AsyncIterator[tuple[Waiting, grpc.aio.Channel, "asyncio.Future[bytes]"]]:
    """A server with a call that waits to be told."""
    waiting = Waiting()
    waiting.server.listen(folder / "s")
    await waiting.server.start()
    async with dialled(f"unix:{folder / 's'}") as channel:
        open_call = asyncio.ensure_future(call(channel))
        await waiting.began.wait()
        yield waiting, channel, open_call


def call(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/test.Test/wait")(b"x")


async def test_only_its_owner_can_open_the_socket(tmp_path: Path) -> None:
    server = LocalServer(1000)
    server.listen(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    await server.stop(0)


async def test_who_comes_before_the_start_waits(tmp_path: Path) -> None:
    waiting = Waiting()
    waiting.go_on.set()
    waiting.server.listen(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(tmp_path / "s"))
    async with dialled(f"unix:{tmp_path / 's'}") as channel:
        answer = asyncio.ensure_future(call(channel))
        await asyncio.sleep(0)
        await waiting.server.start()
        assert await answer == b"x"
    await waiting.server.stop(0)


@pytest.mark.parametrize("name", ["none/s", "x" * 200, "taken"])
async def test_a_socket_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").touch()
    server = LocalServer(1000)
    with pytest.raises(RuntimeError, match="no socket can be made at .*" + name):
        server.listen(tmp_path / name)
    await server.stop(0)


async def test_stop_waits_for_open_calls_and_takes_no_others(tmp_path: Path) -> None:
    async with asked(tmp_path) as (waiting, channel, open_call):
        stopping = asyncio.create_task(waiting.server.stop(10))
        await asyncio.sleep(0)
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(OSError, match="refused"):
            late.connect(str(tmp_path / "s"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        waiting.go_on.set()
        assert await open_call == b"x"
        await stopping
    assert not waiting.cancelled


async def test_calls_that_do_not_end_in_time_are_ended(tmp_path: Path) -> None:
    async with asked(tmp_path) as (waiting, _, open_call):
        await waiting.server.stop(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await open_call
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert waiting.cancelled
