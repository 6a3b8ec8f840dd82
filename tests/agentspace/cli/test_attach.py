"""`agentspace attach`."""

import asyncio
import signal

from tests.agentspace.command import finish, lines, start
from tests.agentspace.json_door import SESSION, JsonDoor, json_door


def state(seq: int) -> dict[str, object]:
    block = {"kind": "text", "text": "earlier", "complete": True}
    return {
        "sessionId": SESSION,
        "epoch": 1,
        "seq": seq,
        "messages": [{"messageId": "m0", "role": "assistant", "blocks": [block]}],
        "queuedTurnIds": [],
        "activeTurn": None,
    }


async def watch(door: JsonDoor, *options: str) -> tuple[int, str, str]:
    """Attach, read to the answer's end, and leave with Ctrl-C."""
    door.run_turn()
    door.snapshot = state(0)
    door.drops = [4]
    process = await start("attach", SESSION, "--url", door.url, *options)
    assert process.stdout is not None
    seen = b""
    async with asyncio.timeout(20):
        while b"Hello world\n" not in seen and b"chat.stream.end" not in seen:
            seen += await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, rest, err = await finish(process)
    return code, seen.decode() + rest, err


async def test_what_was_said_and_what_is_said_now() -> None:
    async with json_door() as door:
        code, out, err = await watch(door)
    assert code == 130
    assert out == "earlier\n> hi\nHello world\n"
    assert "connection lost" in err
    assert "7" not in out


async def test_json_prints_the_frames() -> None:
    async with json_door() as door:
        _, out, _ = await watch(door, "--json")
    assert [frame["type"] for frame in lines(out)][:2] == ["session.snapshot", "chat.message"]


async def test_leaving_cancels_nothing() -> None:
    async with json_door() as door:
        await watch(door)
        assert "turn.cancel" not in {frame["type"] for frame in door.received}
