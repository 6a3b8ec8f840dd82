"""One conversation over the WebSocket at both levels and over gRPC, and what the inspector says of it."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from agentspace.v1 import context_service_pb2
from agentspace.v1.context_service_pb2_grpc import ContextServiceStub
from tests.fixtures.script import Script, Text, Thinking, text
from tests.fixtures.stack import Frame
from tests.journeys.conftest import House
from tests.journeys.doors import ENDS, door, hear, ready, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICO_PER_DOLLAR = 10**12
SECTIONS = ["system_prompt", "history", "memory", "skills", "tools"]


async def speak(house: House, way: str, words: str, session: str = "") -> list[Frame]:
    """Send over v1, v2 or gRPC and hear everything that is answered."""
    fields = {"content": words, **({"sessionId": session} if session else {})}
    if way == "v1":
        async with house.stack.talk(level=1) as talk:
            await talk.say("chat.send", **fields)
            return await talk.hear_until(*ENDS)
    async with door("websocket" if way == "v2" else "grpc", house.stack).open("chat.send", **fields) as stream:
        return await hear(stream, *ENDS)


async def inspect(house: House, session: str, level: int = 2) -> Frame:
    """The inspector's answer at that level."""
    async with house.stack.talk(level) as talk:
        if level == 2:
            assert (await talk.hear())["type"] == "hello"
        await talk.say("context.inspect", sessionId=session)
        return await talk.hear()


@pytest.mark.requirement("chat.both-doors")
@pytest.mark.requirement("chat.sent-as-stored")
@pytest.mark.requirement("chat.restart")
@pytest.mark.parametrize("order", ["v1 v2 grpc", "grpc v1 v2"])
async def test_doors_take_turns(house: House, order: str) -> None:
    ways = order.split()
    stored: list[tuple[str, str]] = []
    session = ""
    for number, way in enumerate(ways * 3):
        if number == len(ways):
            await house.stack.restart_gateway()
            await ready(house.stack)
        if number == 2 * len(ways):
            await house.stack.restart_bridge()
            await ready(house.stack)
        words = f"{order}: {number} über {way} \N{BIRD} \"'\\\n\tend"
        # Broken in the middle of a line, and with what JSON and UTF-8 make long.
        house.upstream.play(text("Grüße", f" no. {number}\n", "\N{BIRD}", "\u2028", '"\\'))
        frames = await speak(house, way, words, session)
        assert frames[-1]["type"] == "chat.stream.end", frames
        assert said(frames) == f'Grüße no. {number}\n\N{BIRD}\u2028"\\'
        session = session or frames[0]["sessionId"]
        (call,) = house.calls(words)
        assert call.said() == [*stored, ("user", words)]
        stored += [("user", words), ("assistant", said(frames))]
    # Each door shows the same history, and the database holds nothing else.
    histories = [
        (await door(name, house.stack).ask("session.history", sessionId=session))["messages"]
        for name in ("websocket", "grpc")
    ]
    assert histories[0] == histories[1]
    assert [(m["role"], "".join(b["text"] for b in m["blocks"])) for m in histories[0]] == stored
    async with house.stack.talk(level=1) as talk:
        await talk.say("session.list")
        listed = await talk.hear()
    (shown,) = [each for each in listed["sessions"] if each["sessionId"] == session]
    assert shown["messageCount"] == len(stored)


@pytest.mark.requirement("chat.both-doors")
async def test_one_door_watches_what_another_says(house: House) -> None:
    first = await speak(house, "v1", "begun at level 1")
    session = first[0]["sessionId"]
    gate = asyncio.Event()
    house.upstream.play(text("a", "b", "c", gates={1: gate}))
    grpc, socket = door("grpc", house.stack), door("websocket", house.stack)
    async with grpc.open("session.watch", sessionId=session) as watcher:
        assert (await watcher.next())["type"] == "session.snapshot"
        async with socket.open("chat.send", sessionId=session, content="goes on at level 2") as sender:
            await hear(sender, "chat.stream.delta")
            # While it runs, the third way in is told so.
            refused = await speak(house, "v1", "too early", session)
            assert [frame["code"] for frame in refused] == ["STREAM_IN_PROGRESS"]
            gate.set()
            sent, seen = await hear(sender, *ENDS), await hear(watcher, *ENDS)
    assert seen[-1] == {name: value for name, value in sent[-1].items() if name != "requestId"}
    assert said(seen) == "abc"


