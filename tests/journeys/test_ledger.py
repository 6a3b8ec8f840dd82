"""The ledger: every class of token at its price, to the pico-dollar, and sums that agree however they are asked for."""

import asyncio
import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentspace.v1 import usage_service_pb2
from agentspace.v1.usage_service_pb2_grpc import UsageServiceStub
from gateway.providers.catalog import BuiltInCatalog
from tests.fixtures.script import Fault, Script, Text, Thinking, Usage, text
from tests.fixtures.stack import ROOT, running_stack
from tests.fixtures.upstream import Upstream
from tests.journeys.conftest import House
from tests.journeys.doors import ENDS, Door, Frame, GoneError, door, hear, ready
from tests.journeys.test_clock import CLOCK

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN = "claude-unknown-9"
EVERY_CLASS = Usage(
    input_tokens=1001,
    cache_write_5m=203,
    cache_write_1h=3007,
    cache_read=50_021,
    output_tokens=907,
    thinking_tokens=411,
)
# By hand from the list prices, dollars a million tokens, so pico-dollars a token are 10^6 times as many.
BY_HAND = {
    # 2 in, 2.50 written for 5 minutes, 4 for an hour, 0.10 read (since 2026-10-07), 10 out:
    # 1001 * 2 + 203 * 2.5 + 3007 * 4 + 50021 * 0.1 = 2002 + 507.5 + 12028 + 5002.1 = 19539.6; 907 * 10 = 9070
    "claude-sonnet-5-5": (19_539_600_000, 9_070_000_000),
    # 4 in, 5, 8, 0.20 read, 20 out: 4004 + 1015 + 24056 + 10004.2 = 39079.2; 907 * 20 = 18140
    "claude-opus-5-5": (39_079_200_000, 18_140_000_000),
    # Up to 100,000 prompt tokens (here 54,232) 0.10, 0.125, 0.20, 0.01 and 0.50 out:
    # 100.1 + 25.375 + 601.4 + 500.21 = 1227.085; 907 * 0.5 = 453.5
    "claude-haiku-5-5": (1_227_085_000, 453_500_000),
}


async def records_of(house: House, session: str = "") -> list[Frame]:
    """All rows, page by page over the WebSocket, oldest first."""
    way, found, token = door("websocket", house.stack), [], ""
    while True:
        page = await way.ask("usage.records", sessionId=session, pageSize=7, pageToken=token)
        found += page["records"]
        if not (token := page["nextPageToken"]):
            return found[::-1]


async def in_pico(house: House, session: str = "") -> dict[int, tuple[int, int, int]]:
    """Input, output and total cost of each row as gRPC gives it: no fraction is lost."""
    async with house.stack.channel() as channel:
        answer = await UsageServiceStub(channel).ListUsageRecords(
            usage_service_pb2.ListUsageRecordsRequest(session_id=session, page_size=1000)
        )
    return {
        row.record_id: (
            row.cost.input_cost.pico_usd,
            row.cost.output_cost.pico_usd,
            row.cost.total_cost.pico_usd,
        )
        for row in answer.records
    }


async def send(
    house: House, script: Script | None, model: str, words: str, session: str = "", way: str = "websocket"
) -> tuple[str, Frame]:
    """One turn: the session and the end."""
    if script:
        house.upstream.play(script)
    fields = {"sessionId": session} if session else {}
    async with door(way, house.stack).open("chat.send", content=words, model=model, **fields) as stream:
        frames = await hear(stream, *ENDS)
    return session or frames[0]["sessionId"], frames[-1]


