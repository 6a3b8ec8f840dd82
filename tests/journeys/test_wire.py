"""The JSON door as the original's clients know it, and what it does with input that makes no sense."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.fixtures.script import text
from tests.fixtures.stack import Talk
from tests.journeys.conftest import House
from tests.journeys.doors import ENDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

Check = Callable[[Any], bool]


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def string(value: Any) -> bool:
    return isinstance(value, str)


def moment(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 24 and value[10] == "T" and value[19] == "." and value[23] == "Z"


def exactly(**fields: Check) -> Check:
    """An object with these fields and no others."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == fields.keys() and all(fields[name](value[name]) for name in fields)
    )


def listed(item: Check) -> Check:
    return lambda value: isinstance(value, list) and all(item(each) for each in value)


SESSION = exactly(sessionId=string, sessionKey=string, model=string, createdAt=moment, messageCount=count)
SECTION = exactly(name=string, content=string, byteCount=count, tokenEstimate=count, costEstimate=number)
PER_MODEL = exactly(inputTokens=count, outputTokens=count, totalTokens=count, totalCost=number, requestCount=count)
USAGE = exactly(inputTokens=count, outputTokens=count, totalTokens=count)
COST = exactly(inputCost=number, outputCost=number, totalCost=number)

V1: dict[str, dict[str, Check]] = {
    "session.created": {"sessionId": string, "sessionKey": string},
    "chat.stream.start": {"requestId": string, "sessionId": string, "model": string},
    "chat.stream.delta": {"requestId": string, "delta": string},
    "chat.stream.end": {"requestId": string, "usage": USAGE, "cost": COST},
    "context.inspection": {
        "requestId": string,
        "sections": listed(SECTION),
        "totals": exactly(byteCount=count, tokenEstimate=count, costEstimate=number),
    },
    "usage.report": {
        "requestId": string,
        "perModel": lambda value: isinstance(value, dict) and all(PER_MODEL(each) for each in value.values()),
        "grandTotal": exactly(totalCost=number, totalTokens=count, requestCount=count),
    },
    "session.list": {"requestId": string, "sessions": listed(SESSION)},
    "error": {"requestId": string, "code": string, "message": string},
}
V1_CODES = {"INVALID_MESSAGE", "SESSION_NOT_FOUND", "STREAM_IN_PROGRESS", "LLM_ERROR", "NOT_IMPLEMENTED"}


def check_v1(frame: dict[str, Any]) -> None:
    """The frame is one of the eight, with exactly its fields, each of its type."""
    fields = dict(V1[frame["type"]])
    if frame["type"] == "error":
        assert frame["code"] in V1_CODES, frame
        if "requestId" not in frame:
            del fields["requestId"]
    assert frame.keys() == {"type", *fields}, frame
    for name, check in fields.items():
        assert check(frame[name]), (name, frame)


class Original(Talk):
    """A level 1 connection on which every frame is checked."""

    async def hear(self) -> dict[str, Any]:
        frame = await super().hear()
        check_v1(frame)
        return frame


@pytest.mark.requirement("v1.exact")
async def test_level_1_sees_the_originals_frames_and_nothing_else(house: House) -> None:
    named = ["!thinking", "!tool", "!redacted", "!refusal", "!cut", "!error", "!401", "hello", "!many"]
    async with house.stack.talk(level=1) as talk:
        original = Original(talk.socket)
        for request, content in enumerate(named):
            await original.say("chat.send", f"r{request}", content=content)
            created, *frames = await original.hear_until(*ENDS)
            assert created["type"] == "session.created"
            assert created["sessionKey"] == f"agent:default:{created['sessionId']}"
            assert {frame["requestId"] for frame in frames} == {f"r{request}"}
            failed = content in ("!cut", "!error", "!401")
            assert frames[-1]["type"] == ("error" if failed else "chat.stream.end")
            assert frames[-1].get("code", "LLM_ERROR") == "LLM_ERROR"
            to = created["sessionId"]
            for type_, answer in (
                ("context.inspect", "context.inspection"),
                ("usage.query", "usage.report"),
                ("session.list", "session.list"),
            ):
                fields = {} if type_ == "session.list" else {"sessionId": to}
                await original.say(type_, "q", **fields)
                assert (await original.hear())["type"] == answer
            await original.say("chat.send", "again", sessionId=to, content=f"again {content}")
            frames = await original.hear_until(*ENDS)
            assert [frames[0]["type"], frames[-1]["type"]] == ["chat.stream.start", "chat.stream.end"]
        await original.say("usage.query", "all")
        assert (await original.hear())["type"] == "usage.report"
        for later in ("session.watch", "turn.cancel", "session.get", "hello"):
            await original.say(later, "later", sessionId=to)
            refused = await original.hear()
            assert (refused["type"], refused["requestId"], refused["code"]) == ("error", "later", "INVALID_MESSAGE")


