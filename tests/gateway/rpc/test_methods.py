"""methods.py: the table is complete, agrees with the frames, and calls go through scopes and outlive their callers."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from agentspace.v1 import (
    annotations_pb2,
    chat_service_pb2,
    error_pb2,
    frame_pb2,
    gateway_service_pb2,
    session_service_pb2,
)
from gateway.app import App
from gateway.domain.access import ALL_SCOPES, LOCAL, OPERATOR, Principal
from gateway.domain.error import GatewayError
from gateway.rpc.methods import Calls, Method, members_by_type, service_descriptors

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTOS = Path(__file__).parents[3] / "proto" / "agentspace" / "v1"
# Said of the gateway itself, to every caller it knows.
OPEN = {"Hello", "GetReadiness", "GetMetrics"}
# A gRPC client has other means: it ends its call.
WITHOUT_METHOD = {"session.unwatch"}
# For bridges and backends only: frames show no keys, and a socket's state is no frame.
WITHOUT_FRAME = {*OPEN, "ReadKey"}


def client_frames() -> dict[str, str]:
    """The request's full name by the frame's type."""
    fields = frame_pb2.ClientFrame.DESCRIPTOR.oneofs_by_name["body"].fields
    option = annotations_pb2.frame
    return {f.GetOptions().Extensions[option].type: f.message_type.full_name for f in fields if f.message_type}


async def test_every_method_of_the_contract_is_served(app: App) -> None:
    contract = {
        f"/{service.full_name}/{method.name}"
        for service in service_descriptors()
        for method in service.methods
        if not method.client_streaming
    }
    assert {method.path for method in app.methods} == contract
    assert all((method.unary is None) != (method.stream is None) for method in app.methods)
    assert len(service_descriptors()) == len({s.full_name for s in service_descriptors()}) == 7


async def test_every_service_of_the_contract_is_known() -> None:
    files = {path.name for path in PROTOS.glob("*_service.proto")}
    assert {service.file.name.rsplit("/", 1)[1] for service in service_descriptors()} == files


async def test_every_method_has_a_scope_or_is_meant_for_all(app: App) -> None:
    assert {method.name for method in app.methods if not method.scope} == OPEN
    assert {method.scope for method in app.methods if method.scope} <= set(ALL_SCOPES)


async def test_each_client_frame_is_the_request_of_one_method(app: App) -> None:
    frames = client_frames()
    by_frame = {method.frame: method.request.DESCRIPTOR.full_name for method in app.methods if method.frame}
    assert by_frame == {type_: name for type_, name in frames.items() if type_ not in WITHOUT_METHOD}
    assert set(frames) >= WITHOUT_METHOD
    assert {method.name for method in app.methods if not method.frame} == WITHOUT_FRAME
    requests = Counter(method.request.DESCRIPTOR.full_name for method in app.methods)
    assert max(requests.values()) == 1


async def test_every_answer_has_its_server_frame(app: App) -> None:
    members = members_by_type(frame_pb2.ServerFrame, "body")
    fields = frame_pb2.ServerFrame.DESCRIPTOR.oneofs_by_name["body"].fields
    assert len(members) == len(fields), "two members of one type could not be told apart"
    for method in app.methods:
        if method.frame and method.unary is not None:
            assert method.response in members, method.path
        elif method.frame:
            assert set(members_by_type(method.response, "event")) <= set(members), method.path


class Told:
    """Calls that remember what they told."""

    def __init__(self) -> None:
        self.denied: list[tuple[str, str]] = []
        self.observed: list[tuple[str, str]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.calls = Calls(self._deny, lambda method, code: self.observed.append((method.name, code)), self._spawn)

    async def _deny(self, caller: Principal, method: Method) -> None:
        self.denied.append((caller.name, method.name))

    def _spawn(self, work: Any) -> "asyncio.Task[Any]":
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]


def a_method(answer: Any, scope: str = "sessions") -> Method:
    request, response = session_service_pb2.GetSessionRequest, session_service_pb2.GetSessionResponse
    return Method(
        "agentspace.v1.SessionService", "GetSession", "session.get", scope, True, request, response, answer, None
    )


REQUEST = session_service_pb2.GetSessionRequest(session_id="s")


async def test_a_call_is_answered_and_counted() -> None:
    told = Told()

    async def answer(request: Message, caller: Principal) -> Message:
        assert (request, caller) == (REQUEST, LOCAL)
        return session_service_pb2.GetSessionResponse()

    assert await told.calls.unary(a_method(answer), REQUEST, LOCAL) == session_service_pb2.GetSessionResponse()
    assert told.observed == [("GetSession", "OK")]


async def test_without_the_scope_nothing_runs_and_it_is_told() -> None:
    told = Told()

    async def answer(request: Message, caller: Principal) -> Message:
        raise AssertionError("must not run")

    with pytest.raises(GatewayError) as caught:
        await told.calls.unary(a_method(answer, "keys"), REQUEST, LOCAL)
    assert caught.value.reason == error_pb2.ERROR_REASON_MISSING_SCOPE
    assert (told.denied, told.observed) == ([("local", "GetSession")], [("GetSession", "MISSING_SCOPE")])


async def test_a_fault_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()

    async def answer(request: Message, caller: Principal) -> Message:
        raise ZeroDivisionError("inner matters")

    with pytest.raises(GatewayError) as caught:
        await told.calls.unary(a_method(answer), REQUEST, OPERATOR)
    assert caught.value.reason == error_pb2.ERROR_REASON_INTERNAL
    assert "inner" not in caught.value.message
    assert "inner matters" in caplog.text
    assert told.observed == [("GetSession", "INTERNAL")]


async def test_a_call_that_is_cut_off_is_not_counted_as_answered() -> None:
    told, begun = Told(), asyncio.Event()

    async def answer(request: Message, caller: Principal) -> Message:
        begun.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    call = asyncio.create_task(told.calls.unary(a_method(answer), REQUEST, LOCAL))
    await begun.wait()
    call.cancel()
    await asyncio.wait([call])
    assert told.observed == [("GetSession", "CANCELLED")]


async def test_an_owned_call_outlives_its_caller() -> None:
    told, begun, may_end = Told(), asyncio.Event(), asyncio.Event()
    done = []

    async def answer(request: Message, caller: Principal) -> Message:
        begun.set()
        await may_end.wait()
        done.append(1)
        return session_service_pb2.GetSessionResponse()

    waiting = asyncio.create_task(told.calls.owned(told.calls.unary(a_method(answer), REQUEST, LOCAL)))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    await told.tasks[0]
    assert done == [1]


async def test_a_feed_that_nobody_waits_for_is_closed() -> None:
    told, begun, may_end = Told(), asyncio.Event(), asyncio.Event()
    closed = asyncio.Event()

    class Feed:
        done = False
        failure = None

        def take(self, limit: int) -> list[Any]:
            return []

        def close(self) -> None:
            closed.set()

    async def answer(request: Message, caller: Principal, wake: Any) -> Feed:
        begun.set()
        await may_end.wait()
        return Feed()

    request, response = chat_service_pb2.WatchSessionRequest, chat_service_pb2.WatchSessionResponse
    method = Method("agentspace.v1.ChatService", "WatchSession", "", "chat", True, request, response, None, answer)
    waiting = asyncio.create_task(told.calls.owned(told.calls.stream(method, request(), LOCAL, lambda: None)))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    async with asyncio.timeout(5):
        await closed.wait()


async def test_path_is_grpcs(app: App) -> None:
    assert "/agentspace.v1.ChatService/SendMessage" in {method.path for method in app.methods}
    descriptor = gateway_service_pb2.DESCRIPTOR.services_by_name["GatewayService"]
    assert f"/{descriptor.full_name}/Hello" in {method.path for method in app.methods}
