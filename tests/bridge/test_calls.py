"""calls.py against a real gRPC server: one call, batches in order, loss and return, and errors with their reasons."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agentspace.v1.frame_pb2 import ServerFrame
from agentspace.v1.gateway_service_pb2 import (
    ChannelClosed,
    ChannelOpen,
    ChannelRequest,
    ChannelResponse,
    ConnectResponse,
    Recipient,
)
from bridge import calls
from bridge.calls import GrpcLink, unpacked
from bridge.link import Delivery, LinkError
from tests.bridge.conftest import TOKEN, CannedGateway, running_gateway


class Recorder:
    """A receiver that remembers."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Sequence[Delivery]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.faulty = False

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        if self.faulty:
            self.faulty = False
            raise RuntimeError("planted")
        self.batches.put_nowait(batch)

    def on_lost(self) -> None:
        self.lost.set()


@asynccontextmanager
async def running(target: Path | str) -> AsyncIterator[tuple[GrpcLink, Recorder]]:
    link, recorder = GrpcLink(target if isinstance(target, str) else f"unix:{target}"), Recorder()
    task = asyncio.create_task(link.run(recorder))
    try:
        async with asyncio.timeout(20):
            yield link, recorder
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not link.connected


def chat(channel: int, request_id: str) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame={"id": request_id, "chat_send": {"content": "x"}})


async def test_requests_keep_their_order(gateway: CannedGateway, socket_path: Path) -> None:
    async with running(socket_path) as (link, recorder):
        await link.opened()
        link.send(ChannelRequest(channel=1, open=ChannelOpen(level=1)))
        for number in range(200):
            link.send(chat(1, str(number)))
        await link.drain()
        frames = await gateway.until(200, "frame")
        assert [request.frame.id for request in frames] == [str(number) for number in range(200)]
        first = await recorder.batches.get()
        assert first[0][2] == [(1, "0")]
    assert recorder.lost.is_set()


async def test_lost_and_found(socket_path: Path) -> None:
    async with running(socket_path) as (link, recorder):
        link.send(chat(1, "into the void"))
        await link.drain()
        for _ in range(3):
            canned = CannedGateway()
            async with running_gateway(canned, socket_path):
                await link.opened()
                link.send(ChannelRequest(channel=1, open=ChannelOpen(level=1)))
                await canned.until(1, "open")
                recorder.lost.clear()
            await recorder.lost.wait()
            assert [request.WhichOneof("action") for request in canned.requests] == ["open"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_over_tcp(host: str) -> None:
    async with running_gateway(CannedGateway(), "127.0.0.1:0") as port, running(f"{host}:{port}") as (link, recorder):
        await link.opened()
        link.send(chat(1, "a"))
        assert (await recorder.batches.get())[0][2] == [(1, "a")]


async def test_what_is_no_gateway_is_tried_again_until_it_is_one(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "DIAL_SECONDS", 0.05)
    met: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.put_nowait(writer)

    async with running(socket_path) as (link, recorder):
        other = await asyncio.start_unix_server(meet, socket_path)
        silent = await met.get()
        rude = await met.get()
        rude.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        gone = await met.get()
        assert not link.connected
        other.close()
        for writer in (silent, rude, gone):
            writer.close()
        socket_path.unlink(missing_ok=True)
        async with running_gateway(CannedGateway(), socket_path):
            await link.opened()
            link.send(chat(1, "a"))
            assert (await recorder.batches.get())[0][2] == [(1, "a")]


async def test_fault_of_the_receiver_starts_afresh(gateway: CannedGateway, socket_path: Path) -> None:
    async with running(socket_path) as (link, recorder):
        await link.opened()
        recorder.faulty = True
        link.send(chat(1, "a"))
        await recorder.lost.wait()
        await link.opened()
        link.send(chat(2, "b"))
        assert (await recorder.batches.get())[0][2] == [(2, "b")]


async def test_what_fails_again_and_again_is_tried_again_slowly(
    gateway: CannedGateway, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "RETRY_SECONDS", 60.0)
    async with running(socket_path) as (link, recorder):
        await link.opened()
        recorder.faulty = True
        link.send(chat(1, "a"))
        await recorder.lost.wait()
        for _ in range(100):
            await asyncio.sleep(0)
            assert not link.connected


async def test_questions_take_turns(gateway: CannedGateway, socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(socket_path) as (link, _):
        await link.opened()
        hellos = await asyncio.gather(*(link.hello(TOKEN) for _ in range(5 * calls.ASKED_AT_ONCE)))
        assert {hello.principal for hello in hellos} == {"operator"}
        monkeypatch.setattr(calls, "ANSWER_SECONDS", 0)
        with pytest.raises(LinkError, match="GATEWAY_UNREACHABLE"):
            await link.hello(TOKEN)


async def test_questions_are_answered(gateway: CannedGateway, socket_path: Path) -> None:
    async with running(socket_path) as (link, _):
        await link.opened()
        assert (await link.hello("")).principal == "local"
        assert (await link.hello(TOKEN)).principal == "operator"
        assert (await link.readiness()).ready
        assert "agentspace_turns_total" in await link.metrics()
        assert await link.read_key("anthropic", TOKEN) == "sk-secret"


@pytest.mark.parametrize(
    ("provider", "token", "reason"),
    [("empty", TOKEN, "PROVIDER_KEY_MISSING"), ("anthropic", "wrong", "UNAUTHENTICATED")],
)
async def test_refusals_have_their_reason(
    gateway: CannedGateway, socket_path: Path, provider: str, token: str, reason: str
) -> None:
    async with running(socket_path) as (link, _):
        await link.opened()
        with pytest.raises(LinkError) as caught:
            await link.read_key(provider, token)
        assert caught.value.reason == reason
        assert token not in str(caught.value)


async def test_a_gateway_that_stays_away_is_logged_once(
    socket_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "SILENT_SECONDS", 0.01)
    async with running(socket_path) as (link, _):
        while "cannot be reached" not in caplog.text:
            await asyncio.sleep(0)
        async with running_gateway(CannedGateway(), socket_path):
            await link.opened()
    [said] = [record for record in caplog.records if "cannot be reached" in record.message]
    assert (said.levelname, vars(said)["gateway"]) == ("WARNING", f"unix:{socket_path}")


async def test_an_end_in_order_is_no_warning(
    gateway: CannedGateway, socket_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(socket_path) as (link, recorder):
        await link.opened()
        link.send(ChannelRequest(channel=1, open=ChannelOpen(level=1)))
        await gateway.until(1, "open")
        gateway.outgoing.put_nowait(None)
        await recorder.lost.wait()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_no_gateway_is_a_reason_too(socket_path: Path) -> None:
    async with running(socket_path) as (link, _):
        with pytest.raises(LinkError) as caught:
            await link.readiness()
        assert caught.value.reason == "GATEWAY_UNREACHABLE"


def test_a_batch_is_unpacked() -> None:
    to = [Recipient(channel=1, request_id="a"), Recipient(channel=2)]
    frame = ServerFrame(chat_stream_delta={"delta": "x" * 500})
    items = [
        ChannelResponse(recipients=to, frame=frame),
        ChannelResponse(recipients=to, closed={"reason": 2}),
        ChannelResponse(recipients=to, frame=ServerFrame()),
    ]
    known, closed, unknown = unpacked(ConnectResponse(channels=items))
    assert known == (frame.chat_stream_delta, frame.ByteSize(), [(1, "a"), (2, "")])
    assert closed == (ChannelClosed(reason=2), 0, [(1, "a"), (2, "")])
    assert unknown == (ServerFrame(), 0, [(1, "a"), (2, "")])
