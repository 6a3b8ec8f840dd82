"""The link's rules, held by both of its implementations: over gRPC, to each of a gateway's servers, and in one
process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agentspace.v1 import gateway_service_pb2, turn_pb2
from agentspace.v1.frame_pb2 import ClientFrame, ServerFrame
from agentspace.v1.gateway_service_pb2 import ChannelClose, ChannelOpen, ChannelRequest
from bridge.calls import GrpcLink
from bridge.link import Delivery, Link, LinkError
from gateway.app import App
from standalone.link import DirectLink
from tests.fixtures.deliveries import shared_out
from tests.gateway.running import config, running, token


class Recorder:
    """A receiver that remembers; in order, who got what."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, str, ServerFrame]] = []
        self.closed: dict[int, int] = {}
        self.lost = 0
        self._changed = asyncio.Condition()

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        heard, closed = shared_out(batch)
        self.heard += heard
        self.closed.update(closed)
        self._tell = asyncio.ensure_future(self._notify())

    def on_lost(self) -> None:
        self.lost += 1

    async def until(self, kind: str, request_id: str) -> ServerFrame:
        """The first frame of a kind that answers a request."""

        def found() -> list[ServerFrame]:
            return [frame for _, name, frame in self.heard if name == request_id and frame.WhichOneof("body") == kind]

        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(found)
        return found()[0]

    async def until_closed(self, channel: int) -> int:
        """The reason why a channel was closed."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: channel in self.closed)
        return self.closed[channel]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def link_of(kind: str, home: Path, app: App) -> Link:
    """A link to the app: over gRPC by its Unix socket or by the network, or in this process."""
    targets = {"local": f"unix:{home / 'gateway.sock'}", "network": f"127.0.0.1:{app.grpc_port}"}
    return GrpcLink(targets[kind]) if kind in targets else DirectLink(app)


@asynccontextmanager
async def linked(kind: str, home: Path, *arguments: str) -> AsyncIterator[tuple[Link, Recorder, App]]:
    """A link of that kind to a gateway of its own, running."""
    async with running(config(home, *arguments)) as app:
        link = link_of(kind, home, app)
        recorder = Recorder()
        assert not link.connected
        task = asyncio.create_task(link.run(recorder))
        if isinstance(link, DirectLink):
            link.open()
        try:
            async with asyncio.timeout(30):
                await link.opened()
                assert link.connected
                yield link, recorder, app
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert not link.connected
            assert recorder.lost == 1


@pytest.fixture(params=["local", "network", "direct"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def parts(kind: str, home: Path) -> AsyncIterator[tuple[Link, Recorder, App]]:
    async with linked(kind, home) as found:
        yield found


Parts = tuple[Link, Recorder, App]


def opening(channel: int, bearer_token: str = "", window: int = 0) -> ChannelRequest:
    return ChannelRequest(channel=channel, open=ChannelOpen(level=2, bearer_token=bearer_token, window_bytes=window))


def frame(channel: int, request_id: str, **body: object) -> ChannelRequest:
    return ChannelRequest(channel=channel, frame=ClientFrame(id=request_id, **body))  # type: ignore[arg-type]


async def test_frames_are_answered_in_order(parts: Parts) -> None:
    link, recorder, _ = parts
    assert link.connected
    link.send(opening(1))
    link.send(frame(1, "a", chat_send={"content": "one two three"}))
    await link.drain()
    await recorder.until("chat_stream_end", "a")
    frames = [found for _, _, found in recorder.heard]
    assert "".join(found.chat_stream_delta.delta for found in frames) == "one two three"
    kinds = [found.WhichOneof("body") for found in frames]
    assert kinds[:3] + kinds[-1:] == ["session_created", "chat_accepted", "chat_stream_start", "chat_stream_end"]


async def test_nothing_waits_for_long_rounds(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("bridge.outbox", "gateway.rpc.pace"):
        monkeypatch.setattr(f"{module}.ROUNDS", 10**12)
    link, recorder, _ = parts
    link.send(opening(1))
    for request_id in ("a", "b"):
        link.send(frame(1, request_id, chat_send={"content": "one two three"}))
        await recorder.until("chat_stream_end", request_id)


async def test_many_requests_keep_their_order(parts: Parts) -> None:
    link, recorder, _ = parts
    link.send(opening(1))
    for number in range(500):
        link.send(ChannelRequest(channel=1, frame=ClientFrame(id=str(number))))
    await recorder.until("error", "499")
    assert [name for _, name, _ in recorder.heard] == [str(number) for number in range(500)]


async def test_a_slow_channel_stops_at_its_window_and_goes_on(parts: Parts) -> None:
    link, recorder, _ = parts
    link.send(opening(1, window=1000))
    link.send(opening(2))
    link.send(frame(1, "slow", chat_send={"content": "x", "model": "scripted/count?n=300&size=400"}))
    turn = (await recorder.until("chat_accepted", "slow")).chat_accepted.turn_id
    link.send(frame(2, "wait", turn_wait={"turn_id": turn}))
    waited = await recorder.until("turn_wait", "wait")
    assert waited.turn_wait.turn.state == turn_pb2.TURN_STATE_COMPLETED
    slow = [found for channel, _, found in recorder.heard if channel == 1]
    assert sum(found.ByteSize() for found in slow) < 80_000
    assert not any(found.HasField("chat_stream_end") for found in slow)
    link.send(ChannelRequest(channel=1, acknowledged_bytes=1_000_000))
    await recorder.until("chat_stream_end", "slow")
    text = "".join(found.chat_stream_delta.delta for channel, _, found in recorder.heard if channel == 1)
    assert len(text) == 300 * 400


async def test_a_channel_that_is_closed_hears_no_more(parts: Parts) -> None:
    link, recorder, _ = parts
    link.send(opening(1))
    link.send(frame(1, "a", chat_send={"content": "x", "model": "scripted/count?n=30&delay=10ms"}))
    turn = (await recorder.until("chat_accepted", "a")).chat_accepted.turn_id
    link.send(ChannelRequest(channel=1, close=ChannelClose()))
    link.send(opening(2))
    link.send(frame(2, "wait", turn_wait={"turn_id": turn}))
    waited = await recorder.until("turn_wait", "wait")
    assert waited.turn_wait.turn.state == turn_pb2.TURN_STATE_COMPLETED
    assert not any(name == "a" and found.HasField("chat_stream_end") for _, name, found in recorder.heard)


async def test_an_unknown_token_closes_the_channel(parts: Parts, home: Path) -> None:
    link, recorder, _ = parts
    link.send(opening(1, "wrong"))
    link.send(opening(2, token(home)))
    link.send(frame(2, "keys", key_list={}))
    assert await recorder.until_closed(1) == gateway_service_pb2.CLOSE_REASON_UNAUTHENTICATED
    await recorder.until("key_list", "keys")


async def test_questions(parts: Parts, home: Path) -> None:
    link, _, _ = parts
    assert (await link.hello("")).principal == "local"
    assert (await link.hello(token(home))).principal == "operator"
    assert (await link.readiness()).ready
    assert "agentspace_calls_total" in await link.metrics()


@pytest.mark.parametrize(
    ("provider", "bearer_token", "reason"),
    [
        ("anthropic", "wrong", "UNAUTHENTICATED"),
        ("anthropic", "", "MISSING_SCOPE"),
        ("anthropic", None, "PROVIDER_KEY_MISSING"),
        ("nobody", None, "PROVIDER_NOT_FOUND"),
    ],
)
async def test_refusals_have_their_reason(
    parts: Parts, home: Path, provider: str, bearer_token: str | None, reason: str
) -> None:
    link, _, _ = parts
    with pytest.raises(LinkError) as caught:
        await link.read_key(provider, token(home) if bearer_token is None else bearer_token)
    assert caught.value.reason == reason


async def test_a_stored_key_is_read_back(parts: Parts, home: Path) -> None:
    link, recorder, _ = parts
    link.send(opening(1, token(home)))
    link.send(frame(1, "put", key_put={"provider": "anthropic", "key": "sk-ant-0123456789"}))
    await recorder.until("key_put", "put")
    assert await link.read_key("anthropic", token(home)) == "sk-ant-0123456789"


@pytest.mark.parametrize("kind", ["local", "direct"])
async def test_insecure_gateways_still_trust_their_bridge(kind: str, home: Path) -> None:
    async with linked(kind, home, "--insecure") as (link, recorder, _):
        assert (await link.readiness()).ready
        assert (await link.hello("")).principal == "local"
        link.send(opening(1))
        link.send(frame(1, "a", session_list={}))
        await recorder.until("session_list", "a")


async def test_what_is_sent_before_and_after_is_dropped(kind: str, home: Path) -> None:
    async with running(config(home)) as app:
        link = link_of(kind, home, app)
        link.send(opening(1))
        await link.drain()


async def test_nothing_is_served_before_the_gateway_has_started(home: Path) -> None:
    link = DirectLink(App(config(home)))
    task = asyncio.create_task(link.run(Recorder()))
    link.send(opening(1))
    with pytest.raises(LinkError) as caught:
        await link.hello("")
    assert (caught.value.reason, link.connected) == ("GATEWAY_UNREACHABLE", False)
    task.cancel()


async def test_what_is_ready_can_be_handed_over_at_once(home: Path) -> None:
    async with linked("direct", home) as (link, recorder, app):
        assert isinstance(link, DirectLink)
        link.send(opening(1))
        link.send(frame(1, "a", chat_send={"content": "x", "model": "scripted/fail?with=hang"}))
        await recorder.until("chat_stream_start", "a")
        await app.drain()
        link.flush()
        assert recorder.heard[-1][2].HasField("error")
