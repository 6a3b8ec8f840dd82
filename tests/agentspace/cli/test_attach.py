"""`agentspace attach`."""

import asyncio
import signal

import pytest

from agentspace.cli.answer import Printer
from agentspace.cli.attach import RESETS, Watcher
from agentspace.v1.turn_pb2 import ResetReason
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


def replayed(reason: str, turn: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What is printed when a reset comes in the middle of an answer whose turn is now in state `turn`."""
    watcher = Watcher(Printer(as_json=False, terminal=False))
    watcher.show({"type": "chat.stream.start", "turnId": "t"})
    watcher.show({"type": "chat.stream.delta", "delta": "half"})
    watcher.show({"type": "session.reset", "reason": reason})
    watcher.turns = {"t": {"turnId": "t", "state": turn, "answerMessageId": "m"}}
    block = {"kind": "text", "text": "half", "complete": turn == "completed"}
    message = {"messageId": "m", "role": "assistant", "turnId": "t", "blocks": [block]}
    watcher.show({**state(3), "type": "session.snapshot", "messages": [message]})
    said = capsys.readouterr()
    return said.out, said.err


def test_an_interrupted_answer_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = replayed("epoch_changed", "interrupted", capsys)
    assert out == "half\nhalf\n"
    assert err == "[the answer was interrupted]\n[the answer was interrupted]\n"


def test_another_reset_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert replayed("position_ahead", "completed", capsys)[1] == f"[{RESETS['position_ahead']}]\n"


def test_every_reset_reason_has_words() -> None:
    assert set(RESETS) == {name.removeprefix("RESET_REASON_").lower() for name in ResetReason.keys()[1:]}


async def test_a_snapshots_cancelled_answer_is_marked() -> None:
    async with json_door() as door:
        door.turns = [{"turnId": "t0", "state": "cancelled", "answerMessageId": "m0"}]
        door.snapshot = state(0)
        door.snapshot["messages"][0]["turnId"] = "t0"
        process = await start("attach", SESSION, "--url", door.url)
        assert process.stderr is not None
        async with asyncio.timeout(20):
            assert await process.stderr.readline() == b"[the answer was cancelled]\n"
        process.send_signal(signal.SIGINT)
        assert (await finish(process))[1] == "earlier\n"