@pytest.mark.requirement("ledger.adds-up")
@pytest.mark.parametrize("model", sorted(BY_HAND))
async def test_every_class_at_its_price(house: House, model: str) -> None:
    script = Script(blocks=(Thinking(("Hm", ".")), Text(("Yes", "."))), usage=EVERY_CLASS)
    session, end = await send(house, script, model, f"all classes of {model}")
    (row,) = await records_of(house, session)
    usage = {
        "inputTokens": 1001 + 203 + 3007 + 50_021,
        "outputTokens": 907,
        "totalTokens": 1001 + 203 + 3007 + 50_021 + 907,
        "uncachedInputTokens": 1001,
        "cacheWrite5mTokens": 203,
        "cacheWrite1hTokens": 3007,
        "cacheReadTokens": 50_021,
        "thinkingTokens": 411,
        "serverToolRequests": 0,
    }
    assert row["usage"] == usage
    assert end["usage"] == usage
    assert (row["status"], row["outcome"], row["attempt"], row["provider"]) == ("final", "completed", 1, "anthropic")
    input_pico, output_pico = BY_HAND[model]
    (exact,) = (await in_pico(house, session)).values()
    assert exact == (input_pico, output_pico, input_pico + output_pico)
    assert (row["cost"]["priced"], row["cost"]["priceVersion"]) == (True, BuiltInCatalog().price_version)
    for shown in (row["cost"], end["cost"]):
        assert round(shown["inputCost"] * 10**12) == input_pico
        assert round(shown["outputCost"] * 10**12) == output_pico
        assert round(shown["totalCost"] * 10**12) == input_pico + output_pico
    total = (await door("grpc", house.stack).ask("usage.query", sessionId=session))["grandTotal"]
    assert round(total["totalCost"] * 10**12) == input_pico + output_pico


@pytest.mark.requirement("ledger.adds-up")
async def test_the_band_is_chosen_by_the_whole_prompt(house: House) -> None:
    # 100,000 tokens of prompt are still in the lower band; one more, though it is read from the cache, is not.
    for read, input_pico in ((99_999, 99_999 * 10_000 + 100_000), (100_000, 100_000 * 50_000 + 500_000)):
        usage = Usage(input_tokens=1, cache_read=read, output_tokens=2)
        session, _ = await send(house, text("a", "b", usage=usage), "claude-haiku-5-5", f"{read} read")
        output_pico = 1_000_000 if read == 99_999 else 5_000_000
        assert list((await in_pico(house, session)).values()) == [(input_pico, output_pico, input_pico + output_pico)]


@pytest.mark.requirement("ledger.adds-up")
async def test_a_price_holds_from_its_day_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CLOCK, encoding="ascii")
    offset = tmp_path / "offset"
    offset.write_text("0", encoding="ascii")
    seen = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "OFFSET_FILE": str(offset)}
    # Read from the cache, a token was 200,000 pico-dollars up to the day before, and then 100,000.
    usage = Usage(input_tokens=1, cache_read=1000, output_tokens=1)
    session, costs = "", []
    async with Upstream().serve() as upstream, running_stack(upstream.url, **seen) as stack:
        house = House(upstream, stack)
        for moment in (datetime(2026, 10, 6, 23, 58, tzinfo=UTC), datetime(2026, 10, 7, 0, 1, tzinfo=UTC)):
            offset.write_text(str(moment.timestamp() - time.time()), encoding="ascii")
            script = text("a", usage=usage)
            session, end = await send(house, script, "claude-sonnet-5-5", f"{moment}", session, way="grpc")
            costs.append(round(end["cost"]["inputCost"] * 10**12))
        assert costs == [2_000_000 + 200_000_000, 2_000_000 + 100_000_000]
        assert [pico[0] for _, pico in sorted((await in_pico(house)).items())] == costs, "what was written stays"


