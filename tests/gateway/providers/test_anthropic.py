"""Anthropic over a real socket, against the fake provider: what is sent, what arrives, how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest

from gateway.domain.context import PromptMessage
from gateway.domain.secret import Secret
from gateway.domain.usage import TokenCounts
from gateway.providers import connection
from gateway.providers.anthropic import AnthropicProvider
from gateway.usecases.ports import ModelRequest, Provider
from tests.fixtures.script import Redacted, Script, Text, Thinking, ToolUse, Usage, text
from tests.fixtures.upstream import KEY, Upstream
from tests.gateway.providers.sinks import RecordingSink, request

SECRET = Secret(KEY)


@asynccontextmanager
async def provider_at(url: str, **options: object) -> AsyncIterator[AnthropicProvider]:
    provider = AnthropicProvider(base_url=url, **options)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(20):
            yield provider
    finally:
        await provider.close()


def provider_of(server: asyncio.Server) -> AbstractAsyncContextManager[AnthropicProvider]:
    return provider_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.fixture
async def provider(upstream: Upstream) -> AsyncIterator[AnthropicProvider]:
    async with provider_at(upstream.url) as made:
        yield made


async def test_it_is_a_provider_and_can_be_closed_unused() -> None:
    provider: Provider = AnthropicProvider()
    assert (provider.name, provider.needs_key) == ("anthropic", True)
    await provider.close()


async def test_sends_the_conversation_and_streams_the_answer(provider: AnthropicProvider, upstream: Upstream) -> None:
    upstream.play(text("Good", " day", usage=Usage(input_tokens=11, cache_write_1h=3, cache_read=2, output_tokens=9)))
    sink = RecordingSink()
    conversation = (PromptMessage("user", "a"), PromptMessage("assistant", "b"), PromptMessage("user", "c"))
    ending = await provider.generate(ModelRequest("claude-sonnet-5-5", "Be kind.", conversation, 77, SECRET), sink)

    assert ending.stop_reason == "end_turn"
    assert sink.text == "Good day"
    assert sink.blocks[0].closed
    assert sink.progressed > 0
    assert sink.counts[0].input == 16
    assert sink.counts[-1] == TokenCounts(uncached_input=11, cache_write_1h=3, cache_read=2, output=9)
    (call,) = upstream.calls
    assert call.said() == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert {k: v for k, v in call.body.items() if k != "messages"} == {
        "model": "claude-sonnet-5-5", "system": "Be kind.", "max_tokens": 77, "stream": True,
    }  # fmt: skip


async def test_sends_no_empty_system_prompt(provider: AnthropicProvider, upstream: Upstream) -> None:
    await provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink())
    assert "system" not in upstream.calls[0].body


async def test_sends_one_key_and_nothing_the_environment_says(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "from-environment")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-api-key: from-environment\nx-odd: from-environment")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with provider_at(upstream.url) as provider:
        await provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink())
    headers = upstream.calls[0].headers
    assert "from-environment" not in repr(headers)
    assert [name for name, value in headers.items() if KEY in value] == ["authorization"]


async def test_another_key_is_sent_from_then_on(provider: AnthropicProvider, upstream: Upstream) -> None:
    assert await provider.test_key(Secret("test-other")) != ""
    assert await provider.test_key(SECRET) == ""
    await provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink())
    assert [call.headers["authorization"] for call in upstream.calls] == [
        "Bearer test-other", f"Bearer {KEY}", f"Bearer {KEY}",
    ]  # fmt: skip


async def test_thinking_and_tools_are_blocks(provider: AnthropicProvider, upstream: Upstream) -> None:
    tool = ToolUse("look", ('{"at":', ' "it"}'), id="toolu_9")
    blocks = (Thinking(("Hm", "m."), "c2ln"), Redacted("aGlk"), Text(("Look",)), tool)
    upstream.play(Script(blocks=blocks, stop_reason="tool_use", usage=Usage(input_tokens=1, thinking_tokens=4)))
    sink = RecordingSink()
    ending = await provider.generate(request("claude-sonnet-5-5", key=SECRET), sink)
    assert ending.stop_reason == "tool_use"
    assert [(b.kind, b.text, b.signature, b.closed) for b in sink.blocks] == [
        ("thinking", "Hmm.", "c2ln", True),
        ("opaque", '{"type":"redacted_thinking","data":"aGlk"}', "", True),
        ("text", "Look", "", True),
        ("tool_use", '{"at": "it"}', "", True),
    ]
    assert (sink.blocks[3].tool_use_id, sink.blocks[3].tool_name) == ("toolu_9", "look")
    assert sink.counts[-1].thinking == 4


@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_network_cuts_do_not_matter(
    provider: AnthropicProvider, upstream: Upstream, chunk: int | None, newline: str
) -> None:
    upstream.play(text("Grüße ", "日本語 ", "🙂", chunk=chunk, newline=newline))
    sink = RecordingSink()
    await provider.generate(request("claude-sonnet-5-5", key=SECRET), sink)
    assert sink.text == "Grüße 日本語 🙂"


async def test_each_delta_is_handed_on_at_once(provider: AnthropicProvider, upstream: Upstream) -> None:
    gates = {n: asyncio.Event() for n in range(3)}
    upstream.play(text("one ", "two ", "three", gates=gates))
    heard: asyncio.Queue[str] = asyncio.Queue()
    sink = RecordingSink()
    sink.delta = heard.put_nowait  # type: ignore[method-assign]
    task = asyncio.create_task(provider.generate(request("claude-sonnet-5-5", key=SECRET), sink))
    for gate, expected in zip(gates.values(), ["one ", "two ", "three"], strict=True):
        gate.set()
        assert await heard.get() == expected
    await task


@pytest.mark.parametrize("late", [0, 1])
async def test_a_connection_is_used_again(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the end of the body comes apart from the last event."""
    monkeypatch.setattr(connection, "BODY_END_SECONDS", 10)
    connections = 0
    body = b'data: {"type":"message_stop"}\n\n'
    pieces = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"%x\r\n%s\r\n" % (len(body), body),
        b"0\r\n\r\n",
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b'"stream":true}')
                writer.write(b"".join(pieces[: 3 - late]))
                for piece in pieces[3 - late :]:
                    # The client has the last event, and waits.
                    await heard.get()
                    writer.write(piece)
        writer.close()
        gone.set()

    heard, gone = asyncio.Queue[None](), asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        async with provider_of(server) as provider:
            for _ in range(3):
                sink = RecordingSink()
                sink.progress = lambda: heard.put_nowait(None)  # type: ignore[method-assign]
                await provider.generate(request("claude-sonnet-5-5", key=SECRET), sink)
        await gone.wait()
    assert connections == 1


