"""One connection to the JSON door."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from aiohttp import WSMsgType, web

from agentspace.client.errors import DeniedError, InvalidRequestError, NotFoundError, UnreachableError
from agentspace.client.websocket import WAITING_FRAMES, Socket, from_frame, gateway_url
from tests.agentspace.json_door import SESSION, json_door


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:3271", "ws://127.0.0.1:3271/gateway"),
        ("https://host/base/", "wss://host/base/gateway"),
        ("ws://host:1/gateway", "ws://host:1/gateway"),
        ("localhost:3271", "ws://localhost:3271/gateway"),
    ],
)
def test_address_of_a_server(url: str, address: str) -> None:
    assert gateway_url(url) == address


async def test_token_travels_as_a_header_and_hello_comes_first() -> None:
    async with json_door() as door:
        socket = await Socket.open(door.url, "secret")
        assert socket.hello["principal"] == "local"
        assert not socket.closed
        await socket.close()
        assert socket.closed
        assert door.authorization == ["Bearer secret"]
        with pytest.raises(UnreachableError):
            await socket.request("session.list")


async def test_answers_find_their_requests() -> None:
    async with json_door() as door:
        door.replies = {"a": {"type": "a"}, "b": {"type": "b"}}
        socket = await Socket.open(door.url)
        assert [(await socket.request(name))["type"] for name in ("a", "b", "a")] == ["a", "b", "a"]
        await socket.close()


async def test_a_frame_larger_than_the_server_takes_is_not_sent() -> None:
    async with json_door() as door:
        door.limits = {"maxFrameBytes": 2000}
        socket = await Socket.open(door.url)
        with pytest.raises(InvalidRequestError, match="at most 2000"):
            await socket.request("a", content="é" * 1000)
        door.replies = {"a": {"type": "a"}}
        await socket.request("a", content="é" * 900)
        assert [len(frame["content"]) for frame in door.received] == [900]
        await socket.close()


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The URL of a server whose connections are in the handler's hands."""
    app = web.Application()
    app.router.add_get("/gateway", handler)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_stream_that_is_left_full_holds_up_nobody() -> None:
    async def flood(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("agentspace.v2",))
        await socket.prepare(request)
        await socket.send_json({"type": "hello"})
        followed = ""
        async for said in socket:
            frame = said.json()
            if frame["type"] == "follow":
                followed = frame["id"]
                await socket.send_json({"type": "first", "requestId": followed})
                continue
            # The answer is read when no more can wait for the other reader, and right before what then does not fit.
            for _ in range(WAITING_FRAMES):
                await socket.send_json({"type": "more", "requestId": followed})
            await socket.send_json({"type": "answer", "requestId": frame["id"]})
            await socket.send_json({"type": "more", "requestId": followed})
        return socket

    async with serving(flood) as url:
        socket = await Socket.open(url)
        async with aclosing(socket.stream("follow")) as frames:
            assert (await anext(frames))["type"] == "first"
            await socket.request("ask")
        async with asyncio.timeout(10):
            assert (await socket.request("ask"))["type"] == "answer"
        await socket.close()


async def test_who_gives_up_before_hello_leaves_no_connection_behind() -> None:
    connected, closed = asyncio.Event(), asyncio.Event()

    async def silent(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("agentspace.v2",), autoping=False)
        await socket.prepare(request)
        await socket.ping()
        assert (await socket.receive()).type is WSMsgType.PONG
        connected.set()
        await socket.receive()
        closed.set()
        return socket

    async with serving(silent) as url, asyncio.timeout(10):
        opening = asyncio.create_task(Socket.open(url))
        await connected.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await closed.wait()


async def test_who_waits_for_a_frame_hears_of_a_lost_connection() -> None:
    async with json_door() as door:
        door.run_turn()
        door.hold_at, door.drops = 3, [1]
        socket = await Socket.open(door.url)
        async with aclosing(socket.watch(SESSION, epoch=1, afterSeq=2)) as frames, asyncio.timeout(10):
            assert (await anext(frames))["seq"] == 3
            # The connection breaks at the answer.
            lost = await asyncio.gather(anext(frames), socket.request("ask"), return_exceptions=True)
        assert [type(error) for error in lost] == [UnreachableError] * 2
        assert socket.closed


async def refused(status: int) -> Exception:
    """What opening a connection raises when the handshake is answered with a status."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=status)

    async with serving(refuse) as url:
        try:
            await Socket.open(url)
        except (DeniedError, UnreachableError) as error:
            return error
    raise AssertionError


async def test_a_refused_handshake_says_why() -> None:
    assert isinstance(await refused(401), DeniedError)
    assert isinstance(await refused(503), UnreachableError)


@pytest.mark.parametrize(
    ("code", "kind"), [(4401, DeniedError), (1009, InvalidRequestError), (1007, InvalidRequestError)]
)
async def test_a_close_that_trying_again_would_not_help(code: int, kind: type[Exception]) -> None:
    async def close(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("agentspace.v2",))
        await socket.prepare(request)
        await socket.close(code=code, message=b"not like this")
        return socket

    async with serving(close) as url:
        with pytest.raises(kind, match="not like this"):
            await Socket.open(url, "bad")


def test_an_error_frame_becomes_its_exception() -> None:
    error = from_frame({"code": "SESSION_DELETED", "message": "gone", "retryAfterMs": 1500, "metadata": {"a": "b"}})
    assert isinstance(error, NotFoundError)
    assert (error.retry_after, error.metadata, error.execution, error.turn_id) == (1.5, {"a": "b"}, "", "")


def test_it_needs_no_grpc() -> None:
    program = (
        "import sys, agentspace.client.conversation; "
        "heavy = {'grpc', 'google.protobuf', 'sqlalchemy', 'anthropic', 'aiohttp'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
