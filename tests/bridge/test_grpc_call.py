"""grpc_call.py against the server of grpcio, and with messages cut in any way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.grpc_call import Call, CallError, ask, code_name
from bridge.http2_connection import Connection, Headers

LARGE = 10_000_000


class Service:
    """A server whose methods are named for what they do. They take and give bytes."""

    def __init__(self) -> None:
        self.metadata: dict[str, object] = {}
        self.seconds_left = 0.0
        self.held = asyncio.Event()
        self.ended = asyncio.Event()

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.metadata = dict(context.invocation_metadata())
        self.seconds_left = context.time_remaining()
        return request

    async def hold(self, request: bytes, context: Any) -> bytes:
        self.held.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()
        return request

    async def refuse(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö: 100 %, and\na line")
        return request

    async def lament(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "x" * 200_000)
        return request

    async def explain(self, request: bytes, context: Any) -> bytes:
        detail = Packed()
        detail.Pack(ErrorInfo(reason="BECAUSE", domain="example.org"))
        await context.abort_with_status(
            rpc_status.to_status(Status(code=Code.NOT_FOUND, message="no", details=[detail]))
        )
        return request

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def count(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            for number in range(int(request)):
                yield b"%d" % number
            return

    @asynccontextmanager
    async def serve(self, socket: Path, options: list[tuple[str, Any]] | None = None) -> AsyncIterator[grpc.aio.Server]:
        """Run on a Unix socket."""
        limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=limits + (options or []))
        unary = {
            name: grpc.unary_unary_rpc_method_handler(getattr(self, name))
            for name in ("echo", "hold", "refuse", "lament", "explain")
        }
        streams = {name: grpc.stream_stream_rpc_method_handler(getattr(self, name)) for name in ("chat", "count")}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", unary | streams),))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        try:
            yield server
        finally:
            await server.stop(0)


async def dial(socket: Path) -> Connection:
    _, connection = await asyncio.get_running_loop().create_unix_connection(
        lambda: Connection("localhost"), str(socket)
    )
    await connection.settled
    return connection


@pytest.fixture
async def service() -> Service:
    return Service()


@pytest.fixture
async def connection(service: Service, tmp_path: Path) -> AsyncIterator[Connection]:
    async with asyncio.timeout(20), service.serve(tmp_path / "s"):
        connection = await dial(tmp_path / "s")
        yield connection
        connection.close()


def asked(connection: Connection, method: str, message: bytes = b"x", token: str = "", seconds: float = 10.0) -> Any:
    return ask(connection, f"/test.Service/{method}", message, token, seconds)


async def failure(connection: Connection, method: str, **given: Any) -> Status:
    with pytest.raises(CallError) as caught:
        await asked(connection, method, **given)
    return caught.value.status


@pytest.mark.parametrize("message", [b"", b"question", bytes(70_000), bytes(LARGE)], ids=len)
async def test_a_question_of_any_size_is_answered(connection: Connection, message: bytes) -> None:
    assert await asked(connection, "echo", message) == message


async def test_the_token_travels_and_the_deadline_too(connection: Connection, service: Service) -> None:
    await asked(connection, "echo", token="secret")
    assert service.metadata["authorization"] == "Bearer secret"
    assert 5 < service.seconds_left <= 10
    await asked(connection, "echo")
    assert "authorization" not in service.metadata


async def test_many_questions_at_once(connection: Connection) -> None:
    answers = await asyncio.gather(*(asked(connection, "echo", b"%d" % n * 1000) for n in range(300)))
    assert answers == [b"%d" % n * 1000 for n in range(300)]


async def test_refusals_keep_their_words_and_details(connection: Connection) -> None:
    status = await failure(connection, "refuse")
    assert (status.code, status.message) == (Code.FAILED_PRECONDITION, "nö: 100 %, and\na line")
    status = await failure(connection, "explain")
    info = ErrorInfo()
    assert status.code == Code.NOT_FOUND
    assert status.details[0].Unpack(info)
    assert info.reason == "BECAUSE"
    assert (await failure(connection, "nothing")).code == Code.UNIMPLEMENTED
    assert await asked(connection, "echo", b"still") == b"still"


async def test_a_refusal_of_many_words_ends_its_call_alone(connection: Connection, service: Service) -> None:
    task = asyncio.create_task(asked(connection, "hold"))
    await service.held.wait()
    assert (await failure(connection, "lament")).code == Code.INTERNAL
    assert await asked(connection, "echo") == b"x"
    assert not task.done()
    task.cancel()


async def test_no_answer_in_time_ends_it_on_both_sides(connection: Connection, service: Service) -> None:
    assert (await failure(connection, "hold", seconds=0.1)).code == Code.DEADLINE_EXCEEDED
    await service.ended.wait()


async def test_who_gives_up_ends_it_on_both_sides(connection: Connection, service: Service) -> None:
    task = asyncio.create_task(asked(connection, "hold"))
    await service.held.wait()
    task.cancel()
    await service.ended.wait()
    assert await asked(connection, "echo") == b"x"


async def test_a_stream_both_ways_keeps_order_and_waits_for_room(connection: Connection) -> None:
    heard: list[bytes] = []
    room = asyncio.Event()
    call = Call(connection, "/test.Service/chat", (), heard.append, room.set)
    messages = [b"%d" % number * (number % 7 * 40_000 + 1) for number in range(100)]
    waited = 0
    for message in messages:
        room.clear()
        if not call.send(message):
            waited += 1
            await room.wait()
    assert waited
    call.send(b"last", end=True)
    assert (await call.ended).code == Code.OK
    assert heard == [*messages, b"last"]


async def test_many_small_messages(connection: Connection) -> None:
    heard: list[bytes] = []
    call = Call(connection, "/test.Service/count", (), heard.append)
    call.send(b"5000")
    assert (await call.ended).code == Code.OK
    assert heard == [b"%d" % number for number in range(5000)]


async def test_who_cannot_take_a_message_ends_the_call_alone(connection: Connection) -> None:
    def fail(message: bytes) -> None:
        raise RuntimeError(message)

    call = Call(connection, "/test.Service/count", (), fail)
    call.send(b"100")
    with pytest.raises(RuntimeError, match="0"):
        await call.ended
    assert await asked(connection, "echo") == b"x"


async def test_a_server_that_stops_lets_its_calls_end(service: Service, tmp_path: Path) -> None:
    async with asyncio.timeout(20), service.serve(tmp_path / "s") as server:
        connection = await dial(tmp_path / "s")
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        call = Call(connection, "/test.Service/chat", (), heard.put_nowait)
        call.send(b"before")
        await heard.get()
        stopping = asyncio.create_task(server.stop(10))
        while connection.usable:
            await asyncio.sleep(0)
        call.send(b"after", end=True)
        assert await heard.get() == b"after"
        assert (await call.ended).code == Code.OK
        assert (await failure(connection, "echo")).code == Code.UNAVAILABLE
        await stopping
        connection.close()


async def test_a_server_that_falls_is_unavailable(service: Service, tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        async with service.serve(tmp_path / "s"):
            connection = await dial(tmp_path / "s")
            task = asyncio.create_task(failure(connection, "hold"))
            await service.held.wait()
        assert (await task).code in (Code.UNAVAILABLE, Code.CANCELLED)
        connection.close()


class Answering:
    """A transport with an HTTP/2 server behind it that answers every request with what `answer` says."""

    def __init__(self, answer: Callable[[H2Connection, int], None]) -> None:
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.server.initiate_connection()
        self.answer = answer
        self.client = Connection("gateway")
        self.client.connection_made(cast(asyncio.Transport, self))

    def write(self, data: bytes) -> None:
        for event in self.server.receive_data(data):
            if isinstance(event, DataReceived) and event.stream_ended:
                self.answer(self.server, event.stream_id)
        asyncio.get_running_loop().call_soon(self._back)

    def abort(self) -> None:
        pass

    def _back(self) -> None:
        if data := self.server.data_to_send():
            self.client.data_received(data)


TRAILERS = {
    "no gRPC": ([(":status", "502")], Code.UNAVAILABLE),
    "no status": ([(":status", "200"), ("content-type", "application/grpc")], Code.UNAVAILABLE),
    "no number": ([(":status", "200"), ("grpc-status", "many")], Code.UNKNOWN),
    "no such number": ([(":status", "200"), ("grpc-status", "99")], Code.UNKNOWN),
    "broken details": (
        [(":status", "200"), ("grpc-status", "5"), ("grpc-status-details-bin", "a")],
        Code.NOT_FOUND,
    ),
    "garbled details": (
        [(":status", "200"), ("grpc-status", "5"), ("grpc-status-details-bin", "/////w")],
        Code.NOT_FOUND,
    ),
    "details in no ASCII": (
        [(":status", "200"), ("grpc-status", "5"), ("grpc-status-details-bin", "\u00e9")],
        Code.NOT_FOUND,
    ),
    "details of another end": (
        [(":status", "200"), ("grpc-status", "5"), ("grpc-status-details-bin", "")],
        Code.NOT_FOUND,
    ),
    "a very long number": ([(":status", "200"), ("grpc-status", "9" * 5000)], Code.UNKNOWN),
    "nothing but ok": ([(":status", "200"), ("grpc-status", "0")], Code.INTERNAL),
}


@pytest.mark.parametrize("name", TRAILERS)
async def test_odd_ends_are_failures(name: str) -> None:
    headers, code = TRAILERS[name]
    wire = Answering(lambda server, number: server.send_headers(number, headers, end_stream=True))
    assert (await failure(wire.client, "echo")).code == code


@pytest.mark.parametrize(("error", "code"), [(8, Code.CANCELLED), (7, Code.UNAVAILABLE), (2, Code.INTERNAL)])
async def test_resets_are_failures(error: int, code: int) -> None:
    wire = Answering(lambda server, number: server.reset_stream(number, error))
    assert (await failure(wire.client, "echo")).code == code


@pytest.mark.parametrize("head", [b"\x01\x00\x00\x00\x01x", b"\x00\xff\xff\xff\xff"])
async def test_messages_that_are_compressed_or_too_large_are_refused(head: bytes) -> None:
    def answer(server: H2Connection, number: int) -> None:
        server.send_headers(number, [(":status", "200")])
        server.send_data(number, head)

    assert (await failure(Answering(answer).client, "echo")).code == Code.RESOURCE_EXHAUSTED


def test_codes_have_names() -> None:
    assert code_name(Status(code=14)) == "UNAVAILABLE"
    assert code_name(Status(code=99)) == "99"


class Quiet:
    """Stands in for a connection that says nothing."""

    def open(self, path: str, headers: Headers, receiver: object) -> int:
        return 1


@example(messages=[b"x"], cuts=[0, 6])
@given(messages=st.lists(st.binary(max_size=50), max_size=8), cuts=st.lists(st.integers(1, 30), min_size=1))
def test_messages_are_found_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    async def run() -> None:
        heard: list[bytes] = []
        call = Call(cast(Connection, Quiet()), "/x", (), heard.append)
        data = b"".join(b"\0" + len(message).to_bytes(4) + message for message in messages)
        at = turn = 0
        while at < len(data):
            call.on_data(data[at : (at := at + cuts[turn % len(cuts)])])
            turn += 1
        assert heard == messages

    asyncio.run(run())
