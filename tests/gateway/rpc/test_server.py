"""server.py over real sockets: two addresses, health, reflection under both names, Connect, and an end in order."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from agentspace.v1 import gateway_service_pb2, session_service_pb2
from agentspace.v1.frame_pb2 import ClientFrame
from agentspace.v1.gateway_service_pb2 import ChannelOpen, ChannelRequest, ConnectRequest
from agentspace.v1.gateway_service_pb2_grpc import GatewayServiceStub
from agentspace.v1.session_service_pb2_grpc import SessionServiceStub
from gateway.app import App
from gateway.rpc.connect import Connection
from gateway.rpc.methods import service_descriptors
from gateway.rpc.server import REFLECTION_V1
from tests.gateway.running import bearer, config, dialled, running, token

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = {service.full_name for service in service_descriptors()}


async def status(channel: grpc.aio.Channel, service: str) -> int:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_both_addresses_serve(app: App, home: Path) -> None:
    assert app.grpc_port > 0
    for target in (f"127.0.0.1:{app.grpc_port}", f"unix:{home / 'gateway.sock'}"):
        async with dialled(target) as channel:
            answer = await SessionServiceStub(channel).CreateSession(session_service_pb2.CreateSessionRequest())
            assert answer.session.session_id
    assert (home / "gateway.sock").stat().st_mode & 0o777 == 0o600


async def test_health_tells_of_every_service_and_of_draining(fresh: App, fresh_target: str) -> None:
    async with dialled(fresh_target) as channel:
        for name in ("", *NAMES):
            assert await status(channel, name) == health_pb2.HealthCheckResponse.SERVING
        await fresh.drain()
        for name in ("", *NAMES):
            assert await status(channel, name) == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["grpc.reflection.v1alpha.ServerReflection", REFLECTION_V1])
async def test_every_service_that_reflection_lists_is_described(target: str, name: str) -> None:
    async with dialled(target) as channel:
        reflect = channel.stream_stream(
            f"/{name}/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        (listed,) = [a async for a in reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))]
        services = [service.name for service in listed.list_services_response.service]
        assert {*services} >= {*NAMES, "grpc.health.v1.Health"}
        asked = [reflection_pb2.ServerReflectionRequest(file_containing_symbol=service) for service in services]
        described = [answer async for answer in reflect(iter(asked))]
    assert [answer.WhichOneof("message_response") for answer in described] == ["file_descriptor_response"] * len(asked)


class Line:
    """A Connect call: what is said goes out in order, what comes is kept."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any = ()) -> None:
        self._out: asyncio.Queue[ConnectRequest] = asyncio.Queue()
        self.call = GatewayServiceStub(channel).Connect(self._requests(), metadata=metadata)

    async def _requests(self) -> Any:
        while True:
            yield await self._out.get()

    def say(self, *requests: ChannelRequest) -> None:
        self._out.put_nowait(ConnectRequest(channels=requests))

    async def hear(self) -> gateway_service_pb2.ConnectResponse:
        answer = await self.call.read()
        assert isinstance(answer, gateway_service_pb2.ConnectResponse)
        return answer


def opening(channel: int, bearer_token: str = "") -> ChannelRequest:
    return ChannelRequest(channel=channel, open=ChannelOpen(level=2, bearer_token=bearer_token))


def listing(channel: int, request_id: str) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame=ClientFrame(id=request_id, session_list={}))


async def test_connect_answers_each_channel(target: str) -> None:
    async with dialled(target) as channel:
        line = Line(channel)
        line.say(opening(1), opening(2), listing(1, "a"), listing(2, "b"))
        heard = set()
        while len(heard) < 2:
            batch = await line.hear()
            heard |= {(r.channel, r.request_id) for item in batch.channels for r in item.recipients}
        assert heard == {(1, "a"), (2, "b")}
        line.call.cancel()


async def test_stop_closes_the_channels_and_ends_the_calls(fresh: App, fresh_target: str) -> None:
    async with dialled(fresh_target) as channel:
        lines = [Line(channel) for _ in range(2)]
        for line in lines:
            line.say(opening(1), opening(2), listing(1, "a"))
            await line.hear()
        await fresh.drain()
        stopping = asyncio.create_task(fresh._server.stop(5))
        for line in lines:
            (item,) = (await line.hear()).channels
            assert item.closed.reason == gateway_service_pb2.CLOSE_REASON_RESTART
            assert {recipient.channel for recipient in item.recipients} == {1, 2}
            assert await line.call.read() is grpc.aio.EOF
        await stopping


async def test_a_fault_ends_the_call_otherwise_than_in_order(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(connection: Connection, batch: object) -> None:
        raise OverflowError

    monkeypatch.setattr(Connection, "receive", breaks)
    async with dialled(target) as channel:
        line = Line(channel)
        line.say(opening(1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await line.hear()
        assert caught.value.code() == grpc.StatusCode.UNKNOWN


async def test_peer_that_reads_no_answers_is_read_no_more(target: str) -> None:
    async with dialled(target) as channel:
        line = Line(channel)
        wrong = [opening(number, "wrong") for number in range(1, 10_001)]
        line.say(*wrong)
        line.say(opening(20_000), listing(20_000, "last"))
        heard = 0
        while True:
            batch = await line.hear()
            heard += len(batch.channels)
            if any(r.request_id == "last" for item in batch.channels for r in item.recipients):
                break
        assert heard == 10_001
        line.call.cancel()


async def test_insecure_wants_a_token_over_tcp_and_trusts_its_socket(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(config(home, "--insecure")) as app:
        async with dialled(f"127.0.0.1:{app.grpc_port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Line(channel).hear()
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            line = Line(channel, bearer(token(home)))
            line.say(opening(1), listing(1, "a"), opening(2, token(home)), listing(2, "b"))
            closed, answered = False, False
            while not (closed and answered):
                for item in (await line.hear()).channels:
                    closed |= item.HasField("closed")
                    answered |= item.frame.HasField("session_list")
            line.call.cancel()
        async with dialled(f"unix:{home / 'gateway.sock'}") as channel:
            line = Line(channel)
            line.say(opening(1), listing(1, "a"))
            assert (await line.hear()).channels[0].frame.HasField("session_list")
            line.call.cancel()


async def test_request_that_is_too_large_is_refused(target: str) -> None:
    async with dialled(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await SessionServiceStub(channel).CreateSession(
                session_service_pb2.CreateSessionRequest(title="x" * 5_000_000)
            )
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
