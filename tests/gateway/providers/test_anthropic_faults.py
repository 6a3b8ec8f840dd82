"""Every fault of the upstream is one typed error, and tells no secret."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agentspace.v1 import error_pb2
from gateway.domain.error import MAY_HAVE_EXECUTED, NOT_STARTED, GatewayError
from gateway.domain.secret import Secret
from gateway.providers import anthropic
from gateway.providers.anthropic import AnthropicProvider
from tests.fixtures import script
from tests.fixtures.script import Fault, Refusal, Script, text
from tests.fixtures.upstream import KEY, Upstream
from tests.gateway.providers.answers import serving
from tests.gateway.providers.sinks import RecordingSink, request

SECRET = Secret(KEY)
HALF = text("half", " an", " answer", after=2)


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[AnthropicProvider]:
    made = AnthropicProvider(base_url=upstream.url)
    async with asyncio.timeout(20):
        yield made
    await made.close()


async def failure(provider: AnthropicProvider, key: Secret | None = SECRET) -> tuple[GatewayError, RecordingSink]:
    sink = RecordingSink()
    with pytest.raises(GatewayError) as caught:
        await provider.generate(request("claude-sonnet-5-5", "my private question", key=key), sink)
    assert KEY not in f"{caught.value} {caught.value.metadata}"
    assert "private" not in str(caught.value)
    return caught.value, sink


def name(error: GatewayError) -> str:
    return error_pb2.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.CUT, "UPSTREAM_TRUNCATED"),
        (Fault.DROP, "UPSTREAM_TRUNCATED"),
        (Fault.RESET, "UPSTREAM_TRUNCATED"),
        (Fault.BAD_JSON, "UPSTREAM_TRUNCATED"),
        (Fault.ERROR, "UPSTREAM_OVERLOADED"),
    ],
)
async def test_a_broken_stream_keeps_its_text(
    provider: AnthropicProvider, upstream: Upstream, fault: Fault, reason: str
) -> None:
    upstream.play(replace(HALF, fault=fault))
    error, sink = await failure(provider)
    assert name(error) == reason
    assert error.execution == MAY_HAVE_EXECUTED
    assert sink.text == "half an"
    assert not sink.blocks[0].closed
    assert sink.counts[0].input > 0
    assert len(upstream.chats) == 1


async def test_unknown_events_are_passed_over(provider: AnthropicProvider, upstream: Upstream) -> None:
    upstream.play(replace(HALF, fault=Fault.UNKNOWN))
    sink = RecordingSink()
    await provider.generate(request("claude-sonnet-5-5", key=SECRET), sink)
    assert sink.text == "half an answer"


async def test_pings_are_progress(provider: AnthropicProvider, upstream: Upstream) -> None:
    upstream.play(replace(HALF, fault=Fault.PINGS))
    sink = RecordingSink()
    pinged = asyncio.Event()

    def progress() -> None:
        sink.progressed += 1
        if sink.text == "half an" and sink.progressed > 10:
            pinged.set()

    sink.progress = progress  # type: ignore[method-assign]
    task = asyncio.create_task(provider.generate(request("claude-sonnet-5-5", key=SECRET), sink))
    async with asyncio.timeout(5):
        await pinged.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("refusal", "reason", "execution"),
    [
        (script.BAD_REQUEST, "UPSTREAM_REJECTED", NOT_STARTED),
        (Refusal(404, "not_found_error", "model: x"), "UPSTREAM_REJECTED", NOT_STARTED),
        (script.UNAUTHENTICATED, "UPSTREAM_AUTH", NOT_STARTED),
        (script.FORBIDDEN, "UPSTREAM_AUTH", NOT_STARTED),
        (script.RATE_LIMITED, "UPSTREAM_RATE_LIMITED", NOT_STARTED),
        (replace(script.RATE_LIMITED, retry_after=0), "UPSTREAM_RATE_LIMITED", NOT_STARTED),
        (script.RATE_LIMITED_WITHOUT_TIME, "UPSTREAM_RATE_LIMITED", NOT_STARTED),
        (script.SPEND_LIMIT, "UPSTREAM_SPEND_LIMIT", NOT_STARTED),
        (script.OVERLOADED, "UPSTREAM_OVERLOADED", NOT_STARTED),
        (script.INTERNAL, "UPSTREAM_OVERLOADED", MAY_HAVE_EXECUTED),
        (Refusal(400, "invalid_request_error", "prompt is too long: 9 > 8"), "CONTEXT_TOO_LARGE", NOT_STARTED),
    ],
)
async def test_refusals(
    provider: AnthropicProvider, upstream: Upstream, refusal: Refusal, reason: str, execution: int
) -> None:
    upstream.play(Script(refusal=refusal))
    error, sink = await failure(provider)
    assert (name(error), error.execution) == (reason, execution)
    assert error.retry_after_ms == {None: 0, 0: 1, 0.05: 50}[refusal.retry_after]
    assert not sink.blocks
    assert len(upstream.chats) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason", "said"),
    [
        (401, b'{"type":"error","error":{"type":"authentication_error","message":"bad key"}}', "AUTH", "bad key"),
        (429, b'{"type":"error","error":{"ty', "RATE_LIMITED", "no explanation"),
        (529, b"", "OVERLOADED", "no explanation"),
    ],
)
async def test_a_refusal_is_not_waited_for_to_its_end(
    status: int, body: bytes, reason: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is announced longer than it is, and the connection stays open."""
    monkeypatch.setattr(anthropic, "REFUSAL_SECONDS", 0.05)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        writer.write(b"HTTP/1.1 %d No\r\nretry-after: 7\r\ncontent-length: 999\r\n\r\n%s" % (status, body))
        assert await reader.read() == b""

    async with serving(refuse) as server:
        provider = AnthropicProvider(base_url=server.url)
        async with asyncio.timeout(5):
            error, _ = await failure(provider)
        await provider.close()
    assert (name(error), error.retry_after_ms) == (f"UPSTREAM_{reason}", 7000)
    assert error.message == f"anthropic answered {status}: {said}"
    assert error.execution == NOT_STARTED


