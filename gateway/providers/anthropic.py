"""Anthropic: answers from the Messages API, or any server that speaks it (`local` is this class with another address).

The SDK makes the request and its typed errors; the stream is read as bytes (sse, messages_stream), since building the
SDK's objects costs more per delta than everything else. The SDK takes two seconds to import, so that happens in a
thread, at `warm()` or at first use. Built by app; errors are made by faults.
"""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.domain.context import PromptMessage
from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.providers import faults
from gateway.providers.messages_stream import MalformedError, MessageStream, StreamError
from gateway.providers.sse import SseError, SseParser
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from anthropic import APIStatusError, AsyncAnthropic
    from anthropic.types import MessageParam

ANTHROPIC_URL = "https://api.anthropic.com"
CONNECT_SECONDS = 10.0
TEST_SECONDS = 15.0
# How long to wait after the last event for the end of the body, without which the connection cannot be used again.
BODY_END_SECONDS = 0.02
_NO_KEY = "none"


class AnthropicProvider:
    """The Messages API at `base_url`, which may have a path. Without `needs_key` a placeholder is sent as key."""

    def __init__(self, *, name: str = "anthropic", base_url: str = ANTHROPIC_URL, needs_key: bool = True) -> None:
        self.name = name
        self.needs_key = needs_key
        self._base_url = base_url
        self._starting: asyncio.Task[AsyncAnthropic] | None = None
        self._client: AsyncAnthropic | None = None

    async def warm(self) -> None:
        """Import the SDK and make the client, off the event loop. The first request is faster after it."""
        if self._starting is None:
            self._starting = asyncio.create_task(asyncio.to_thread(_new_client, self._base_url))
        client = await asyncio.shield(self._starting)
        self._client = self._client or client

    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        """Stream one answer into `sink`; no retries. Raises as faults tells."""
        key = self._key(request.key)
        client = await self._client_for(key)
        import aiohttp
        import anthropic

        from gateway.providers.transport import CONTENT

        stream = MessageStream(sink)
        try:
            async with client.messages.with_streaming_response.create(
                model=request.model,
                max_tokens=request.max_tokens,
                messages=[_parameter(message) for message in request.messages],
                system=request.system or anthropic.omit,
                stream=True,
                # Compressed events would wait for one another.
                extra_headers={"accept-encoding": "identity"},
            ) as response:
                await _read(response.http_response.extensions[CONTENT], stream, sink)
        except anthropic.APIStatusError as error:
            raise self._refused(error, key) from None
        except anthropic.APIConnectionError as error:
            raise self._not_answered(error) from None
        except StreamError as error:
            raise faults.broken_off(self.name, error.error, key) from None
        except (MalformedError, SseError):
            raise faults.truncated(self.name, "turned unreadable") from None
        except (aiohttp.ClientError, OSError):
            raise faults.truncated(self.name, "was cut off") from None
        if not stream.finished:
            raise faults.truncated(self.name, "stopped")
        return Ending(stream.stop_reason)

    async def test_key(self, key: Secret) -> str:
        """Ask for the list of models, which is free. Empty when the key is accepted, else why not."""
        try:
            sent = self._key(key)
            client = await self._client_for(sent)
            import anthropic

            try:
                await client.models.with_raw_response.list(limit=1, timeout=TEST_SECONDS)
            except anthropic.APIStatusError as error:
                raise self._refused(error, sent) from None
            except anthropic.APIConnectionError as error:
                raise self._not_answered(error) from None
        except GatewayError as error:
            return error.message
        return ""

    async def close(self) -> None:
        """Close all connections; waits for an import that is under way."""
        if self._starting is not None:
            await (await self._starting).close()

    def _key(self, secret: Secret | None) -> str:
        if secret is None:
            if self.needs_key:
                raise faults.missing_key(self.name)
            return _NO_KEY
        key = secret.reveal()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise faults.unusable_key(self.name)
        return key

    async def _client_for(self, key: str) -> "AsyncAnthropic":
        """The client that sends `key`; all share their connections. Only the newest is kept: keys seldom change."""
        if self._client is None:
            await self.warm()
        assert self._client is not None
        if self._client.api_key != key:
            self._client = _ignoring_environment(self._client.with_options(api_key=key))
        return self._client

    def _refused(self, error: "APIStatusError", key: str) -> GatewayError:
        body = error.body
        return faults.refused(
            self.name,
            error.status_code,
            body.get("error", body) if isinstance(body, dict) else None,
            error.response.headers,
            key,
        )

    def _not_answered(self, error: Exception) -> GatewayError:
        """No answer came: was the request sent? The SDK tells only by what it was caused by."""
        import httpx2

        if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
            return faults.unreachable(self.name)
        if isinstance(error.__cause__, httpx2.TimeoutException):
            return faults.silent(self.name)
        return faults.truncated(self.name, "was cut off")


async def _read(content: "StreamReader", stream: MessageStream, sink: AnswerSink) -> None:
    """Until the last event, or the end of the body."""
    parser = SseParser()
    while chunk := await content.readany():
        sink.progress()
        if events := parser.feed(chunk):
            stream.feed(events)
            if stream.finished:
                break
    else:
        return
    import aiohttp

    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(BODY_END_SECONDS):
            while await content.readany():
                pass


def _parameter(message: PromptMessage) -> "MessageParam":
    if message.role == "assistant":
        return {"role": "assistant", "content": message.text}
    return {"role": "user", "content": message.text}


def _new_client(base_url: str) -> "AsyncAnthropic":
    """Runs in a thread."""
    import anthropic
    import anthropic.resources.messages
    import anthropic.resources.models
    import httpx2

    from gateway.providers.transport import AiohttpTransport

    # On import the SDK turns its log of requests on if ANTHROPIC_LOG says so; conversations do not belong in logs.
    for name in ("anthropic", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Nobody means a proxy to reach their own machine.
    use_proxies = urlsplit(base_url).hostname not in ("127.0.0.1", "localhost", "::1")
    http_client = httpx2.AsyncClient(
        transport=AiohttpTransport(use_proxies=use_proxies),
        # Turns have limits of their own for everything after the connection.
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        # A redirect would carry the conversation to somebody nobody chose.
        follow_redirects=False,
        trust_env=False,
    )
    client = anthropic.AsyncAnthropic(
        api_key=_NO_KEY,
        base_url=base_url,
        max_retries=0,
        timeout=http_client.timeout,
        http_client=http_client,
        open_telemetry=False,
        webhook_key="",
    )
    return _ignoring_environment(client)


def _ignoring_environment(client: "AsyncAnthropic") -> "AsyncAnthropic":
    # The SDK adds headers that ANTHROPIC_CUSTOM_HEADERS names, a second key for instance, and has no switch for it.
    client._custom_headers = {}  # noqa: SLF001
    return client
