"""Anthropic: answers from the Messages API, or any server that speaks it (`local` is this class with another address).

The request is made here, over transport, and the answer is read as bytes (sse, messages_stream). Anthropic's own SDK
costs more per request than all the rest of a turn; tests compare both with it. Built by app; errors are made by faults.
"""

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.providers import faults
from gateway.providers.messages_stream import MalformedError, MessageStream, StreamError
from gateway.providers.sse import SseError, SseParser
from gateway.providers.transport import NOT_SENT, Transport
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest

ANTHROPIC_URL = "https://api.anthropic.com"
TEST_SECONDS = 15.0
# How long to wait after the last event for the end of the body, without which the connection cannot be used again.
BODY_END_SECONDS = 0.02
LONGEST_ERROR_BYTES = 64 * 1024
_NO_KEY = "none"


class AnthropicProvider:
    """The Messages API at `base_url`, which may have a path. Without `needs_key` a placeholder is sent as key.

    `user_agent` is who the provider is told we are.
    """

    def __init__(
        self,
        *,
        name: str = "anthropic",
        base_url: str = ANTHROPIC_URL,
        needs_key: bool = True,
        user_agent: str = "agentspace-gateway",
    ) -> None:
        self.name = name
        self.needs_key = needs_key
        self._transport = Transport(base_url, user_agent)

    async def generate(self, request: ModelRequest, sink: AnswerSink) -> Ending:
        """Stream one answer into `sink`; no retries. Raises as faults tells."""
        key = self._key(request.key)
        response = await self._head("POST", "/v1/messages", key, _body(request))
        stream = MessageStream(sink)
        try:
            await self._accepted(response, key)
            await _read(response.content, stream, sink)
        except StreamError as error:
            raise faults.broken_off(self.name, error.error, key) from None
        except (MalformedError, SseError):
            raise faults.truncated(self.name, "turned unreadable") from None
        except (aiohttp.ClientError, OSError):
            raise faults.truncated(self.name, "was cut off") from None
        finally:
            # Closes the connection too, unless the body was read to its end.
            response.close()
        if not stream.finished:
            raise faults.truncated(self.name, "stopped")
        return Ending(stream.stop_reason)

    async def test_key(self, key: Secret) -> str:
        """Ask for the list of models, which is free. Empty when the key is accepted, else why not."""
        try:
            sent = self._key(key)
            response = await self._head("GET", "/v1/models?limit=1", sent, seconds=TEST_SECONDS)
            try:
                await self._accepted(response, sent)
            finally:
                response.close()
        except GatewayError as error:
            return error.message
        return ""

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    def _key(self, secret: Secret | None) -> str:
        if secret is None:
            if self.needs_key:
                raise faults.missing_key(self.name)
            return _NO_KEY
        key = secret.reveal()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise faults.unusable_key(self.name)
        return key

    async def _head(
        self, method: str, path: str, key: str, body: bytes | None = None, *, seconds: float | None = None
    ) -> aiohttp.ClientResponse:
        """The answer as far as its head. An error tells whether the request may have been executed."""
        try:
            return await self._transport.request(method, path, key, body, seconds)
        except NOT_SENT:
            raise faults.unreachable(self.name) from None
        except TimeoutError:
            raise faults.silent(self.name) from None
        except (aiohttp.ClientError, OSError):
            raise faults.truncated(self.name, "was cut off") from None

    async def _accepted(self, response: aiohttp.ClientResponse, key: str) -> None:
        """Raises what a refusal means; its body may be cut off or missing."""
        if 200 <= response.status < 300:
            return
        body = bytearray()
        with suppress(aiohttp.ClientError, OSError):
            while len(body) < LONGEST_ERROR_BYTES and (piece := await response.content.readany()):
                body += piece
        raise faults.refused(self.name, response.status, bytes(body), response.headers, key)


def _body(request: ModelRequest) -> bytes:
    body: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": [{"role": message.role, "content": message.text} for message in request.messages],
        "stream": True,
    }
    if request.system:
        body["system"] = request.system
    return orjson.dumps(body)


async def _read(content: aiohttp.StreamReader, stream: MessageStream, sink: AnswerSink) -> None:
    """Until the last event, and the end of the body if it comes at once."""
    parser = SseParser()
    while chunk := await content.readany():
        sink.progress()
        if events := parser.feed(chunk):
            stream.feed(events)
            if stream.finished:
                break
    # Usually it came with the last event.
    if not content.at_eof():
        with suppress(TimeoutError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(BODY_END_SECONDS):
                while await content.readany():
                    pass
