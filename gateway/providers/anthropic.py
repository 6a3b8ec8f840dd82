"""Anthropic: answers from the Messages API, or any server that speaks it (`local` is this class with another address).

The request is made here, over transport, and the answer is read as bytes (sse, messages_stream). Anthropic's own SDK
costs more per request than all the rest of a turn; tests compare both with it. Built by app; errors are made by faults.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from gateway.domain.error import GatewayError
from gateway.domain.secret import Secret
from gateway.providers import faults
from gateway.providers.connection import CutOffError, NotSentError
from gateway.providers.messages_stream import MalformedError, MessageStream, StreamError
from gateway.providers.sse import SseError, SseParser
from gateway.providers.transport import Transport
from gateway.usecases.ports import AnswerSink, Ending, ModelRequest

ANTHROPIC_URL = "https://api.anthropic.com"
TEST_SECONDS = 15.0
LONGEST_ERROR_BYTES = 64 * 1024
REFUSAL_SECONDS = 2.0
"""How long the body of a refusal may take from its head: its status says what matters."""
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
        stream = MessageStream(sink)
        events = SseParser()

        def hear(data: bytes) -> bool:
            sink.progress()
            if not stream.finished and (complete := events.feed(data)):
                stream.feed(complete)
            return stream.finished

        try:
            await self._ask("POST", "/v1/messages", key, _body(request), _Answer(hear))
        except StreamError as error:
            raise faults.broken_off(self.name, error.error, key) from None
        except (MalformedError, SseError):
            raise faults.truncated(self.name, "turned unreadable") from None
        if not stream.finished:
            raise faults.truncated(self.name, "stopped")
        return Ending(stream.stop_reason, stream.counted)

    async def test_key(self, key: Secret) -> str:
        """Ask for the list of models, which is free. Empty when the key is accepted, else why not."""
        try:
            async with asyncio.timeout(TEST_SECONDS):
                await self._ask("GET", "/v1/models?limit=1", self._key(key), None, _Answer(lambda _: True))
        except TimeoutError:
            return faults.silent(self.name).message
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

    async def _ask(self, method: str, path: str, key: str, body: bytes | None, answer: "_Answer") -> None:
        """Make a request whose answer is to be heard. An error tells whether the request may have been executed."""
        try:
            await self._transport.exchange(method, path, key, body, answer)
        except NotSentError:
            raise faults.unreachable(self.name) from None
        except CutOffError:
            # The body of a refusal may be cut off or missing.
            if not answer.refused:
                raise faults.truncated(self.name, "was cut off") from None
        if answer.refused:
            raise faults.refused(self.name, answer.status, bytes(answer.refusal), answer.headers, key)


class _Answer:
    """A Receiver whose `body` is the one given, which returns True when it has enough; that of a refusal is kept."""

    __slots__ = ("body", "headers", "refusal", "refused", "status")

    def __init__(self, body: Callable[[bytes], bool]) -> None:
        self.body = body
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.refused = False
        self.refusal = bytearray()

    def head(self, status: int, headers: Mapping[str, str]) -> float | None:
        self.status, self.headers = status, headers
        self.refused = not 200 <= status < 300
        if not self.refused:
            return None
        self.body = self._keep
        return REFUSAL_SECONDS

    def _keep(self, data: bytes) -> bool:
        self.refusal += data
        return len(self.refusal) >= LONGEST_ERROR_BYTES


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