@pytest.mark.requirement("context.sections")
async def test_sections_are_what_is_sent_next(house: House) -> None:
    house.upstream.play(
        text("Grüße, ", "\N{BIRD}"),
        Script(blocks=(Thinking(("never sent",)), Text(("Seen.",)))),
    )
    session = (await speak(house, "v2", "eins\n\nzwei \N{BIRD}"))[0]["sessionId"]
    await speak(house, "grpc", "drei", session)
    # What failed without a word of answer is not sent, so it is not shown.
    assert (await speak(house, "v1", "!400 never again", session))[-1]["type"] == "error"
    with closing(sqlite3.connect(house.stack.home / "agentspace.db", isolation_level=None)) as database:
        database.execute(
            "UPDATE sessions SET system_prompt = 'Sei höflich.' WHERE session_id = ?", (session.rpartition(":")[2],)
        )
    frame = await inspect(house, session)
    assert [section["name"] for section in frame["sections"]] == SECTIONS
    by_name = {section["name"]: section for section in frame["sections"]}
    await speak(house, "v2", "what was sent?", session)
    (call,) = house.calls("what was sent?")
    before = call.said()[:-1]
    assert before == [
        ("user", "eins\n\nzwei \N{BIRD}"),
        ("assistant", "Grüße, \N{BIRD}"),
        ("user", "drei"),
        ("assistant", "Seen."),
    ]
    assert by_name["history"]["content"] == "\n\n".join(f"{role}: {words}" for role, words in before)
    assert by_name["system_prompt"]["content"] == "Sei höflich."
    assert "Sei höflich." in str(call.body["system"])
    assert frame["model"] == "claude-sonnet-5-5"
    for section in frame["sections"]:
        assert section["byteCount"] == len(section["content"].encode())
        assert section["tokenMethod"] == "estimate:o200k"
        assert (section["tokenEstimate"] > 0) == bool(section["content"])
        # Two dollars a million tokens.
        assert round(section["costEstimate"] * PICO_PER_DOLLAR) == section["tokenEstimate"] * 2_000_000
    totals = frame["totals"]
    for name in ("byteCount", "tokenEstimate"):
        assert totals[name] == sum(section[name] for section in frame["sections"])
    assert round(totals["costEstimate"] * PICO_PER_DOLLAR) == totals["tokenEstimate"] * 2_000_000
    assert totals["priced"]
    # The same numbers over gRPC, in whole pico-dollars.
    await check_grpc(house, session)
    old = await inspect(house, session, level=1)
    assert set(old) - {"requestId"} == {"type", "sections", "totals"}
    assert set(old["totals"]) == {"byteCount", "tokenEstimate", "costEstimate"}
    assert {frozenset(section) for section in old["sections"]} == {
        frozenset({"name", "content", "byteCount", "tokenEstimate", "costEstimate"})
    }


async def check_grpc(house: House, session: str) -> None:
    """Totals are sums over gRPC too."""
    async with house.stack.channel() as channel:
        answer = await ContextServiceStub(channel).InspectContext(
            context_service_pb2.InspectContextRequest(session_id=session)
        )
    assert [section.name for section in answer.sections] == SECTIONS
    assert answer.totals.byte_count == sum(len(section.content.encode()) for section in answer.sections)
    assert answer.totals.token_estimate == sum(section.token_estimate for section in answer.sections)
    assert answer.totals.cost_estimate.pico_usd == answer.totals.token_estimate * 2_000_000


@pytest.mark.requirement("context.sections")
@pytest.mark.requirement("ledger.unpriced")
async def test_sections_of_a_model_without_a_price(house: House) -> None:
    async with house.stack.talk() as talk:
        await talk.hear()
        await talk.say("chat.send", content="hello", model="claude-unknown-9")
        session = (await talk.hear_until(*ENDS))[0]["sessionId"]
    frame = await inspect(house, session)
    assert frame["totals"]["tokenEstimate"] > 0
    assert not frame["totals"]["priced"]
    assert not frame["totals"]["costEstimate"]
    assert (await inspect(house, session, level=1))["totals"]["costEstimate"] == 0
