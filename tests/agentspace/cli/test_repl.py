"""The conversation at a terminal."""

import asyncio
import os
import pty
from pathlib import Path

import pytest

from agentspace.cli import repl
from agentspace.cli.answer import Printer
from agentspace.client.conversation import Client
from tests.agentspace.command import finish, start
from tests.agentspace.json_door import SESSION, json_door

TOTAL = {"totalCost": 0, "totalTokens": 0, "requestCount": 0}


async def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    async with json_door() as door, Client(door.url) as client:
        door.replies["session.list"] = {"type": "session.list", "sessions": []}
        door.replies["usage.query"] = {"type": "usage.report", "perModel": {}, "grandTotal": TOTAL}
        await repl.command(client, "/sessions", None)
        await repl.command(client, "/usage", None)
        await repl.command(client, "/usage", SESSION)
        await repl.command(client, "/what", None)
    written = capsys.readouterr()
    assert written.out.startswith("session  model")
    assert "total" in written.out
    assert written.out.endswith(repl.HELP + "\n")
    assert written.err == "There is no session yet.\n"


async def test_say_prints_the_answer_and_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    async with json_door() as door, Client(door.url) as client:
        assert await repl.say(client, "hi", Printer(as_json=False, terminal=False), None, None) == SESSION
        written = capsys.readouterr()
        assert (written.out, written.err) == ("Hello world\n", "[3 in, 4 out, $0.001500]\n")
        door.executed, door.log = 0, []
        door.failure = {"code": "UPSTREAM_AUTH", "message": "no", "retryable": False}
        await repl.say(client, "hi", Printer(as_json=False, terminal=False), SESSION, None)
        assert capsys.readouterr().err == "error: no (UPSTREAM_AUTH)\n"


async def test_a_conversation_at_a_terminal(tmp_path: Path) -> None:
    async with json_door() as door:
        ours, theirs = pty.openpty()
        home = str(tmp_path / "home")
        process = await start("chat", "--url", door.url, "--home", home, stdin=theirs, stdout=theirs, TERM="dumb")
        assert process.stderr is not None
        async with asyncio.timeout(20):
            await process.stderr.readuntil(b"/help")
            os.write(ours, b"hi\r")
            await process.stderr.readuntil(b"out, $0.001500]")
        os.write(ours, b"/quit\r")
        code, _, _ = await finish(process)
        shown = os.read(ours, 100_000)
        os.close(ours)
        os.close(theirs)
    assert code == 0
    assert b"Hello world" in shown
    assert "+hi" in (tmp_path / "home" / "history").read_text(encoding="utf-8")
