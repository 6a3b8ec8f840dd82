"""local_call.py as grpcio's client sees it, and over a bare stream what that client never sends."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from bridge.grpc_call import Call as BareCall
from bridge.http2_connection import Connection as BareConnection
from gateway.rpc.http2_server import WINDOW_BYTES
from gateway.rpc.local_call import Call
from gateway.rpc.local_server import LocalServer
from tests.gateway.running import dialled

LARGEST = 4 * 1024 * 1024
DETAILS = " 50%20 of \u00fcnicode\nand a line"


class Methods:
    """What the calls do; `began` and `ended` count those that wait."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.go_on = asyncio.Event()

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def who(self, request: bytes, context: Any) -> bytes:
        return f"{context.peer()} {dict(context.invocation_metadata())['name']}".encode()

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.began.release()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.release()
        return request

    async def gives_up(self, request: bytes, context: Any) -> bytes:
        raise asyncio.CancelledError

    async def too_late(self, request: bytes, context: Any) -> bytes:
        raise TimeoutError

    async def breaks(self, request: bytes, context: Any) -> bytes:
        raise OverflowError("a secret")

    async def aborts(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, DETAILS)

    async def refuses(self, request: bytes, context: Any) -> None:
        await context.write(b"first")
        status = status_pb2.Status(code=code_pb2.ABORTED, message=DETAILS)
        status.details.add().Pack(status_pb2.Status(message="more"))
        await context.abort_with_status(rpc_status.to_status(status))

    async def repeat(self, request: int, context: Any) -> AsyncIterator[int]:
        for number in range(request):
            yield number

    async def talk(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(request.upper())

    async def listen(self, requests: AsyncIterator[bytes], context: Any) -> None:
        await self.go_on.wait()
        total = 0
        async for request in requests:
            total += len(request)
        await context.write(str(total).encode())

    async def ignore(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.began.release()
        await self.go_on.wait()

    async def flood(self, request: bytes, context: Any) -> None:
        try:
            while True:
                await context.write(bytes(100_000))
                self.began.release()
        finally:
            self.ended.release()

    def handlers(self) -> dict[str, Any]:
        unary = {
            name: grpc.unary_unary_rpc_method_handler(getattr(self, name))
            for name in ("echo", "who", "wait", "gives_up", "too_late", "breaks", "aborts")
        }
        return unary | {
            "refuses": grpc.unary_stream_rpc_method_handler(self.refuses),
            "flood": grpc.unary_stream_rpc_method_handler(self.flood),
            "repeat": grpc.unary_stream_rpc_method_handler(self.repeat, int, lambda number: str(number).encode()),
            "talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "ignore": grpc.stream_stream_rpc_method_handler(self.ignore),
            "listen": grpc.stream_stream_rpc_method_handler(self.listen),
        }


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest_asyncio.fixture
async def path(tmp_path: Path, methods: Methods) -> AsyncIterator[Path]:
    server = LocalServer(LARGEST)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", methods.handlers())])
    server.listen(tmp_path / "s")
    await server.start()
    yield tmp_path / "s"
    await server.stop(0)


@pytest_asyncio.fixture
async def channel(path: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with dialled(f"unix:{path}") as channel:
        yield channel


@pytest_asyncio.fixture
async def line(path: Path) -> AsyncIterator[BareConnection]:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_unix_connection(lambda: BareConnection("localhost"), str(path))
    yield connection
    connection.close()


def bare(line: BareConnection, method: str, timeout: str = "") -> tuple[BareCall, list[bytes]]:
    """A call over our own client, and where its answers will be."""
    answers: list[bytes] = []
    return BareCall(line, f"/test.Test/{method}", [("grpc-timeout", timeout)], answers.append), answers


async def failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def unary(channel: grpc.aio.Channel, name: str) -> Callable[..., Any]:
    return channel.unary_unary(f"/test.Test/{name}")


async def test_what_comes_back(channel: grpc.aio.Channel) -> None:
    for size in (0, 1, 20_000, LARGEST - 1):
        assert await unary(channel, "echo")(bytes(size)) == bytes(size)
    assert await unary(channel, "who")(b"", metadata=(("name", "me"),)) == b"unix: me"
    answers = channel.unary_stream("/test.Test/repeat")(b"3")
    assert [answer async for answer in answers] == [b"0", b"1", b"2"]
    talk = channel.stream_stream("/test.Test/talk")()
    for word in (b"one", b"two"):
        await talk.write(word)
        assert await talk.read() == word.upper()
    await talk.done_writing()
    assert await talk.read() is grpc.aio.EOF
    assert await talk.code() == grpc.StatusCode.OK


async def test_how_a_call_ends_otherwise(channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    aborted = await failure(unary(channel, "aborts")(b""))
    assert (aborted.code(), aborted.details()) == (grpc.StatusCode.NOT_FOUND, DETAILS)
    call = channel.unary_stream("/test.Test/refuses")(b"")
    assert await call.read() == b"first"
    refused = await failure(call.read())
    assert (refused.code(), refused.details()) == (grpc.StatusCode.ABORTED, DETAILS)
    detailed = status_pb2.Status.FromString(dict(refused.trailing_metadata() or ())["grpc-status-details-bin"])
    assert (detailed.message, len(detailed.details)) == (DETAILS, 1)
    for name in ("test.Test/nothing", "nobody/x"):
        assert (await failure(channel.unary_unary(f"/{name}")(b""))).code() == grpc.StatusCode.UNIMPLEMENTED
    assert (await failure(unary(channel, "gives_up")(b""))).code() == grpc.StatusCode.CANCELLED
    assert not caplog.records
    broken = await failure(unary(channel, "breaks")(b""))
    assert broken.code() == grpc.StatusCode.UNKNOWN
    assert "secret" not in str(broken)
    # Of its own; the call has no deadline.
    assert (await failure(unary(channel, "too_late")(b""))).code() == grpc.StatusCode.UNKNOWN
    said = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 2
    assert all(record.exc_info for record in said)
    assert await unary(channel, "echo")(b"still here") == b"still here"


async def test_requests_that_are_refused(channel: grpc.aio.Channel) -> None:
    large = await failure(unary(channel, "echo")(bytes(LARGEST + 1)))
    assert (large.code(), str(LARGEST) in (large.details() or "")) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    squeezed = await failure(unary(channel, "echo")(bytes(1000), compression=grpc.Compression.Gzip))
    assert squeezed.code() == grpc.StatusCode.UNIMPLEMENTED
    assert (await failure(channel.stream_unary("/test.Test/echo")(iter([])))).code() == grpc.StatusCode.INTERNAL
    assert await channel.stream_unary("/test.Test/echo")(iter([b"a", b"b"])) == b"a"
    assert await unary(channel, "echo")(b"still here") == b"still here"


async def test_a_call_that_is_cancelled_is_not_answered_any_more(channel: grpc.aio.Channel, methods: Methods) -> None:
    call = unary(channel, "wait")(b"")
    await methods.began.acquire()
    call.cancel()
    await methods.ended.acquire()
    assert await unary(channel, "echo")(b"still here") == b"still here"


async def test_calls_end_with_their_connection(path: Path, methods: Methods, caplog: pytest.LogCaptureFixture) -> None:
    async with dialled(f"unix:{path}") as channel:
        calls = [asyncio.ensure_future(unary(channel, "wait")(b"")) for _ in range(3)]
        for _ in calls:
            await methods.began.acquire()
    for _ in calls:
        await methods.ended.acquire()
    await asyncio.gather(*calls, return_exceptions=True)
    assert not caplog.records


async def test_who_does_not_read_is_written_no_more(channel: grpc.aio.Channel, methods: Methods) -> None:
    call = channel.unary_stream("/test.Test/flood")(b"")
    await call.read()
    # Whatever the client takes for itself, there comes a time when it takes no more.
    written = 0
    while True:
        try:
            async with asyncio.timeout(0.2):
                await methods.began.acquire()
                written += 1
        except TimeoutError:
            break
    assert 0 < written < 500
    call.cancel()
    await methods.ended.acquire()


async def filled(call: BareCall) -> int:
    """Send until there is no room for more; gives how many bytes were sent or wait to be."""
    sent = asyncio.Event()
    call.on_sent = sent.set
    size = 0
    while size < 50_000_000:
        size += 100_000
        if not call.send(bytes(100_000)):
            try:
                async with asyncio.timeout(0.1):
                    await sent.wait()
            except TimeoutError:
                return size
            sent.clear()
    raise AssertionError("there is always room")


async def test_who_is_not_read_has_to_wait(line: BareConnection, methods: Methods) -> None:
    call, answers = bare(line, "listen")
    size = await filled(call)
    methods.go_on.set()
    call.send(b"", end=True)
    assert (await call.ended).code == code_pb2.OK
    assert answers == [str(size).encode()]


async def test_what_was_never_read_takes_no_room_from_later_calls(line: BareConnection, methods: Methods) -> None:
    size = 0
    while size <= WINDOW_BYTES:
        call, _ = bare(line, "ignore")
        await methods.began.acquire()
        size += await filled(call)
        methods.go_on.set()
        assert (await call.ended).code == code_pb2.OK
        methods.go_on.clear()


@pytest.mark.parametrize("timeout", ["20m", "20000u", "9999999n"])
async def test_the_deadline_is_kept_here_too(line: BareConnection, methods: Methods, timeout: str) -> None:
    call, answers = bare(line, "wait", timeout)
    call.send(b"", end=True)
    assert (await call.ended).code == code_pb2.DEADLINE_EXCEEDED
    await methods.ended.acquire()
    assert not answers


@pytest.mark.parametrize("timeout", ["99999999H", "1M", "5S", "soon", "123456789S", "-1S", ""])
async def test_a_deadline_that_is_far_off_or_none(line: BareConnection, timeout: str) -> None:
    call, answers = bare(line, "echo", timeout)
    call.send(b"x", end=True)
    assert (await call.ended).code == code_pb2.OK
    assert answers == [b"x"]


async def test_messages_may_be_cut_anywhere_and_come_together(line: BareConnection) -> None:
    call, answers = bare(line, "talk")
    framed = b"".join(b"\0" + len(word).to_bytes(4) + word for word in (b"one", b"", b"three"))
    for at in range(len(framed)):
        line.send(call._number, framed[at : at + 1])
    line.send(call._number, framed * 2, end=True)
    assert (await call.ended).code == code_pb2.OK
    assert answers == [b"ONE", b"", b"THREE"] * 3


async def test_one_request_is_answered_though_more_may_come(line: BareConnection) -> None:
    call, answers = bare(line, "echo")
    call.send(b"x")
    assert (await call.ended).code == code_pb2.OK
    assert answers == [b"x"]


async def test_nothing_of_a_call_that_was_given_up_stays(line: BareConnection, methods: Methods) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            call, _ = bare(line, "wait", "1H")
            call.send(b"", end=True)
            await methods.began.acquire()
            call.cancel()
            await methods.ended.acquire()
        call, _ = bare(line, "echo")
        call.send(b"", end=True)
        await call.ended
        await asyncio.sleep(0)
        assert not [found for found in gc.get_objects() if isinstance(found, Call)]
    finally:
        gc.enable()