@pytest.mark.requirement("v1.subprotocol")
async def test_unknown_subprotocol_alone_is_refused(house: House) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{house.stack.url}/gateway", protocols=("agentspace.v9",))
        assert refused.value.status == 400
        for offered, chosen in (
            (("agentspace.v9", "agentspace.v2"), "agentspace.v2"),
            (("agentspace.v1",), "agentspace.v1"),
        ):
            async with session.ws_connect(f"{house.stack.url}/gateway", protocols=offered) as socket:
                assert socket.protocol == chosen


@pytest.mark.requirement("v2.hello")
async def test_level_2_begins_with_hello(house: House) -> None:
    async with house.stack.talk() as talk:
        hello = await talk.hear()
    assert (hello["type"], hello["protocol"], hello["principal"]) == ("hello", "agentspace.v2", "local")
    assert hello["limits"]["maxFrameBytes"] == 1024 * 1024
    assert {"watch", "cancel", "queue", "idempotency"} <= set(hello["features"])


def frame(**fields: Any) -> str:
    return json.dumps({"id": "me", **fields})


BAD: list[tuple[str, str, str, str]] = [
    ("not JSON", "{nope", "", "INVALID_MESSAGE"),
    ("empty", "", "", "INVALID_MESSAGE"),
    ("array", "[]", "", "INVALID_MESSAGE"),
    ("array of frames", "[" + frame(type="session.list") + "]", "", "INVALID_MESSAGE"),
    ("null", "null", "", "INVALID_MESSAGE"),
    ("number", "7", "", "INVALID_MESSAGE"),
    ("no type", frame(), "me", "INVALID_MESSAGE"),
    ("type is a list", frame(type=[]), "me", "INVALID_MESSAGE"),
    ("type is an object", frame(type={}), "me", "INVALID_MESSAGE"),
    ("unknown type", frame(type="chat.sing"), "me", "INVALID_MESSAGE"),
    ("no id", '{"type":"session.list"}', "", "INVALID_MESSAGE"),
    ("id is a number", '{"type":"session.list","id":7}', "", "INVALID_MESSAGE"),
    ("no content", frame(type="chat.send"), "me", "INVALID_MESSAGE"),
    ("content is null", frame(type="chat.send", content=None), "me", "INVALID_MESSAGE"),
    ("content is a number", frame(type="chat.send", content=7), "me", "INVALID_MESSAGE"),
    ("content is a list", frame(type="chat.send", content=["x"]), "me", "INVALID_MESSAGE"),
    ("content is empty", frame(type="chat.send", content=""), "me", "INVALID_MESSAGE"),
    ("content is blank", frame(type="chat.send", content=" \n\t"), "me", "INVALID_MESSAGE"),
    ("lone surrogate", '{"type":"chat.send","id":"me","content":"\\ud800"}', "me", "INVALID_MESSAGE"),
    ("NaN", '{"type":"chat.send","id":"me","content":NaN}', "", "INVALID_MESSAGE"),
    ("session is a number", frame(type="chat.send", content="x", sessionId=7), "me", "INVALID_MESSAGE"),
    ("model is a list", frame(type="chat.send", content="x", model=[]), "me", "INVALID_MESSAGE"),
    ("unknown session", frame(type="chat.send", content="x", sessionId="x" * 21), "me", "SESSION_NOT_FOUND"),
    ("session in the context", frame(type="context.inspect", sessionId="nobody"), "me", "SESSION_NOT_FOUND"),
    ("session in the usage", frame(type="usage.query", sessionId="nobody"), "me", "SESSION_NOT_FOUND"),
    ("unknown model", frame(type="chat.send", content="x", model="gpt-9"), "me", "MODEL_NOT_FOUND"),
    ("deep list", '{"type":"chat.send","id":"me","content":' + "[" * 30000 + "]" * 30000 + "}", "", "INVALID_MESSAGE"),
    ("deep object", '{"a":' * 30000 + "1" + "}" * 30000, "", "INVALID_MESSAGE"),
    ("long number", '{"type":"chat.send","id":"me","content":' + "9" * 5000 + "}", "", "INVALID_MESSAGE"),
]
# Level 1 has fewer codes.
V1_CODE = {"MODEL_NOT_FOUND": "LLM_ERROR"}


