"""`agentspace audit`."""

from tests.agentspace.command import call, lines
from tests.agentspace.json_door import json_door


async def test_rows_newest_first() -> None:
    async with json_door() as door:
        event = {"createdAt": "2026-01-02T03:04:05.678Z", "principal": "operator", "action": "key.put"}
        event |= {"subject": "anthropic", "outcome": "ok"}
        door.replies["audit.list"] = {"type": "audit.list", "events": [event]}
        shown = (await call("audit", "--url", door.url)).stdout
        assert shown.splitlines()[1].split()[2:] == ["operator", "key.put", "anthropic", "ok"]
        assert lines((await call("audit", "--json", "--url", door.url)).stdout)[0]["events"] == [event]
