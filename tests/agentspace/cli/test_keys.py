"""`agentspace keys`."""

import asyncio
import os
import pty

from tests.agentspace.command import call, finish, lines, start
from tests.agentspace.json_door import json_door

KEY = {"provider": "anthropic", "masked": "…abcd", "createdAt": "2026-01-02T03:04:05.678Z"}


async def test_a_key_is_piped_in_and_never_printed() -> None:
    async with json_door() as door:
        door.replies["key.put"] = {"type": "key.put", "key": KEY}
        result = await call("keys", "set", "anthropic", "--url", door.url, said="  sk-secret\n")
        assert (result.exit_code, result.output) == (0, "stored anthropic …abcd\n")
        assert door.received[0]["key"] == "sk-secret"
        assert (await call("keys", "set", "anthropic", "--url", door.url, said="\n")).exit_code == 2
        assert (await call("keys", "set", "anthropic", "sk-secret", "--url", door.url)).exit_code == 2


async def test_the_prompt_hides_what_is_typed() -> None:
    async with json_door() as door:
        door.replies["key.put"] = {"type": "key.put", "key": KEY}
        ours, theirs = pty.openpty()
        process = await start("keys", "set", "anthropic", "--url", door.url, stdin=theirs)
        assert process.stderr is not None
        async with asyncio.timeout(20):
            await process.stderr.readuntil(b": ")
        os.write(ours, b"sk-secret\n")
        code, out, err = await finish(process)
        os.close(ours)
        os.close(theirs)
        assert (code, out) == (0, "stored anthropic …abcd\n")
        assert "sk-secret" not in err
        assert door.received[0]["key"] == "sk-secret"


async def test_list_test_and_remove() -> None:
    async with json_door() as door:
        door.replies["key.list"] = {"type": "key.list", "keys": [KEY]}
        door.replies["key.test"] = {"type": "key.test", "accepted": False, "detail": "401"}
        door.replies["key.delete"] = {"type": "key.delete", "existed": True}
        shown = await call("keys", "ls", "--url", door.url)
        assert shown.stdout.splitlines()[1].split() == ["anthropic", "…abcd", "2026-01-02", "03:04:05", "never"]
        assert lines((await call("keys", "ls", "--json", "--url", door.url)).stdout)[0]["keys"] == [KEY]
        refused = await call("keys", "test", "anthropic", "--url", door.url)
        assert (refused.exit_code, refused.stderr) == (1, "error: anthropic does not accept the key: 401\n")
        assert (await call("keys", "test", "anthropic", "--json", "--url", door.url)).exit_code == 1
        door.replies["key.test"] = {"type": "key.test", "accepted": True, "detail": ""}
        assert (await call("keys", "test", "anthropic", "--url", door.url)).exit_code == 0
        assert "removed" in (await call("keys", "rm", "anthropic", "--url", door.url)).stdout
