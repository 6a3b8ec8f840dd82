"""`agentspace usage`."""

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
