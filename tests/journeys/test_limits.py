"""A provider that keeps silent, or asks for patience: the limits of a turn, and retries before the first byte only."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.fixtures.script import RATE_LIMITED, RATE_LIMITED_WITHOUT_TIME, SPEND_LIMIT, Fault, Refusal, Script, text
from tests.fixtures.stack import running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.conftest import House
from tests.journeys.doors import ENDS, Door, hear, said

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """An impatient one."""
    limits = {
        "AGENTSPACE_FIRST_BYTE_SECONDS": "1.5",
        "AGENTSPACE_IDLE_SECONDS": "0.5",
        "AGENTSPACE_PINGED_SECONDS": "1",
        "AGENTSPACE_TOTAL_SECONDS": "2.5",
    }
    async with Upstream().serve() as upstream, running_stack(upstream.url, **limits) as stack:
        # The first request waits for the provider's library to be loaded.
        async with asyncio.timeout(10), stack.talk(level=1) as talk:
            await talk.say("chat.send", content="warm")
            await talk.hear_until(*ENDS)
        yield House(upstream, stack)


SLOW = text(*("." for _ in range(1000)), pace=0.02)
LIMITS = [
    ("first_byte", text("a", gates={-1: asyncio.Event()}), ""),
    ("idle", text("a", "b", "c", fault=Fault.SILENCE, after=2), "ab"),
    ("idle", text("a", "b", "c", fault=Fault.PINGS, after=2), "ab"),
    ("total", SLOW, None),
]


@pytest.mark.requirement("limits.end-turns")
@pytest.mark.requirement("failure.one-error")
@pytest.mark.parametrize(("limit", "script", "kept"), LIMITS, ids=["first_byte", "silence", "pings", "endless"])
async def test_silence_has_an_end(house: House, way: Door, limit: str, script: Script, kept: str | None) -> None:
    if -1 in script.gates:
        script = replace(script, gates={-1: asyncio.Event()})
    house.upstream.play(script)
    words = f"{limit} {kept} {script.fault} {way.name}"
    async with way.open("chat.send", content=words) as stream:
        frames = await hear(stream, *ENDS)
    assert (frames[-1]["code"], frames[-1]["metadata"]["limit"]) == ("UPSTREAM_TIMEOUT", limit)
    assert frames[-1]["execution"] == "may_have_executed"
    assert kept is None or said(frames) == kept
    (call,) = house.calls(words)
    async with asyncio.timeout(1):
        await call.ended.wait()
    assert call.outcome == "client_closed"
    async with way.open("chat.send", content=f"next {words}", sessionId=frames[0]["sessionId"]) as stream:
        assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"


RETRIED = [
    ([RATE_LIMITED], "", 0),
    # Without a time it is an allowance that is spent: another attempt does not bring it back.
    ([RATE_LIMITED_WITHOUT_TIME], "UPSTREAM_RATE_LIMITED", 0),
    ([RATE_LIMITED, Refusal(529, "overloaded_error")], "", 0),
    ([replace(RATE_LIMITED, retry_after=60.0)], "UPSTREAM_RATE_LIMITED", 60_000),
    ([SPEND_LIMIT], "UPSTREAM_SPEND_LIMIT", 0),
]


@pytest.mark.requirement("failure.one-error")
@pytest.mark.requirement("failure.not-twice")
@pytest.mark.parametrize(("refusals", "code", "after"), RETRIED, ids=["time", "no time", "two", "too long", "spent"])
async def test_refused_calls_are_repeated_within_bounds(
    house: House, way: Door, refusals: list[Refusal], code: str, after: int
) -> None:
    house.upstream.play(*(Script(refusal=refusal) for refusal in refusals))
    words = f"again {refusals} {way.name}"
    async with way.open("chat.send", content=words) as stream:
        frames = await hear(stream, *ENDS)
    assert frames[-1].get("code", "") == code
    assert frames[-1].get("retryAfterMs", 0) == after
    calls = house.calls(words)
    assert len(calls) == len(refusals) + (not code)
    assert len({str(call.body) for call in calls}) == 1
    records = (await way.ask("usage.records", sessionId=frames[0]["sessionId"]))["records"]
    assert [record["attempt"] for record in reversed(records)] == list(range(1, len(calls) + 1))
    outcomes = [record["outcome"] for record in reversed(records)]
    assert outcomes[:-1] == ["UPSTREAM_RATE_LIMITED", "UPSTREAM_OVERLOADED"][: len(calls) - 1]
    assert outcomes[-1] == (code or "completed")
