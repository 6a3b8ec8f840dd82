"""What is sent is what Anthropic's own SDK would send for the same arguments."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.domain.context import PromptMessage
from gateway.domain.secret import Secret
from gateway.providers.anthropic import AnthropicProvider
from gateway.usecases.ports import ModelRequest
from tests.gateway.providers.sinks import RecordingSink

KEY = "sk-ant-test-0123456789"
# Who is asking is told differently, and compressed events would wait for one another.
OUR_OWN = {"user-agent", "accept-encoding"}
# Connections, and what the SDK tells about its machine.
THEIR_OWN = {"connection", "host", "content-length"}
CONVERSATION = (PromptMessage("user", "a\n\u2028"), PromptMessage("assistant", "grüße"), PromptMessage("user", "🙂"))


@dataclass(slots=True)
class Sent:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    def compared(self) -> tuple[str, str, dict[str, str], Any]:
        """Everything in which two clients must agree."""
        headers = {
            name: value
            for name, value in self.headers.items()
            if name not in OUR_OWN | THEIR_OWN and not name.startswith("x-stainless-")
        }
        return self.method, self.path, headers, self.body


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[Sent]]]:
    """The address of a server that writes down what it is asked, and its notes."""
    heard: list[Sent] = []

    async def answer(incoming: web.Request) -> web.Response:
        raw = await incoming.read()
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        assert len(headers) == len(incoming.headers)
        heard.append(Sent(incoming.method, incoming.raw_path, headers, json.loads(raw) if raw else None))
        if incoming.method == "GET":
            return web.json_response({"data": [], "has_more": False, "first_id": None, "last_id": None})
        return web.Response(body=b'data: {"type":"message_stop"}\n\n', content_type="text/event-stream")

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("")), heard
    finally:
        await server.close()


@pytest.mark.parametrize("path", ["", "/", "/with/a prefix", "/with/a/slash/"])
@pytest.mark.parametrize("system", ["", "Be brief."])
async def test_a_request_for_a_message(path: str, system: str) -> None:
    async with listening() as (url, heard):
        provider = AnthropicProvider(base_url=url + path, user_agent="agentspace-gateway/1.2")
        await provider.generate(
            ModelRequest("claude-sonnet-5-5", system, CONVERSATION, 77, Secret(KEY)), RecordingSink()
        )
        await provider.close()
        async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url + path, max_retries=0) as sdk:
            stream = await sdk.messages.create(
                model="claude-sonnet-5-5",
                max_tokens=77,
                system=system or anthropic.omit,
                messages=[{"role": message.role, "content": message.text} for message in CONVERSATION],  # type: ignore[misc,typeddict-item]
                stream=True,
            )
            await stream.close()
    ours, theirs = heard
    assert ours.compared() == theirs.compared()
    assert (ours.headers["user-agent"], ours.headers["accept-encoding"]) == ("agentspace-gateway/1.2", "identity")
    assert set(ours.headers) <= set(theirs.headers)


async def test_a_request_that_tries_a_key() -> None:
    async with listening() as (url, heard):
        provider = AnthropicProvider(base_url=url + "/prefix")
        assert await provider.test_key(Secret(KEY)) == ""
        await provider.close()
        async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url + "/prefix", max_retries=0) as sdk:
            await sdk.models.list(limit=1)
    ours, theirs = heard
    assert ours.compared() == theirs.compared()
