"""GET /ready tells the truth: each thing a chat needs is taken away and given back, and a chat says the same."""

import asyncio
import signal
import sqlite3
from contextlib import closing

import aiohttp
import pytest

from tests.fixtures.script import text
from tests.fixtures.stack import Frame, Stack, running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.doors import ENDS, GoneError, door, hear, ready


async def asked(stack: Stack) -> tuple[int, dict[str, str], str]:
    """The status, what is missing with its words, and the code of a bridge without a gateway."""
    async with asyncio.timeout(10), aiohttp.ClientSession() as session, session.get(f"{stack.url}/ready") as answer:
        body: Frame = await answer.json()
        assert body["ready"] == (answer.status == 200) == all(part["ready"] for part in body["parts"])
        missing = {part["name"]: part["detail"] for part in body["parts"] if not part["ready"]}
        return answer.status, missing, body.get("code", "")


async def chat(stack: Stack, name: str = "grpc") -> str:
    """How a chat ends: "chat.stream.end" or the error's code; "gone" where nobody answers."""
    try:
        async with door(name, stack).open("chat.send", content="hello") as stream:
            end = (await hear(stream, *ENDS))[-1]
    except GoneError:
        return "gone"
    return str(end.get("code", end["type"]))


async def operate(stack: Stack, type_: str, **fields: str) -> Frame:
    async with stack.talk(token=stack.token) as talk:
        await talk.hear()
        await talk.say(type_, **fields)
        return await talk.hear()


@pytest.mark.requirement("ready.truthful")
async def test_not_ready_without_a_key() -> None:
    async with Upstream().serve() as upstream, running_stack(upstream.url, ANTHROPIC_API_KEY="") as stack:
        status, missing, _ = await asked(stack)
        assert (status, list(missing)) == (503, ["provider"])
        assert "anthropic" in missing["provider"]
        assert "agentspace keys set anthropic" in missing["provider"]
        assert await chat(stack) == "PROVIDER_KEY_MISSING"
        await operate(stack, "key.put", provider="anthropic", key=upstream.key)
        assert (await asked(stack))[:2] == (200, {})
        assert await chat(stack) == "chat.stream.end"
        await operate(stack, "key.delete", provider="anthropic")
        assert (await asked(stack))[0] == 503
        # A model that needs no key.
        stack.model = "scripted/echo"
        await stack.restart_gateway()
        await ready(stack)
        assert await chat(stack) == "chat.stream.end"


@pytest.mark.requirement("ready.truthful")
async def test_not_ready_without_a_model() -> None:
    async with Upstream().serve() as upstream, running_stack(upstream.url, "nobody/knows") as stack:
        status, missing, _ = await asked(stack)
        assert (status, list(missing)) == (503, ["provider"])
        assert await chat(stack) == "MODEL_NOT_FOUND"


@pytest.mark.requirement("ready.truthful")
async def test_not_ready_while_the_database_is_locked_the_gateway_dead_or_on_its_way_out() -> None:
    async with (
        Upstream().serve() as upstream,
        running_stack(upstream.url, AGENTSPACE_DRAIN_SECONDS="10") as stack,
    ):
        assert (await asked(stack))[:2] == (200, {})
        with closing(sqlite3.connect(stack.home / "agentspace.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, missing, _ = await asked(stack)
            assert (status, list(missing)) == (503, ["storage"])
            assert str(stack.home) not in missing["storage"]
            other.execute("ROLLBACK")
        await ready(stack)
        assert await chat(stack, "websocket") == "chat.stream.end"
        # On its way out, with a turn that is waited for.
        gate = asyncio.Event()
        upstream.play(text("a", "b", gates={1: gate}))
        async with door("grpc", stack).open("chat.send", content="the last one") as stream:
            await hear(stream, "chat.stream.delta")
            stack.gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (found := await asked(stack))[0] == 200:
                    pass
            assert found[0] == 503
            assert list(found[1]) == ["draining"]
            assert await chat(stack, "websocket") == "SHUTTING_DOWN"
            gate.set()
            assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
        assert await stack.gateway.process.wait() == 0
        # Gone.
        status, missing, code = await asked(stack)
        assert (status, list(missing), code) == (503, ["gateway"], "GATEWAY_UNREACHABLE")
        async with aiohttp.ClientSession() as session, session.get(f"{stack.url}/health") as answer:
            assert answer.status == 200, "the bridge itself is alive"
        await stack.start_gateway()
        await ready(stack)
        await stack.kill_gateway()
        async with asyncio.timeout(10):
            while (found := await asked(stack))[0] == 200:
                pass
        assert list(found[1]) == ["gateway"]
        await stack.start_gateway()
        await ready(stack)
        assert await chat(stack, "websocket") == "chat.stream.end"