@pytest.mark.requirement("ledger.unpriced")
async def test_no_price_is_no_price(house: House) -> None:
    session, end = await send(house, text("a", usage=EVERY_CLASS), UNKNOWN, "what do you cost?")
    assert end["cost"]["priced"] is False
    assert end["cost"]["priceVersion"] == ""
    (row,) = await records_of(house, session)
    assert row["cost"]["priced"] is False
    assert row["usage"]["totalTokens"] == 55_139
    # With a priced turn beside it, the sums say that something is missing.
    await send(house, text("b", usage=Usage(input_tokens=10, output_tokens=1)), "claude-opus-5-5", "and you?", session)
    query = await door("websocket", house.stack).ask("usage.query", sessionId=session)
    assert query["perModel"][UNKNOWN]["unpricedCount"] == query["perModel"][UNKNOWN]["requestCount"] == 1
    assert query["perModel"]["claude-opus-5-5"]["unpricedCount"] == 0
    assert query["grandTotal"]["unpricedCount"] == 1
    assert query["grandTotal"]["requestCount"] == 2
    assert round(query["grandTotal"]["totalCost"] * 10**12) == 10 * 4_000_000 + 20_000_000
    # The original's clients know no such word: they see its tokens, and 0.
    async with house.stack.talk(level=1) as talk:
        house.upstream.play(text("a", usage=EVERY_CLASS))
        await talk.say("chat.send", content="again", sessionId=session, model=UNKNOWN)
        old = (await talk.hear_until(*ENDS))[-1]
        assert old["cost"] == {"inputCost": 0, "outputCost": 0, "totalCost": 0}
        assert old["usage"]["totalTokens"] == 55_139
        await talk.say("usage.query", sessionId=session)
        report = await talk.hear()
    assert set(report["perModel"][UNKNOWN]) == {
        "inputTokens",
        "outputTokens",
        "totalTokens",
        "totalCost",
        "requestCount",
    }
    assert (report["perModel"][UNKNOWN]["totalCost"], report["perModel"][UNKNOWN]["totalTokens"]) == (0, 2 * 55_139)


async def many_endings(house: House, model: str, session: str) -> str:
    """A turn for each way to end, all of this model."""
    endings: list[tuple[str, Script | None]] = [
        ("completes", text("a", "b", usage=EVERY_CLASS)),
        ("estimates", None),
        ("is cut", text("a", "b", "c", usage=EVERY_CLASS, fault=Fault.CUT, after=2)),
        ("is dropped", text("a", "b", "c", usage=Usage(input_tokens=33, cache_write_1h=7), fault=Fault.RESET, after=1)),
        ("fails in the middle", text("a", "b", usage=Usage(input_tokens=5), fault=Fault.ERROR, after=1)),
        # Waiting between the attempts takes a second, so not for each model.
        *([("!429 is refused thrice", None)] if model == UNKNOWN else []),
        ("!401 is refused", None),
        ("is a refusal", text("I can", usage=Usage(input_tokens=3), stop_reason="refusal")),
    ]
    for name, script in endings:
        session, _ = await send(house, script, model, f"{name} by {model}", session)
    gate = asyncio.Event()
    house.upstream.play(text("a", "b", usage=EVERY_CLASS, gates={1: gate}))
    way: Door = door("grpc", house.stack)
    async with way.open("chat.send", sessionId=session, content=f"cancelled by {model}", model=model) as stream:
        frames = await hear(stream, "chat.stream.delta")
        await way.ask("turn.cancel", turnId=frames[0]["turnId"])
        assert (await hear(stream, *ENDS))[-1]["type"] in ENDS
    return session


def summed(rows: list[Frame], pico: dict[int, tuple[int, int, int]]) -> dict[str, Any]:
    """What usage.query should say, from the rows alone."""
    models: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        model = models[row["model"]]
        used = row["usage"]["totalTokens"] > 0
        for name in ("inputTokens", "outputTokens", "totalTokens"):
            model[name] += row["usage"][name]
        model["pico"] += pico[row["recordId"]][2]
        model["requestCount"] += used
        model["unpricedCount"] += used and not row["cost"]["priced"]
    return {name: dict(sums) for name, sums in models.items()}


