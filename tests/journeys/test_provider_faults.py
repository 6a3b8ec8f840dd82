"""A provider that fails in every way it can: one typed error, a session that is usable at once, nothing left behind."""

import asyncio
from typing import Any

import pytest

from tests.journeys.conftest import House
from tests.journeys.doors import ENDS, Door, GoneError, hear, ready, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What is said, the error it ends in, how many calls are made, the text that comes through, rows with what outcome.
FAULTS = [
    ("!cut", "UPSTREAM_TRUNCATED", 1, "half an"),
    ("!drop", "UPSTREAM_TRUNCATED", 1, "half an"),
    ("!reset", "UPSTREAM_TRUNCATED", 1, "half an"),
    ("!error", "UPSTREAM_OVERLOADED", 1, "half an"),
    ("!400", "UPSTREAM_REJECTED", 1, ""),
    ("!401", "UPSTREAM_AUTH", 1, ""),
    ("!403", "UPSTREAM_AUTH", 1, ""),
    ("!429", "UPSTREAM_RATE_LIMITED", 3, ""),
    ("!500", "UPSTREAM_OVERLOADED", 3, ""),
    ("!529", "UPSTREAM_OVERLOADED", 3, ""),
]


@pytest.mark.requirement("failure.one-error")
@pytest.mark.requirement("failure.nothing-left")
@pytest.mark.requirement("failure.not-twice")
@pytest.mark.parametrize(("words", "code", "attempts", "text"), FAULTS)
async def test_fault_ends_in_one_error(
    house: House, way: Door, words: str, code: str, attempts: int, text: str
) -> None:
    asked = f"{words} {way.name} {code}"
    async with way.open("chat.send", content=asked) as stream:
        frames = await hear(stream, *ENDS)
        types = [frame["type"] for frame in frames if frame["type"] != "chat.stream.delta"]
        assert types == ["session.created", "chat.accepted", "chat.stream.start", "error"]
        assert said(frames) == text
        error, session = frames[-1], frames[0]["sessionId"]
        assert (error["code"], error["turnId"]) == (code, frames[1]["turnId"])
        assert error["execution"] == (
            "may_have_executed" if (attempts == 1 and text) or words == "!500" else "not_started"
        )
        assert len(house.calls(asked)) == attempts
        # Nothing follows; the same socket goes on.
        with pytest.raises((TimeoutError, GoneError)):
            async with asyncio.timeout(0.05):
                await stream.next()
    again = f"again {asked}"
    async with way.open("chat.send", sessionId=session, content=again) as stream:
        frames = await hear(stream, *ENDS)
    assert frames[-1]["type"] == "chat.stream.end", frames
    sent = house.calls(again)
    assert len(sent) == 1
    before = [("user", asked), ("assistant", text)] if text else []
    assert sent[0].said() == [*before, ("user", again)]
    await check_ledger(way, session, attempts + 1)


async def check_ledger(way: Door, session: str, rows: int) -> None:
    """One row a call, sums that agree, and no tokens where none were used."""
    records = (await way.ask("usage.records", sessionId=session))["records"]
    assert len(records) == rows, records
    usage = await way.ask("usage.query", sessionId=session)
    used = [record for record in records if record["usage"]["totalTokens"]]
    total = usage["grandTotal"]
    assert total["requestCount"] == len(used)
    assert total["totalTokens"] == sum(record["usage"]["totalTokens"] for record in records)
    for record in records:
        if record["outcome"] == "completed":
            assert record["status"] == "final"
        else:
            assert record["outcome"].startswith("UPSTREAM_"), record


@pytest.mark.requirement("chat.restart")
@pytest.mark.requirement("chat.sent-as-stored")
async def test_history_is_sent_whole_after_faults_and_a_restart(house: House, way: Door) -> None:
    asked: list[str] = []
    session: dict[str, Any] = {}
    story = [("one", True), ("!529 two", False), ("three", True), ("!cut four", True), ("!401 five", False)]
    for index, (content, kept) in enumerate(story):
        words = f"{content} {way.name}"
        async with way.open("chat.send", content=words, **session) as stream:
            frames = await hear(stream, *ENDS)
        session = session or {"sessionId": frames[0]["sessionId"]}
        if kept:
            asked.append(words)
        if index == 2:
            await house.stack.restart_gateway()
            await ready(house.stack)
    await house.stack.kill_gateway()
    await house.stack.start_gateway()
    await house.stack.restart_bridge()
    await ready(house.stack)
    async with way.open("chat.send", content="last", **session) as stream:
        assert (await hear(stream, *ENDS))[-1]["type"] == "chat.stream.end"
    call = house.upstream.chats[-1]
    assert [text for role, text in call.said() if role == "user"] == [*asked, "last"]
    assert [role for role, _ in call.said()] == ["user", "assistant"] * len(asked) + ["user"]
    history = await way.ask("session.history", **session)
    assert [m["blocks"][0]["text"] for m in history["messages"] if m["role"] == "user"] == [
        *(f"{content} {way.name}" for content, _ in story),
        "last",
    ]