@pytest.mark.parametrize(("status", "seconds"), [(b"418 No", 10.0), (b"200 OK", 0.0)])
async def test_a_body_in_pieces_is_heard_whole(status: bytes, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal's within the limit; that of an answer has none."""
    monkeypatch.setattr(anthropic, "REFUSAL_SECONDS", seconds)
    refused = status != b"200 OK"
    body = b'{"error":{"type":"x","message":"words"}}' if refused else b'data: {"type":"message_stop"}\n\n'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n" % (status, len(body)))
        for at in range(len(body)):
            await asyncio.sleep(0)
            writer.write(body[at : at + 1])
        assert await reader.read() == b""

    async with serving(answer) as server:
        provider = AnthropicProvider(base_url=server.url)
        if refused:
            error, _ = await failure(provider)
            assert error.message == "anthropic answered 418: words"
        else:
            await provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink())
        await provider.close()


async def test_a_refusal_without_an_end_can_be_cancelled() -> None:
    headed = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        writer.write(b"HTTP/1.1 418 No\r\ncontent-length: 999\r\n\r\n")
        headed.set()
        assert await reader.read() == b""

    async with serving(refuse) as server:
        provider = AnthropicProvider(base_url=server.url)
        asking = asyncio.create_task(provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink()))
        await headed.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await provider.close()


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    provider = AnthropicProvider(base_url=f"http://127.0.0.1:{port}")
    error, _ = await failure(provider)
    assert (name(error), error.execution) == ("UPSTREAM_UNREACHABLE", NOT_STARTED)
    assert await provider.test_key(SECRET) == error.message
    await provider.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"nonsense\r\n\r\n"])
async def test_an_answer_that_is_none_may_have_executed(answer: bytes) -> None:
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        provider = AnthropicProvider(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        error, _ = await failure(provider)
        await provider.close()
    assert (name(error), error.execution, calls) == ("UPSTREAM_TRUNCATED", MAY_HAVE_EXECUTED, 1)


async def test_a_connection_closed_while_idle_is_not_used(provider: AnthropicProvider) -> None:
    body = b'data: {"type":"message_stop"}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    closed = asyncio.Queue[None]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        # Keep-alive is promised, yet the connection is closed.
        writer.write(head + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.put_nowait(None)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        local = AnthropicProvider(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(3):
            await local.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink())
            await closed.get()
            await asyncio.sleep(0)
        await local.close()


async def test_a_redirect_is_not_followed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        provider = AnthropicProvider(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/path/prefix")
        error, _ = await failure(provider)
        await provider.close()
    assert (name(error), error.metadata["status"]) == ("UPSTREAM_REJECTED", "307")


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
async def test_a_key_that_cannot_be_sent_is_not_sent(provider: AnthropicProvider, upstream: Upstream, key: str) -> None:
    error, _ = await failure(provider, Secret(key))
    assert name(error) == "UPSTREAM_AUTH"
    assert not upstream.calls


async def test_no_key(provider: AnthropicProvider) -> None:
    error, _ = await failure(provider, None)
    assert name(error) == "PROVIDER_KEY_MISSING"