def reported(query: Frame) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it says, the money in pico-dollars."""
    for sums in (*query["perModel"].values(), query["grandTotal"]):
        sums["pico"] = round(sums.pop("totalCost") * 10**12)
    return query["perModel"], query["grandTotal"]


@pytest.mark.requirement("ledger.adds-up")
@pytest.mark.requirement("ledger.unpriced")
async def test_sums_are_the_sums_of_the_rows(house: House) -> None:
    sessions = []
    for models in (("claude-sonnet-5-5", UNKNOWN), ("claude-opus-5-5", "claude-sonnet-5-5"), ("scripted/echo",)):
        session = ""
        for model in models:
            if model.startswith("scripted"):
                session, _ = await send(house, None, model, "costs nothing", session)
            else:
                session = await many_endings(house, model, session)
        sessions.append(session)
    # A crash is an ending too.
    gate = asyncio.Event()
    house.upstream.play(text("a", "b", usage=EVERY_CLASS, gates={1: gate}))
    async with door("grpc", house.stack).open("chat.send", sessionId=sessions[0], content="crashes") as stream:
        await hear(stream, "chat.stream.delta")
        await house.stack.kill_gateway()
        with pytest.raises(GoneError):
            await hear(stream, *ENDS)
    await house.stack.start_gateway()
    await ready(house.stack)
    await check_sums(house, sessions)
    rows = await records_of(house, sessions[0])
    outcomes = [row["outcome"] for row in rows if row["model"] == UNKNOWN]
    assert outcomes.count("completed") == 3, outcomes
    assert outcomes.count("cancelled") == 1
    assert outcomes.count("UPSTREAM_RATE_LIMITED") == 3, "each attempt has a row"
    assert outcomes.count("UPSTREAM_OVERLOADED") == 1
    assert outcomes.count("UPSTREAM_TRUNCATED") == 2
    assert outcomes.count("UPSTREAM_AUTH") == 1
    cut = next(row for row in rows if row["outcome"] == "UPSTREAM_TRUNCATED")
    assert cut["status"] == "partial"
    assert cut["usage"]["cacheWrite1hTokens"] == 3007
    assert cut["usage"]["outputTokens"] > 0
    # What is gone from sight was paid for all the same.
    whole = (await door("grpc", house.stack).ask("usage.query"))["grandTotal"]
    await door("grpc", house.stack).ask("session.delete", sessionId=sessions[1])
    assert (await door("grpc", house.stack).ask("usage.query"))["grandTotal"] == whole
    # Nobody changes a row behind the sums' back.
    with closing(sqlite3.connect(house.stack.home / "agentspace.db", isolation_level=None)) as other:
        for deed in ("UPDATE usage_records SET output = 0", "DELETE FROM usage_records"):
            with pytest.raises(sqlite3.IntegrityError):
                other.execute(deed)


async def check_sums(house: House, sessions: list[str]) -> None:
    """Rows, sums by model, grand totals and the database agree, session by session and all together."""
    everything, pico = await records_of(house), await in_pico(house)
    assert len({row["recordId"] for row in everything}) == len(everything) == len(pico)
    for session in ["", *sessions]:
        rows = await records_of(house, session)
        assert rows == [row for row in everything if not session or row["sessionId"] == session]
        for row in rows:
            input_pico, output_pico, total_pico = pico[row["recordId"]]
            assert input_pico + output_pico == total_pico
            used = row["usage"]
            classes = ("uncachedInputTokens", "cacheWrite5mTokens", "cacheWrite1hTokens", "cacheReadTokens")
            assert used["inputTokens"] == sum(used[name] for name in classes)
            assert used["totalTokens"] == used["inputTokens"] + used["outputTokens"]
        for name in ("websocket", "grpc"):
            fields = {"sessionId": session} if session else {}
            models, total = reported(await door(name, house.stack).ask("usage.query", **fields))
            assert models == summed(rows, pico)
            assert total == {
                sums: sum(model[sums] for model in models.values())
                for sums in ("totalTokens", "pico", "requestCount", "unpricedCount")
            }
    with closing(sqlite3.connect(house.stack.home / "agentspace.db")) as database:
        stored = database.execute("SELECT sum(input_pico), sum(output_pico) FROM usage_records").fetchone()
    assert stored == (sum(costs[0] for costs in pico.values()), sum(costs[1] for costs in pico.values()))
