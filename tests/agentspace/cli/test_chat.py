"""`agentspace chat`."""

import asyncio
import os
import pty
import signal

import pytest

from agentspace.cli.chat import PIPE_NOTE, join_input
from tests.agentspace.command import call, finish, lines, start
from tests.agentspace.json_door import SESSION, json_door


@pytest.mark.parametrize(
    ("piped", "message", "sent"),
    [
        ("", "hi", "hi"),
        ("text\n", None, "text"),
        ("text\n", "sum up", "text\n\nsum up"),
        ("\n", "hi", "hi"),
        ("", None, ""),
    ],
)
def test_input_is_the_pipe_then_the_argument(piped: str, message: str | None, sent: str) -> None:
    assert join_input(piped, message) == sent


async def test_a_message_prints_its_answer_and_nothing_else() -> None:
    async with json_door() as door:
        result = await call("chat", "question", "--url", door.url, "-m", "m", "-s", SESSION, said="piped")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello world\n", "")
        sent = door.received[0]
        assert (sent["content"], sent["model"], sent["sessionId"]) == ("piped\n\nquestion", "m", SESSION)


async def test_json_prints_the_frames() -> None:
    async with json_door() as door:
        result = await call("chat", "x", "--json", "--url", door.url)
    frames = lines(result.stdout)
    assert [frame["type"] for frame in frames[:3]] == ["session.created", "chat.accepted", "chat.stream.start"]
    assert frames[-1]["type"] == "chat.stream.end"


async def test_it_goes_on_after_a_break() -> None:
    async with json_door() as door:
        door.drops = [4]
        result = await call("chat", "x", "--url", door.url)
    assert (result.exit_code, result.stdout) == (0, "Hello world\n")
    assert "connection lost" in result.stderr


async def test_continue_takes_the_session_used_last() -> None:
    async with json_door() as door:
        old = {"sessionId": "old", "createdAt": "2026-01-03T00:00:00.000Z", "updatedAt": "2026-01-03T00:00:00.000Z"}
        used = {**old, "sessionId": "used", "updatedAt": "2026-02-01T00:00:00.000Z"}
        door.replies["session.list"] = {"type": "session.list", "sessions": [old, used]}
        result = await call("chat", "-c", "x", "--url", door.url)
        assert result.exit_code == 0
        assert door.received[-1]["sessionId"] == "used"
        door.replies["session.list"] = {"type": "session.list", "sessions": []}
        assert (await call("chat", "-c", "x", "--url", door.url)).exit_code == 1


async def test_continue_looks_at_every_page() -> None:
    async with json_door() as door:
        old = {"sessionId": "old", "createdAt": "2026-01-03T00:00:00.000Z", "updatedAt": "2026-01-03T00:00:00.000Z"}
        used = {**old, "sessionId": "used", "updatedAt": "2026-02-01T00:00:00.000Z"}
        door.replies["session.list"] = {"type": "session.list", "sessions": [old], "nextPageToken": "two"}
        door.pages["two"] = {"type": "session.list", "sessions": [used], "nextPageToken": ""}
        result = await call("chat", "-c", "x", "--url", door.url)
    assert result.exit_code == 0
    assert door.received[-1]["sessionId"] == "used"


async def test_a_failed_turn_is_code_5() -> None:
    async with json_door() as door:
        door.failure = {"code": "UPSTREAM_OVERLOADED", "message": "the provider is busy", "retryable": True}
        result = await call("chat", "x", "--url", door.url)
        assert (result.exit_code, result.stdout) == (5, "Hello world\n")
        assert result.stderr == "error: the provider is busy (UPSTREAM_OVERLOADED)\n"
        door.executed, door.log = 0, []
        result = await call("chat", "x", "--url", door.url, "--json")
        assert result.exit_code == 5
        assert [frame["type"] for frame in lines(result.stdout)].count("error") == 1


async def test_refusals_have_their_codes() -> None:
    async with json_door() as door:
        door.error = {"code": "MISSING_SCOPE", "message": "no", "retryable": False, "metadata": {"scope": "chat"}}
        result = await call("chat", "x", "--url", door.url)
        assert result.exit_code == 4
        assert "scope" in result.stderr
        door.error = {"code": "SESSION_NOT_FOUND", "message": "no such session", "retryable": False}
        result = await call("chat", "x", "-s", "y", "--url", door.url, "--json")
        assert result.exit_code == 1
        assert lines(result.stdout)[0]["code"] == "SESSION_NOT_FOUND"


async def test_a_pipe_that_stays_open_is_told_and_still_read() -> None:
    async with json_door() as door:
        process = await start("chat", "sum up", "--url", door.url)
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"text\n")
        async with asyncio.timeout(20):
            assert (await process.stderr.readline()).decode() == f"{PIPE_NOTE}\n"
        process.stdin.close()
        code, out, err = await finish(process)
        [sent] = [frame["content"] for frame in door.received if frame["type"] == "chat.send"]
    assert (code, out, err) == (0, "Hello world\n", "")
    assert sent == "text\n\nsum up"


async def test_misuse_is_code_2() -> None:
    assert (await call("chat", said="")).exit_code == 2
    assert (await call("chat", "x", "-c", "-s", "y")).exit_code == 2


async def test_control_characters_reach_a_pipe_but_no_terminal() -> None:
    async with json_door() as door:
        door.deltas = ["a\x1b]0;evil\x07", "b\x9b31m\r \n", "c"]
        result = await call("chat", "x", "--url", door.url)
        assert result.stdout == "a\x1b]0;evil\x07b\x9b31m\r \nc\n"
        door.executed, door.log = 0, []
        ours, theirs = pty.openpty()
        process = await start("chat", "x", "--url", door.url, stdin=theirs, stdout=theirs)
        code, _, err = await finish(process)
        shown = os.read(ours, 10000).decode()
        os.close(ours)
        os.close(theirs)
    assert code == 0
    assert shown.replace("\r\n", "\n") == "a]0;evilb31m \nc\n"
    assert SESSION in err


@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_cancels_the_turn_and_a_second_one_leaves(times: int) -> None:
    async with json_door() as door:
        door.hold_at = 4
        process = await start("chat", "x", "--url", door.url)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(20):
            await door.holding.wait()
            assert process.stdout is not None
            assert await process.stdout.readexactly(6) == b"Hello "
            if times == 2:
                door.replies["turn.cancel"] = {}
                door.error = {"code": "INTERNAL", "message": "stuck", "retryable": False}
            process.send_signal(signal.SIGINT)
            if times == 2:
                assert process.stderr is not None
                await process.stderr.readline()
                process.send_signal(signal.SIGINT)
        code, out, _ = await finish(process)
        cancels = [frame for frame in door.received if frame["type"] == "turn.cancel"]
    assert (code, out, len(cancels)) == (130, "\n", 1)
    assert cancels[0]["turnId"]