@pytest.mark.requirement("bad-input.answered")
@pytest.mark.parametrize("level", [1, 2])
async def test_bad_input_is_answered_and_the_connection_goes_on(house: House, level: int) -> None:
    async with house.stack.talk(level=level) as talk:
        if level == 2:
            await talk.hear()
        for name, sent, request, code in BAD:
            await talk.socket.send_str(sent)
            error = await talk.hear()
            assert error["type"] == "error", (name, error)
            assert error["code"] == (V1_CODE.get(code, code) if level == 1 else code), (name, error)
            if request:
                assert error.get("requestId") == request, (name, error)
            assert error["message"], name
            assert len(error["message"]) < 300, name
            if level == 1:
                check_v1(error)
        await talk.say("chat.send", "good", content="still here")
        frames = await talk.hear_until(*ENDS)
        assert frames[-1]["type"] == "chat.stream.end"
        assert {each["requestId"] for each in frames if each["type"] != "session.created"} == {"good"}


@pytest.mark.requirement("bad-input.closed")
@pytest.mark.parametrize(("kind", "code"), [("large", 1009), ("binary", 1003), ("utf8", 1007)])
async def test_broken_frames_close_the_connection(house: House, kind: str, code: int) -> None:
    async with house.stack.talk(level=1) as talk:
        match kind:
            case "large":
                head = '{"type":"chat.send","id":"1","content":"'
                await talk.socket.send_str(head + "x" * (1024 * 1024 + 1 - len(head) - 2) + '"}')
            case "binary":
                await talk.socket.send_bytes(b"{}")
            case _:
                await talk.socket.send_frame(b'{"type":"\xff\xfe"}', aiohttp.WSMsgType.TEXT)
        assert await talk.closed() == code


@pytest.mark.requirement("bad-input.answered")
async def test_largest_frame_is_taken(house: House) -> None:
    async with house.stack.talk(level=1) as talk:
        head = '{"type":"chat.send","id":"1","content":"'
        await talk.socket.send_str(head + "x" * (1024 * 1024 - len(head) - 2) + '"}')
        frames = await talk.hear_until(*ENDS)
    assert frames[-1]["type"] == "chat.stream.end", frames[-1]


@pytest.mark.requirement("chat.one-writer")
@pytest.mark.requirement("chat.parallel-sessions")
async def test_two_chats_at_once(house: House) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    for gate in gates:
        house.upstream.play(text("a", "b", gates={1: gate}))
    async with house.stack.talk(level=1) as one, house.stack.talk(level=1) as two:
        await one.say("chat.send", "1", content="first")
        session = (await one.hear_until("chat.stream.delta"))[0]["sessionId"]
        await two.say("chat.send", "2", content="second", sessionId=session)
        refused = await two.hear()
        assert (refused["code"], refused["requestId"]) == ("STREAM_IN_PROGRESS", "2")
        await one.say("chat.send", "3", content="third", sessionId=f"agent:default:{session}")
        refused = await one.hear()
        assert (refused["code"], refused["requestId"]) == ("STREAM_IN_PROGRESS", "3")
        await two.say("chat.send", "4", content="elsewhere")
        await two.hear_until("chat.stream.delta")
        gates[1].set()
        assert (await two.hear_until(*ENDS))[-1]["type"] == "chat.stream.end"
        gates[0].set()
        assert (await one.hear_until(*ENDS))[-1]["type"] == "chat.stream.end"
        await two.say("chat.send", "5", content="now", sessionId=session)
        assert (await two.hear_until(*ENDS))[-1]["type"] == "chat.stream.end"
    assert not house.calls("second")
    assert not house.calls("third")
    assert [said for role, said in house.calls("now")[0].said() if role == "user"] == ["first", "now"]