async def test_a_body_without_an_end_is_not_waited_for() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b'"stream":true}')
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\ndata: {"type":"message_stop"}\n\n')
        assert await reader.read() == b""
        writer.close()
        gone.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, provider_of(server) as provider:
        await provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink())
        await gone.wait()


async def test_cancelling_closes_the_upstream_connection(provider: AnthropicProvider, upstream: Upstream) -> None:
    gate = asyncio.Event()
    upstream.play(text("one", "two", gates={1: gate}))
    sink = RecordingSink()
    task = asyncio.create_task(provider.generate(request("claude-sonnet-5-5", key=SECRET), sink))
    call = await upstream.chat(0)
    await call.reached(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(0.1):
        await call.ended.wait()
    assert call.outcome == "client_closed"


async def test_cancelling_before_the_first_byte_closes_it_too(provider: AnthropicProvider, upstream: Upstream) -> None:
    upstream.play(text("one", gates={-1: asyncio.Event()}))
    task = asyncio.create_task(provider.generate(request("claude-sonnet-5-5", key=SECRET), RecordingSink()))
    call = await upstream.chat(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(0.1):
        await call.ended.wait()
    assert call.outcome == "client_closed"


async def test_a_local_server_needs_no_key() -> None:
    async with (
        Upstream(key="none").serve() as upstream,
        provider_at(upstream.url, name="local", needs_key=False) as provider,
    ):
        sink = RecordingSink()
        await provider.generate(request("smollm2", "hi", key=None), sink)
        assert sink.text == "You said: hi"
