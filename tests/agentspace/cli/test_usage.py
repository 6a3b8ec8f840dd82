"""`agentspace usage` and `agentspace audit`: one request, one table."""

from tests.agentspace.command import call, lines
from tests.agentspace.json_door import json_door

TOTAL = {"totalCost": 0, "totalTokens": 0, "requestCount": 0}


async def test_usage_of_a_session_and_of_everything() -> None:
    async with json_door() as door:
        door.replies["usage.query"] = {"type": "usage.report", "perModel": {}, "grandTotal": TOTAL}
        shown = await call("usage", "s", "--url", door.url)
        assert shown.stdout.splitlines()[-1].split() == ["total", "0", "0", "$0"]
        [frame] = lines((await call("usage", "--json", "--url", door.url)).stdout)
        assert frame["grandTotal"] == TOTAL
        assert [sent.get("sessionId") for sent in door.received] == ["s", None]


async def test_audit() -> None:
    async with json_door() as door:
        event = {"createdAt": "2026-01-02T03:04:05.678Z", "principal": "operator", "action": "key.put"}
        event |= {"subject": "anthropic", "outcome": "ok"}
        door.replies["audit.list"] = {"type": "audit.list", "events": [event]}
        shown = (await call("audit", "--url", door.url)).stdout
        assert shown.splitlines()[1].split()[2:] == ["operator", "key.put", "anthropic", "ok"]
        assert lines((await call("audit", "--json", "--url", door.url)).stdout)[0]["events"] == [event]
